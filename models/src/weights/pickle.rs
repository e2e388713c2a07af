//! How large the objects of a pickle get, before a reader makes them.
//!
//! A reader that copies what is referred to, as candle's does, makes 2ⁿ objects of n pairs of the pair before. So the
//! pickle is gone through first, with the sizes of objects in their place: no more than its length in time, and a number
//! for each object in memory.

use std::collections::HashMap;

/// Bytes that all objects and copies may take together. The weights of BERT base take half a million.
const MOST: u64 = 256 << 20;
/// Bytes of an object beside its text.
const OBJECT: u64 = 64;

/// What is on a reader's stack.
enum Item {
    Mark,
    /// With everything in it.
    Bytes(u64),
}

struct Sizes<'a> {
    rest: &'a [u8],
    stack: Vec<Item>,
    kept: HashMap<u32, u64>,
    /// Of all that was made or copied.
    total: u64,
}

/// Checks a pickle up to its end; what it says is wrong with one.
pub(super) fn check(pickle: &[u8]) -> Result<(), String> {
    let mut sizes = Sizes {
        rest: pickle,
        stack: Vec::new(),
        kept: HashMap::new(),
        total: 0,
    };
    while sizes.step().ok_or("a damaged pickle")? {
        if sizes.total > MOST {
            return Err(format!(
                "a pickle whose objects take more than {MOST} bytes"
            ));
        }
    }
    Ok(())
}

impl Sizes<'_> {
    /// One instruction; whether there is another. `None` where there is none that a reader knows.
    fn step(&mut self) -> Option<bool> {
        match self.take(1)?[0] {
            0x80 => self.take(1).map(drop)?,
            b'.' => return Some(false),
            b'(' => self.stack.push(Item::Mark),
            // Numbers, truths, nothing, and what is empty.
            b'J' => self.made(4, 0)?,
            b'K' => self.made(1, 0)?,
            b'M' => self.made(2, 0)?,
            b'G' => self.made(8, 0)?,
            b'N' | 0x88 | 0x89 | b')' | b'}' | b']' => self.made(0, 0)?,
            0x8a => {
                let length = self.take(1)?[0];
                self.made(usize::from(length), 0)?;
            }
            b'X' => {
                let length = self.number(4)?;
                self.made(length as usize, length.into())?;
            }
            b'c' => {
                let length = (self.line()? + self.line()?) as u64;
                self.push(OBJECT + length);
            }
            b'q' => self.keep(1)?,
            b'r' => self.keep(4)?,
            b'h' => self.copy(1)?,
            b'j' => self.copy(4)?,
            0x85 | b'Q' => self.join(1)?,
            0x86 | b'R' | b'b' | 0x81 => self.join(2)?,
            0x87 => self.join(3)?,
            b't' | b'd' => {
                let inside = self.pop_to_mark()?;
                self.push(OBJECT + inside);
            }
            b'a' => self.add_to_last(1)?,
            b's' => self.add_to_last(2)?,
            b'u' | b'e' => {
                let inside = self.pop_to_mark()?;
                let outside = self.pop()?;
                self.stack.push(Item::Bytes(outside.saturating_add(inside)));
            }
            _ => return None,
        }
        Some(true)
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// Of one byte or four, the lowest first.
    fn number(&mut self, count: usize) -> Option<u32> {
        let bytes = self.take(count)?.iter().rev();
        Some(bytes.fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    /// The length of a line.
    fn line(&mut self) -> Option<usize> {
        let length = self.rest.iter().position(|&byte| byte == b'\n')?;
        self.take(length + 1)?;
        Some(length)
    }

    fn push(&mut self, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
        self.stack.push(Item::Bytes(bytes));
    }

    fn made(&mut self, argument: usize, text: u64) -> Option<()> {
        self.take(argument)?;
        self.push(OBJECT + text);
        Some(())
    }

    fn pop(&mut self) -> Option<u64> {
        match self.stack.pop()? {
            Item::Bytes(bytes) => Some(bytes),
            Item::Mark => None,
        }
    }

    fn pop_to_mark(&mut self) -> Option<u64> {
        let mut inside = 0u64;
        loop {
            match self.stack.pop()? {
                Item::Mark => return Some(inside),
                Item::Bytes(bytes) => inside = inside.saturating_add(bytes),
            }
        }
    }

    /// The last objects as one.
    fn join(&mut self, count: usize) -> Option<()> {
        let mut bytes = OBJECT;
        for _ in 0..count {
            bytes = bytes.saturating_add(self.pop()?);
        }
        self.push(bytes);
        Some(())
    }

    fn add_to_last(&mut self, count: usize) -> Option<()> {
        let mut inside = 0u64;
        for _ in 0..count {
            inside = inside.saturating_add(self.pop()?);
        }
        let outside = self.pop()?;
        self.stack.push(Item::Bytes(outside.saturating_add(inside)));
        Some(())
    }

    /// Keeps a copy of the last object.
    fn keep(&mut self, count: usize) -> Option<()> {
        let place = self.number(count)?;
        match self.stack.last()? {
            Item::Bytes(bytes) => {
                self.total = self.total.saturating_add(*bytes);
                self.kept.insert(place, *bytes);
                Some(())
            }
            Item::Mark => None,
        }
    }

    fn copy(&mut self, count: usize) -> Option<()> {
        let place = self.number(count)?;
        let bytes = *self.kept.get(&place)?;
        self.push(bytes);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_pairs_are_counted_and_not_made() {
        // (), kept as 0; then again and again the pair of what was kept, kept.
        let doubled = |times: u8| {
            let mut pickle = vec![0x80, 2, b')', b'q', 0];
            for i in 0..times {
                pickle.extend([b'h', i, b'h', i, 0x86, b'q', i + 1]);
            }
            pickle.push(b'.');
            pickle
        };
        assert_eq!(check(&doubled(10)), Ok(()));
        let error = check(&doubled(200)).unwrap_err();
        assert!(error.contains("more than 268435456 bytes"), "{error}");
    }

    #[test]
    fn what_no_reader_knows_is_damaged() {
        for pickle in [
            &b""[..],
            b"\x80",
            b"(",
            b"t.",
            b"q\x00.",
            b"h\x07.",
            b"X\xff\xff\xff\xffab.",
            b"cmodule",
            b"(q\x00.",
            b"?.",
        ] {
            assert_eq!(check(pickle), Err("a damaged pickle".into()), "{pickle:?}");
        }
        assert_eq!(check(b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01u."), Ok(()));
    }
}
