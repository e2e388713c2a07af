//! Thrift's compact protocol, as far as it takes to find numbers in it.
//!
//! A structure is a sequence of fields: a byte with the difference of the field's number to the one before
//! (high) and the kind (low), the number itself if there is no difference, the value; a zero at the end.

/// Structures within structures.
const DEEPEST: u8 = 12;

/// Bytes that are read from the front.
pub(super) struct Thrift<'a>(pub(super) &'a [u8]);

/// Numbers that are looked for, and what was found.
struct Search<'a> {
    wanted: &'a [i64],
    found: Vec<(i64, i64)>,
}

impl<'a> Thrift<'a> {
    /// Reads a structure, and gives the integers in it at these places, in their order: field 3 of the
    /// structure that is field 5 is at 503, and so in each structure of a list that is field 5. The
    /// beginning of a structure is a 0 at its own place. `None` if the structure is not whole.
    pub(super) fn numbers(&mut self, wanted: &[i64]) -> Option<Vec<(i64, i64)>> {
        let mut search = Search {
            wanted,
            found: Vec::new(),
        };
        self.structure(0, DEEPEST, &mut search)?;
        Some(search.found)
    }

    fn structure(&mut self, place: i64, depth: u8, search: &mut Search) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let mut id = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            id = match head >> 4 {
                0 => self.number()?,
                more => id + i64::from(more),
            };
            // Numbers of fields have 16 bits.
            let id = i64::from(i16::try_from(id).ok()?);
            self.value(
                head & 15,
                place.checked_mul(100)?.checked_add(id)?,
                depth,
                search,
            )?;
        }
    }

    fn value(&mut self, kind: u8, place: i64, depth: u8, search: &mut Search) -> Option<()> {
        match kind {
            // True and false.
            1 | 2 => Some(()),
            3 => self.take(1),
            4..=6 => {
                let number = self.number()?;
                search.note(place, number);
                Some(())
            }
            7 => self.take(8),
            8 => {
                let length = usize::try_from(self.unsigned()?).ok()?;
                self.take(length)
            }
            9 | 10 => self.list(place, depth, search),
            11 => self.map(place, depth, search),
            12 => {
                search.note(place, 0);
                self.structure(place, depth, search)
            }
            _ => None,
        }
    }

    fn list(&mut self, place: i64, depth: u8, search: &mut Search) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.unsigned()?,
            count => u64::from(count),
        };
        (0..count).try_for_each(|_| self.element(head & 15, place, depth, search))
    }

    fn map(&mut self, place: i64, depth: u8, search: &mut Search) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let count = self.unsigned()?;
        if count == 0 {
            return Some(());
        }
        let kinds = self.byte()?;
        (0..count).try_for_each(|_| {
            self.element(kinds >> 4, place, depth, search)?;
            self.element(kinds & 15, place, depth, search)
        })
    }

    /// Within lists, truths have a byte of their own: so that each element takes one, and lists end.
    fn element(&mut self, kind: u8, place: i64, depth: u8, search: &mut Search) -> Option<()> {
        match kind {
            1 | 2 => self.take(1),
            kind => self.value(kind, place, depth, search),
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn take(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    /// Seven bits a byte, the lowest first; the eighth says whether there are more.
    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    /// Zigzag: 0, -1, 1, -2, …
    fn number(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

impl Search<'_> {
    fn note(&mut self, place: i64, number: i64) {
        if self.wanted.contains(&place) {
            self.found.push((place, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_at_their_places() {
        // Field 2: -3; field 5: {1: 300, 3: "ab", 18: [{1: 7}, {}]}; field 6: true.
        let bytes = [
            0x25, 5, 0x3c, 0x15, 0xd8, 4, 0x28, 2, b'a', b'b', 0xf9, 0x2c, 0x15, 14, 0, 0, 0, 0x11,
            0, 9,
        ];
        let mut thrift = Thrift(&bytes);
        let found = thrift.numbers(&[2, 5, 501, 518, 51801]).unwrap();
        let expected = [(2, -3), (5, 0), (501, 300), (518, 0), (51801, 7), (518, 0)];
        assert_eq!(found, expected);
        assert_eq!(thrift.0, [9]);
        for length in 0..bytes.len() - 1 {
            assert_eq!(Thrift(&bytes[..length]).numbers(&[2]), None, "{length}");
        }
        // A text longer than all memory, a list without end, structures without end.
        assert_eq!(Thrift(&[0x18, 255, 255, 255, 255, 127]).numbers(&[]), None);
        assert_eq!(
            Thrift(&[0x19, 0xf5, 255, 255, 255, 127, 2]).numbers(&[]),
            None
        );
        assert_eq!(Thrift(&[0x1c; 1 << 16]).numbers(&[]), None);
        assert_eq!(Thrift(&[0x19; 1 << 16]).numbers(&[]), None);
    }
}
