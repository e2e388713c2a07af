//! The records of a store, in memory as on the disk.
//!
//! 160 bytes, so that all numbers lie at multiples of 4: the label (0, 1, or 255 where there is
//! none), three zeros, 13 numbers `f32`, 26 ids `u32`; the lowest byte first. While the vocabularies
//! are under way the first four bytes hold the label in the upper two bits and in the lower 26 which
//! of the values are empty, and the values stand in the place of the ids.

use super::preprocessing::logarithm;
use super::{CATEGORIES, INTEGERS, Row};

/// Bytes of a record.
pub(super) const RECORD: usize = 4 + 4 * INTEGERS + 4 * CATEGORIES;
/// Where the ids begin.
const IDS: usize = 4 + 4 * INTEGERS;
/// The label of records that have none.
const NO_LABEL: u8 = 255;
/// Where the label stands in a record without ids.
const LABEL_SHIFT: u32 = 30;

/// Appends a record with its ids.
pub(super) fn push(records: &mut Vec<u8>, row: &Row, ids: &[u32; CATEGORIES]) {
    let label = row.label.map_or(NO_LABEL, u8::from);
    push_words(records, u32::from(label), row, ids);
}

/// Appends a record whose ids are not known yet.
pub(super) fn push_raw(records: &mut Vec<u8>, row: &Row) {
    let mut head = row.label.map_or(2, u32::from) << LABEL_SHIFT;
    let mut values = [0; CATEGORIES];
    for (table, category) in row.categories.iter().enumerate() {
        match category {
            Some(value) => values[table] = *value,
            None => head |= 1 << table,
        }
    }
    push_words(records, head, row, &values);
}

fn push_words(records: &mut Vec<u8>, head: u32, row: &Row, ids: &[u32; CATEGORIES]) {
    let mut record = [0u8; RECORD];
    record[..4].copy_from_slice(&head.to_le_bytes());
    let (dense, rest) = record[4..].split_at_mut(4 * INTEGERS);
    for (word, &integer) in dense.chunks_exact_mut(4).zip(&row.integers) {
        word.copy_from_slice(&logarithm(integer).to_le_bytes());
    }
    for (word, id) in rest.chunks_exact_mut(4).zip(ids) {
        word.copy_from_slice(&id.to_le_bytes());
    }
    records.extend_from_slice(&record);
}

/// Replaces the values of one table by ids in many records.
pub(super) fn number(records: &mut [u8], table: usize, id: impl Fn(Option<u32>) -> u32) {
    let at = IDS + 4 * table;
    for record in records.chunks_exact_mut(RECORD) {
        let missing = word(record, 0) >> table & 1 == 1;
        let value = word(record, at);
        let id = id((!missing).then_some(value));
        record[at..at + 4].copy_from_slice(&id.to_le_bytes());
    }
}

/// Gives records, all of whose tables have ids, the label in its final form.
pub(super) fn finish(records: &mut [u8]) {
    for record in records.chunks_exact_mut(RECORD) {
        let label = match word(record, 0) >> LABEL_SHIFT {
            label @ (0 | 1) => label as u8,
            _ => NO_LABEL,
        };
        record[..4].copy_from_slice(&[label, 0, 0, 0]);
    }
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
