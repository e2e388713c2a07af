//! The usual fields of a click log, eight bytes at once.
//!
//! Each function reads the field that begins at `at`. What is unusual but may be right, such as a
//! number of eight digits, a value of seven, or the end of the text, gives `None` as what is wrong
//! does; [`Row::parse`](super::Row) then says which it is. There is no branch on whether a field is
//! empty: the processor could not foresee it.

/// A byte in all places of a word.
const fn everywhere(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

const HIGH_BITS: u64 = everywhere(0x80);

/// A field that could be read.
pub(super) struct Field {
    /// The value: 0 for none.
    pub(super) value: u32,
    /// 1 if the field is empty, else 0.
    pub(super) missing: u32,
    /// Where it ends: the place of the tab or line end after it.
    pub(super) end: usize,
}

/// An integer of up to seven characters before a tab; 0 if it is negative.
#[inline(always)]
pub(super) fn count(text: &[u8], at: usize) -> Option<Field> {
    let word = eight(text, at)?;
    let other = word ^ everywhere(b'\t');
    // The lowest bit is that of the first tab; above it there may be false ones.
    let tabs = other.wrapping_sub(everywhere(1)) & !other & HIGH_BITS;
    if tabs == 0 {
        return None;
    }
    let length = tabs.trailing_zeros() / 8;
    let negative = u32::from(word as u8 == b'-');
    let length_of_digits = length - negative;
    // The digits to the upper end, zeros before them. Eight bytes are more than a shift may do.
    let up = 8 * (7 - length_of_digits);
    let digits = ((word >> (8 * negative)) << up << 8) ^ (everywhere(b'0') << up << 8);
    let strange = (digits.wrapping_add(everywhere(0x80 - 10)) | digits) & HIGH_BITS;
    if strange != 0 || length < 2 * negative {
        return None;
    }
    // Neighbours together: to two digits, to four, to eight.
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    let value = (quads * 10_000 + (quads >> 32)) as u32;
    Some(Field {
        value: value & negative.wrapping_sub(1),
        missing: u32::from(length == 0),
        end: at + length as usize,
    })
}

/// A categorical value of eight hexadecimal digits, or none, before a tab or line end.
#[inline(always)]
pub(super) fn category(text: &[u8], at: usize) -> Option<Field> {
    let word = eight(text, at)?;
    let missing = matches!(word as u8, b'\t' | b'\n' | b'\r');
    let (value, strange) = hexadecimal(word);
    let present = u64::from(missing).wrapping_sub(1);
    if strange & present != 0 {
        return None;
    }
    Some(Field {
        value: value & present as u32,
        missing: u32::from(missing),
        end: at + (present & 8) as usize,
    })
}

/// What eight digits say, the first in the lowest byte, and a word that is 0 if they are digits.
#[inline(always)]
fn hexadecimal(word: u64) -> (u32, u64) {
    // Letters have this bit, and their low bits count from 1.
    let letters = (word >> 6) & everywhere(1);
    let of_letters = letters * 0xff;
    // Digits have two bits in the place of it: 0011 before the last four.
    let low = (word & everywhere(0x1f)) ^ (!of_letters & everywhere(0x10));
    let values = low + letters * 9;
    // Digits are below 10, letters are not, all are below 16; letters may be small or large.
    let at_least_10 = (values + everywhere(0x80 - 10)) & HIGH_BITS;
    let at_least_16 = (values + everywhere(0x80 - 16)) & HIGH_BITS;
    let no_digits = !(word | of_letters) & everywhere(0x20);
    let strange = (at_least_10 ^ (letters << 7)) | at_least_16 | (word & HIGH_BITS) | no_digits;
    let pairs = ((values << 4) | (values >> 8)) & 0x00ff_00ff_00ff_00ff;
    let quads = ((pairs << 8) | (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    (((quads << 16) | (quads >> 32)) as u32, strange)
}

#[inline(always)]
fn eight(text: &[u8], at: usize) -> Option<u64> {
    let bytes = text.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
