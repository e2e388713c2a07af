//! The pass over the text: groups of chunks become records with ids, or positions.

use std::fs::File;
use std::io::Write;

use rayon::prelude::*;

use super::appearances::Appearances;
use super::chunk::Parsed;
use super::column::Column;
use super::text::Chunk;
use super::vocabulary::Vocabularies;
use super::{CATEGORIES, Preprocessing};
use crate::error::Result;

/// Where ids come from.
#[derive(Clone, Copy)]
pub(super) enum Ids<'a> {
    /// Values are numbered as they come.
    Later,
    /// The value modulo this number.
    Modulo(u32),
    /// Vocabularies made before.
    Known(&'a Vocabularies),
}

impl Ids<'_> {
    /// The tables that values are to be numbered in: none if their ids are known at once.
    pub(super) fn tables(&self, minimum_count: u32) -> Vec<Appearances> {
        let tables = match self {
            Ids::Later => CATEGORIES,
            Ids::Modulo(_) | Ids::Known(_) => 0,
        };
        (0..tables)
            .map(|_| Appearances::new(minimum_count))
            .collect()
    }
}

/// What turns chunks into records.
pub(super) struct Numbering<'a> {
    pub(super) ids: Ids<'a>,
    /// The values of each table, if they are numbered as they come.
    pub(super) tables: Vec<Appearances>,
    /// Chunks that have ids and are to be written.
    numbered: Vec<Parsed>,
    /// Chunks that have been written: their memory serves again.
    spare: Vec<Parsed>,
}

impl<'a> Numbering<'a> {
    pub(super) fn new(ids: Ids<'a>, tables: Vec<Appearances>) -> Self {
        Self {
            ids,
            tables,
            numbered: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Parses chunks at once, while those before are written; how many bytes those had.
    pub(super) fn parse(
        &mut self,
        group: &[Chunk],
        preprocessing: &Preprocessing,
        file: &mut File,
    ) -> std::io::Result<(Vec<Parsed>, u64)> {
        let mut parsed = std::mem::take(&mut self.spare);
        parsed.resize_with(group.len(), Parsed::default);
        let parse = || {
            let each = parsed.par_iter_mut().zip(group);
            each.for_each(|(into, chunk)| into.read(&chunk.bytes, chunk.lines, preprocessing));
        };
        let ((), written) = rayon::join(parse, || self.write(file));
        Ok((parsed, written?))
    }

    /// Puts ids in the place of values, or positions if it is not known yet which are rare: at once
    /// for all tables, for each in the order of the rows. Then they are to be written.
    pub(super) fn number(&mut self, mut parsed: Vec<Parsed>) -> Result<()> {
        let mut tables: Vec<Vec<Column>> = (0..CATEGORIES).map(|_| Vec::new()).collect();
        for chunk in &mut parsed {
            for (table, column) in tables.iter_mut().zip(chunk.columns.each()) {
                table.push(column);
            }
        }
        let tables = tables.into_par_iter().enumerate();
        match self.ids {
            Ids::Later => {
                let each = self.tables.par_iter_mut().zip(tables);
                each.try_for_each(|(values, (_, columns))| {
                    columns.into_iter().for_each(|c| values.number(c));
                    values.check()
                })?;
            }
            Ids::Modulo(modulo) => {
                let values = tables
                    .flat_map_iter(|(_, columns)| columns)
                    .map(Column::values);
                values.for_each(|values| values.iter_mut().for_each(|value| *value %= modulo));
            }
            Ids::Known(vocabularies) => tables.for_each(|(table, columns)| {
                columns
                    .into_iter()
                    .for_each(|c| vocabularies.number(table, c));
            }),
        }
        self.numbered = parsed;
        Ok(())
    }

    /// Completes the chunks that are to be written and appends them to the file; how many bytes.
    pub(super) fn write(&mut self, file: &mut File) -> std::io::Result<u64> {
        let mut numbered = std::mem::take(&mut self.numbered);
        numbered.par_iter_mut().for_each(Parsed::complete);
        let mut written = 0;
        for chunk in &numbered {
            let records = chunk.records().as_flattened();
            file.write_all(records)?;
            written += records.len() as u64;
        }
        self.spare = numbered;
        Ok(written)
    }
}
