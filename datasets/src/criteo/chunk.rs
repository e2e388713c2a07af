//! A chunk of text becomes records; what a thread does on its own.

use super::appearances::Appearances;
use super::header::SKIPPED_SHOWN;
use super::record;
use super::row::{Fault, Row};
use super::vocabulary::Vocabularies;
use super::{CATEGORIES, Malformed, Preprocessing};

/// Bytes of a line, about; a guess at how many records a chunk has.
const LINE: usize = 150;

/// Where ids come from.
#[derive(Clone, Copy)]
pub(super) enum Ids<'a> {
    /// Values are counted now and numbered once all are known.
    Later,
    /// The value modulo this number.
    Modulo(u32),
    /// Vocabularies made before.
    Known(&'a Vocabularies),
}

/// The records of a chunk.
pub(super) struct Parsed {
    pub(super) records: Vec<u8>,
    pub(super) clicks: u64,
    /// What each table has; empty unless ids come later.
    pub(super) counted: Vec<Appearances>,
    /// Lines that broke the format, all of them counted, and the first of them by their number in
    /// the chunk, from 0.
    pub(super) faults: u64,
    pub(super) first_faults: Vec<(usize, Fault)>,
}

/// Reads the lines of a chunk, up to the first that breaks the format if it is to be refused.
pub(super) fn parse(text: &[u8], preprocessing: &Preprocessing, ids: Ids) -> Parsed {
    let tables = match ids {
        Ids::Later => CATEGORIES,
        _ => 0,
    };
    let mut parsed = Parsed {
        records: Vec::with_capacity(text.len() / LINE * record::RECORD),
        clicks: 0,
        counted: (0..tables).map(|_| Appearances::default()).collect(),
        faults: 0,
        first_faults: Vec::new(),
    };
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match Row::parse(line, preprocessing.labelled) {
            Ok(row) => parsed.take(&row, ids),
            Err(fault) => {
                parsed.faults += 1;
                if parsed.first_faults.len() < SKIPPED_SHOWN {
                    parsed.first_faults.push((number, fault));
                }
                if preprocessing.malformed == Malformed::Refuse {
                    break;
                }
            }
        }
    }
    parsed
}

impl Parsed {
    fn take(&mut self, row: &Row, ids: Ids) {
        self.clicks += u64::from(row.label == Some(true));
        match ids {
            Ids::Later => {
                for (table, &value) in self.counted.iter_mut().zip(&row.categories) {
                    table.add(value);
                }
                record::push_raw(&mut self.records, row);
            }
            Ids::Modulo(modulo) => {
                let ids = row.categories.map(|value| value.unwrap_or(0) % modulo);
                record::push(&mut self.records, row, &ids);
            }
            Ids::Known(vocabularies) => {
                let ids = vocabularies.ids(&row.categories);
                record::push(&mut self.records, row, &ids);
            }
        }
    }
}
