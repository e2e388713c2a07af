//! The distinct values of one table in the order of their first appearance, counted if need be.

use super::column::Column;
use super::positions::{EMPTY, Key, Positions, key};
use super::record::POSITION;
use crate::error::{Error, Result};

/// Values that a table may have. [`Positions`] have room for more: for those of a group of chunks.
const MOST: usize = 1 << 30;

/// Distinct values, and how often each was seen.
///
/// Chunks come in the order of the text, so that the result depends neither on where chunks end nor
/// on the number of threads.
pub(super) struct Appearances {
    positions: Positions,
    /// The position of the empty value, which is a value like others.
    missing: Option<u32>,
    /// By position; 0 in the place of the empty value.
    values: Vec<u32>,
    /// By position; `None` where nobody asks how often values were seen.
    counts: Option<Vec<u32>>,
}

impl Appearances {
    /// None yet; those to come are counted if less than `minimum_count` shall be told from more.
    pub(super) fn new(minimum_count: u32) -> Self {
        Self {
            positions: Positions::default(),
            missing: None,
            values: Vec::new(),
            counts: (minimum_count > 1).then(Vec::new),
        }
    }

    /// Puts positions in the place of the values of a chunk, marked if they are to become ids later.
    pub(super) fn number(&mut self, column: Column) {
        for (values, keys) in column.batches() {
            let first = self.positions.first_slots(&keys);
            for ((value, key), first) in values.iter_mut().zip(keys).zip(first) {
                let new = self.values.len() as u32;
                let position = self.positions.get_or_insert(key, first, new);
                if position == new {
                    self.add(*value, key);
                }
                *value = position;
                if let Some(counts) = &mut self.counts {
                    let count = &mut counts[position as usize];
                    *count = count.saturating_add(1);
                    *value = position | POSITION;
                }
            }
        }
    }

    fn add(&mut self, value: u32, key: Key) {
        if key == EMPTY {
            self.missing = Some(self.values.len() as u32);
        }
        self.values.push(value);
        if let Some(counts) = &mut self.counts {
            counts.push(0);
        }
    }

    /// Refuses to go on with so many values that their positions might not fit in their bits.
    pub(super) fn check(&self) -> Result<()> {
        if self.values.len() <= MOST {
            return Ok(());
        }
        Err(Error::Setting {
            name: "hash_modulo",
            got: "none".to_string(),
            expected: format!("a number of ids, as a table has more than {MOST} values"),
        })
    }

    /// The values seen at least `minimum_count` times in the order of their first appearance;
    /// `None` is the empty value.
    pub(super) fn frequent(
        &self,
        minimum_count: u32,
    ) -> impl Iterator<Item = Option<u32>> + Clone + '_ {
        let positions = 0..self.values.len();
        positions
            .filter(move |&position| self.is_frequent(position, minimum_count))
            .map(|position| self.value(position))
    }

    /// The values from this position on.
    pub(super) fn since(&self, position: usize) -> impl Iterator<Item = Option<u32>> + Clone + '_ {
        (position..self.values.len()).map(|position| self.value(position))
    }

    fn value(&self, position: usize) -> Option<u32> {
        (self.missing != Some(position as u32)).then_some(self.values[position])
    }

    fn is_frequent(&self, position: usize, minimum_count: u32) -> bool {
        let counts = self.counts.as_ref();
        counts.is_none_or(|counts| counts[position] >= minimum_count)
    }

    /// Numbers the [`Appearances::frequent`] values in their order, from 0 if none can be rare, else
    /// from 1.
    pub(super) fn numbered(mut self, minimum_count: u32) -> Numbered {
        // They take the most memory, and are not needed again.
        self.positions = Positions::default();
        let Some(mut ids) = self.counts else {
            return Numbered {
                ids: None,
                next: self.values.len() as u32,
            };
        };
        let mut next = 1;
        for count in &mut ids {
            if *count < minimum_count {
                *count = 0;
            } else {
                *count = next;
                next += 1;
            }
        }
        Numbered {
            ids: Some(ids),
            next,
        }
    }
}

/// The ids of a table's values.
pub(super) struct Numbered {
    /// By position, 0 for rare values; `None` where the position is the id.
    pub(super) ids: Option<Vec<u32>>,
    /// The id after the last one.
    pub(super) next: u32,
}

/// What was noted of an earlier run.
impl Appearances {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// How often each value was seen, by position; nothing if nobody asks.
    pub(super) fn counts(&self) -> &[u32] {
        self.counts.as_deref().unwrap_or_default()
    }

    /// Adds values that are not there yet, which have not been counted.
    pub(super) fn extend(&mut self, values: Vec<Option<u32>>) {
        for value in values {
            let key = key(value.unwrap_or(0), value.is_none());
            self.positions.insert(key, self.values.len() as u32);
            self.add(value.unwrap_or(0), key);
        }
    }

    /// Takes over counts of all values.
    pub(super) fn set_counts(&mut self, counts: Vec<u32>) {
        self.counts = Some(counts);
    }

    /// Counts values by their marked positions; `None` if there is no such position.
    pub(super) fn count(&mut self, positions: impl Iterator<Item = u32>) -> Option<()> {
        let counts = self.counts.as_mut()?;
        for position in positions {
            // Unmarked, it would be far beyond all counts.
            let count = counts.get_mut((position ^ POSITION) as usize)?;
            *count = count.saturating_add(1);
        }
        Some(())
    }
}
