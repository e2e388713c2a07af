//! The records of a store, in memory as on the disk.
//!
//! 160 bytes, so that all numbers lie at multiples of 4: the label (0, 1, or 255 where there is
//! none), three zeros, 13 numbers `f32`, 26 ids `u32`; the lowest byte first. While it is not known
//! which values are rare, the positions of the values stand in the place of the ids, with a mark, so
//! that an interruption between two numbers leaves no doubt which is what.

use super::preprocessing::logarithm;
use super::{CATEGORIES, INTEGERS};

/// Bytes of a record.
pub(super) const RECORD: usize = 4 + 4 * INTEGERS + 4 * CATEGORIES;
/// Where the ids begin.
const IDS: usize = 4 + 4 * INTEGERS;
/// The label of records that have none.
pub(super) const NO_LABEL: u8 = 255;

/// What tells a position from an id: both are below it.
pub(super) const POSITION: u32 = 1 << 31;

/// Writes a record but for its ids.
pub(super) fn begin(record: &mut [u8; RECORD], label: u8, counts: &[u32; INTEGERS]) {
    record[..4].copy_from_slice(&[label, 0, 0, 0]);
    let dense = record[4..IDS].as_chunks_mut::<4>().0;
    for (word, &count) in dense.iter_mut().zip(counts) {
        *word = logarithm(count).to_le_bytes();
    }
}

/// Writes the ids of one table into records.
pub(super) fn put_ids(records: &mut [[u8; RECORD]], table: usize, ids: &[u32]) {
    let at = IDS + 4 * table;
    for (record, id) in records.iter_mut().zip(ids) {
        record[at..at + 4].copy_from_slice(&id.to_le_bytes());
    }
}

/// Puts ids in the place of the positions of one table in records; `None` if there is no such position:
/// the records of an earlier run come from the disk.
pub(super) fn replace_positions(
    records: &mut [[u8; RECORD]],
    table: usize,
    ids: &[u32],
) -> Option<()> {
    let at = IDS + 4 * table;
    for record in records {
        let word = word(record, at);
        if word & POSITION != 0 {
            let id = ids.get((word ^ POSITION) as usize)?;
            record[at..at + 4].copy_from_slice(&id.to_le_bytes());
        }
    }
    Some(())
}

/// The ids, or marked positions, of one table in records.
pub(super) fn column(records: &[[u8; RECORD]], table: usize) -> impl Iterator<Item = u32> + '_ {
    let at = IDS + 4 * table;
    records.iter().map(move |record| word(record, at))
}

/// The label of a record.
pub(super) fn label(record: &[u8]) -> Option<bool> {
    match record[0] {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// The 13 numbers of a record.
pub(super) fn dense(record: &[u8]) -> impl Iterator<Item = f32> + '_ {
    words(&record[4..IDS]).map(f32::from_bits)
}

/// The 26 ids of a record.
pub(super) fn ids(record: &[u8]) -> impl Iterator<Item = u32> + '_ {
    words(&record[IDS..RECORD])
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

fn word(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
}
