//! One line of a click log: its fields, and what may be wrong with them.

use super::{CATEGORIES, INTEGERS};

/// Characters of a bad field that an error shows.
const SHOWN: usize = 24;

/// A line of a click log as it stands in the file; `None` where a field is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Whether the advertisement was clicked; `None` in files without labels.
    pub label: Option<bool>,
    /// The 13 counts; some are negative.
    pub integers: [Option<i32>; INTEGERS],
    /// The 26 hashed categorical values.
    pub categories: [Option<u32>; CATEGORIES],
}

/// What a line should hold and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fault {
    pub(super) expected: String,
    pub(super) got: String,
}

impl Row {
    /// Reads one line without its line end: the label if `labelled`, 13 integers, 26 values of up
    /// to 8 hexadecimal digits, separated by tabs.
    pub(super) fn parse(line: &[u8], labelled: bool) -> Result<Self, Fault> {
        Self::fields(line, labelled).map_err(|fault| {
            // A line with too few or too many fields is that first of all.
            let got = 1 + line.iter().filter(|&&byte| byte == b'\t').count();
            let expected = INTEGERS + CATEGORIES + usize::from(labelled);
            if got == expected {
                return fault;
            }
            Fault {
                expected: format!("{expected} fields, separated by tabs"),
                got: format!("{got} field{}", if got == 1 { "" } else { "s" }),
            }
        })
    }

    fn fields(line: &[u8], labelled: bool) -> Result<Self, Fault> {
        let mut fields = Fields(Some(line));
        let mut row = Self {
            label: None,
            integers: [None; INTEGERS],
            categories: [None; CATEGORIES],
        };
        if labelled {
            let field = fields.next()?;
            row.label = match field {
                b"0" => Some(false),
                b"1" => Some(true),
                _ => return Err(fault("label", 0, "0 or 1", field)),
            };
        }
        for (index, integer) in row.integers.iter_mut().enumerate() {
            let field = fields.next()?;
            *integer = parse_integer(field).ok_or_else(|| {
                fault("integer", index + 1, "an integer of 32 bits or none", field)
            })?;
        }
        for (index, category) in row.categories.iter_mut().enumerate() {
            let field = fields.next()?;
            *category = parse_category(field).ok_or_else(|| {
                let expected = "up to 8 hexadecimal digits or none";
                fault("categorical value", index + 1, expected, field)
            })?;
        }
        match fields.0 {
            None => Ok(row),
            Some(_) => Err(Fault::default()),
        }
    }
}

/// The fields that are left of a line; `None` after the last.
struct Fields<'a>(Option<&'a [u8]>);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<&'a [u8], Fault> {
        let rest = self.0.ok_or_else(Fault::default)?;
        // Fields are short: a search by bytes beats one by vectors.
        match rest.iter().position(|&byte| byte == b'\t') {
            Some(end) => {
                self.0 = Some(&rest[end + 1..]);
                Ok(&rest[..end])
            }
            None => {
                self.0 = None;
                Ok(rest)
            }
        }
    }
}

/// An integer of 32 bits; the outer `None` if it is none.
fn parse_integer(field: &[u8]) -> Option<Option<i32>> {
    if field.is_empty() {
        return Some(None);
    }
    let (negative, digits) = match field {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    let mut value = 0i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    let value = if negative { -value } else { value };
    i32::try_from(value).ok().map(Some)
}

/// A value of up to 8 hexadecimal digits; the outer `None` if it is none.
fn parse_category(field: &[u8]) -> Option<Option<u32>> {
    if field.is_empty() {
        return Some(None);
    }
    if field.len() > 8 {
        return None;
    }
    let (mut value, mut strange) = (0u32, 0u8);
    for &byte in field {
        let digit = HEXADECIMAL[usize::from(byte)];
        strange |= digit;
        value = value << 4 | u32::from(digit & 15);
    }
    (strange < 16).then_some(Some(value))
}

/// The values of the hexadecimal digits, 255 for all other bytes.
const HEXADECIMAL: [u8; 256] = {
    let mut values = [255u8; 256];
    let mut digit = 0u8;
    while digit < 16 {
        let index = digit as usize;
        values[b"0123456789abcdef"[index] as usize] = digit;
        values[b"0123456789ABCDEF"[index] as usize] = digit;
        digit += 1;
    }
    values
};

/// A field that cannot be read; number 0 stands for the only one of its kind.
fn fault(what: &str, number: usize, expected: &str, field: &[u8]) -> Fault {
    let shown = &field[..field.len().min(SHOWN)];
    let more = if field.len() > SHOWN { "…" } else { "" };
    let number = match number {
        0 => String::new(),
        number => format!(" {number}"),
    };
    Fault {
        expected: expected.to_string(),
        got: format!("{what}{number} \"{}{more}\"", shown.escape_ascii()),
    }
}
