//! The distinct values of one table in the order of their first appearance, counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

/// Positions of values; the values are hashes already, so that one multiplication scatters them.
pub(super) type Positions = HashMap<u32, u32, BuildHasherDefault<Scatter>>;

/// Distinct values and how often each was seen.
///
/// Adding the appearances of consecutive chunks in their order gives those of the whole: what comes
/// first in the whole comes first in the first chunk that has it. So the result depends neither on
/// where chunks end nor on who counts them.
#[derive(Default)]
pub(super) struct Appearances {
    positions: Positions,
    /// The position of the empty value, which is a value like others.
    missing: Option<u32>,
    /// By position; 0 in the place of the empty value.
    values: Vec<u32>,
    counts: Vec<u32>,
}

impl Appearances {
    /// Counts one more appearance; `None` is the empty value.
    pub(super) fn add(&mut self, value: Option<u32>) {
        self.add_times(value, 1);
    }

    /// Counts what comes after all that has been counted.
    pub(super) fn append(&mut self, later: &Self) {
        for (position, (&value, &count)) in later.values.iter().zip(&later.counts).enumerate() {
            let missing = later.missing == Some(position as u32);
            self.add_times((!missing).then_some(value), count);
        }
    }

    fn add_times(&mut self, value: Option<u32>, count: u32) {
        let new = self.values.len() as u32;
        let position = match value {
            None => *self.missing.get_or_insert(new),
            Some(value) => match self.positions.entry(value) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => *entry.insert(new),
            },
        };
        if position == new {
            self.values.push(value.unwrap_or(0));
            self.counts.push(count);
        } else {
            let sum = &mut self.counts[position as usize];
            *sum = sum.saturating_add(count);
        }
    }

    /// The values seen at least `minimum_count` times in the order of their first appearance;
    /// `None` is the empty value.
    pub(super) fn frequent(&self, minimum_count: u32) -> impl Iterator<Item = Option<u32>> + '_ {
        let counted = self.values.iter().zip(&self.counts).enumerate();
        counted
            .filter(move |&(_, (_, &count))| count >= minimum_count)
            .map(|(position, (&value, _))| (self.missing != Some(position as u32)).then_some(value))
    }
}

/// The ids of a table's values.
pub(super) struct Numbered {
    pub(super) ids: Positions,
    /// The id of the empty value, if it has one.
    pub(super) missing: Option<u32>,
    /// The id after the last one.
    pub(super) next: u32,
}

impl Appearances {
    /// Numbers [`Appearances::frequent`] values in their order: from 0 if none can be rare, else
    /// from 1. In place, as the tables are the largest thing in memory.
    pub(super) fn numbered(mut self, minimum_count: u32) -> Numbered {
        if minimum_count <= 1 {
            return Numbered {
                ids: self.positions,
                missing: self.missing,
                next: self.values.len() as u32,
            };
        }
        let mut next = 1;
        // From here on a count is an id, 0 for rare values.
        for count in &mut self.counts {
            if *count < minimum_count {
                *count = 0;
            } else {
                *count = next;
                next += 1;
            }
        }
        let ids_of = self.counts;
        self.positions.retain(|_, position| {
            *position = ids_of[*position as usize];
            *position > 0
        });
        let missing = self.missing.map(|position| ids_of[position as usize]);
        Numbered {
            ids: self.positions,
            missing: missing.filter(|&id| id > 0),
            next,
        }
    }
}

/// A hash of integers of 32 bits: one multiplication, its high half folded into the low one.
#[derive(Default)]
pub(super) struct Scatter(u64);

impl Hasher for Scatter {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }
}
