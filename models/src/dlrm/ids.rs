//! The categorical features of a batch as rows of the tables.

use super::{Dlrm, wrong};
use crate::error::Result;
use adahessian::engine::Handle;
use adahessian::ops::{Mode, Pooling};
use adahessian::sparse::Lookup;

/// The categorical features of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// One id a table: `ids[b·tables + t]`, from 0 to the table's rows.
    Single(Vec<u32>),
    /// Several: `ids[starts[b·tables + t]..starts[b·tables + t + 1]]`.
    Bags {
        /// The ids of all bags, one after the other.
        ids: Vec<u32>,
        /// Where each bag begins, and where the last one ends.
        starts: Vec<u32>,
        /// What a bag's rows become.
        pooling: Pooling,
    },
}

impl Dlrm {
    /// The different rows of all bags, and the place of each id among them.
    pub(super) fn look_up(&self, batch: usize, ids: &Ids, mode: &Mode) -> Result<(Handle, Lookup)> {
        let tables = self.config.tables.len();
        let mut all = Vec::new();
        let mut add = |bag: usize, ids: &[u32]| {
            let table = bag % tables;
            let (first, rows) = (self.offsets[table], self.config.tables[table]);
            for &id in ids {
                if id as usize >= rows {
                    let expected = format!("0 to {} in table {table}", rows - 1);
                    return wrong("id", expected, format!("{id} in sample {}", bag / tables));
                }
                all.push(first + id);
            }
            Ok(())
        };
        match ids {
            Ids::Single(ids) if ids.len() == batch * tables => {
                for (bag, id) in ids.iter().enumerate() {
                    add(bag, std::slice::from_ref(id))?;
                }
            }
            Ids::Bags { ids, starts, .. } if starts.len() == batch * tables + 1 => {
                let (last, count) = (starts.last().copied().unwrap_or(0), ids.len());
                if last as usize != count {
                    let expected = format!("{count} as the last, the number of ids");
                    return wrong("starts of bags", expected, last.to_string());
                }
                for (bag, ends) in starts.windows(2).enumerate() {
                    match ids.get(ends[0] as usize..ends[1] as usize) {
                        Some(ids) => add(bag, ids)?,
                        None => {
                            let expected = format!("ends of bags from 0 to {}", ids.len());
                            return wrong("starts of bags", expected, format!("{ends:?}"));
                        }
                    }
                }
            }
            Ids::Single(ids) => {
                let expected = format!("{batch} x {tables}");
                return wrong("ids", expected, ids.len().to_string());
            }
            Ids::Bags { starts, .. } => {
                let expected = format!("{batch} x {tables} + 1");
                return wrong("starts of bags", expected, starts.len().to_string());
            }
        }
        // Of bags that are all empty a row that none of them names.
        let asked = if all.is_empty() { &[0][..] } else { &all };
        let mut lookup = match mode {
            Mode::Train { .. } => self.tables.lookup(asked)?,
            Mode::Eval => self.tables.read(asked)?,
        };
        lookup.places.truncate(all.len());
        Ok((Handle::enter(&lookup.rows)?, lookup))
    }
}
