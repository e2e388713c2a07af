//! The pass over the records, once it is known which values are rare: ids in the place of positions.

use std::fs::File;

use memmap2::{MmapMut, MmapOptions};
use rayon::prelude::*;

use super::appearances::{Appearances, Numbered};
use super::record::{self, RECORD};

/// Records that are mapped into memory at once.
const WINDOW: usize = 1 << 18;
/// Records of which a thread does one table after the other: they stay in its cache.
const BLOCK: usize = 1 << 10;

/// The records of a store under way.
pub(super) struct Records<'a> {
    pub(super) file: &'a File,
    /// Where they begin.
    pub(super) offset: usize,
    pub(super) rows: usize,
}

impl Records<'_> {
    /// Puts ids in the place of positions, where there still are some, and says after each window
    /// how many records are done.
    pub(super) fn number(
        &self,
        numbered: &[Numbered],
        mut done: impl FnMut(usize),
    ) -> std::io::Result<()> {
        let ids: Option<Vec<&[u32]>> = numbered.iter().map(|table| table.ids.as_deref()).collect();
        for start in (0..self.rows).step_by(WINDOW) {
            // Without, positions are the ids.
            if let Some(ids) = &ids {
                let mut map = self.window(start)?;
                let records = map.as_chunks_mut::<RECORD>().0;
                let replaced = records.par_chunks_mut(BLOCK).map(|block| {
                    let mut tables = ids.iter().enumerate();
                    tables.try_for_each(|(table, ids)| record::replace_positions(block, table, ids))
                });
                replaced.collect::<Option<()>>().ok_or_else(|| {
                    let reason = "its records are damaged; remove it and prepare again";
                    std::io::Error::new(std::io::ErrorKind::InvalidData, reason)
                })?;
            }
            done(self.rows.min(start + WINDOW));
        }
        Ok(())
    }

    /// Counts the values of records none of whose positions has become an id; `None` if there are
    /// other records.
    pub(super) fn count(&self, tables: &mut [Appearances]) -> Option<()> {
        for start in (0..self.rows).step_by(WINDOW) {
            let map = self.window(start).ok()?;
            let tables = tables.par_iter_mut().enumerate();
            let counted = tables.map(|(index, table)| {
                let records = map.as_chunks::<RECORD>().0;
                table.count(record::column(records, index))
            });
            counted.collect::<Option<()>>()?;
        }
        Some(())
    }

    /// The records from `start` on as memory.
    fn window(&self, start: usize) -> std::io::Result<MmapMut> {
        let count = WINDOW.min(self.rows - start);
        let mut options = MmapOptions::new();
        let at = self.offset + start * RECORD;
        options.offset(at as u64).len(count * RECORD);
        // SAFETY: the file is this preparation's own, under a name that nobody else is to use, and
        // stays as long as it is while the map lives.
        unsafe { options.map_mut(self.file) }
    }
}
