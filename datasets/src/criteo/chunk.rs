//! A chunk of text becomes records; what a thread does on its own.

use super::column::Columns;
use super::header::SKIPPED_SHOWN;
use super::record::{self, RECORD};
use super::row::{Fault, Row};
use super::{CATEGORIES, INTEGERS, Malformed, Preprocessing, fields};

/// Rows whose ids are put into their records together: they stay in the cache.
const BLOCK: usize = 64;
/// Bytes of the shortest line: 39 fields, all of them empty.
const SHORTEST: usize = INTEGERS + CATEGORIES;

/// The rows of a chunk.
#[derive(Default)]
pub(super) struct Parsed {
    /// Records, one for each row and then more; their ids are to come from `columns`.
    records: Vec<[u8; RECORD]>,
    /// The values, and later the ids.
    pub(super) columns: Columns,
    pub(super) clicks: u64,
    /// Lines that broke the format, all of them counted, and the first of them by their number in
    /// the chunk, from 0.
    pub(super) faults: u64,
    pub(super) first_faults: Vec<(usize, Fault)>,
}

/// The fields of a line as records want them.
#[derive(Default)]
struct Line {
    label: u8,
    counts: [u32; INTEGERS],
    values: [u32; CATEGORIES],
    /// A bit for each table: whether its value is the empty one.
    missing: u32,
}

impl Parsed {
    /// Reads the lines of a chunk, up to the first that breaks the format if it is to be refused.
    /// What has been read before is forgotten, but for the memory it took.
    pub(super) fn read(&mut self, text: &[u8], lines: usize, preprocessing: &Preprocessing) {
        // A line that keeps the format has its tabs and an end: a text of line ends alone shall not ask
        // for a record of 160 bytes for each of them.
        self.clear(lines.min(text.len() / SHORTEST + 1));
        let labelled = preprocessing.labelled;
        let mut line = Line::default();
        let (mut at, mut number) = (0, 0);
        while at < text.len() {
            match line.read_usual(text, at, labelled) {
                Some(next) => {
                    self.take(&line);
                    at = next;
                }
                None => {
                    let end = text[at..].iter().position(|&byte| byte == b'\n');
                    let end = end.map_or(text.len(), |length| at + length);
                    let ok = self.read_line(&text[at..end], number, labelled);
                    if !ok && preprocessing.malformed == Malformed::Refuse {
                        return;
                    }
                    at = end + 1;
                }
            }
            number += 1;
        }
    }

    fn clear(&mut self, lines: usize) {
        // What records hold is written before it is read.
        self.records.resize(lines, [0; RECORD]);
        self.columns.clear(lines);
        (self.clicks, self.faults) = (0, 0);
        self.first_faults.clear();
    }

    /// Reads a line of any kind; whether it kept the format.
    fn read_line(&mut self, line: &[u8], number: usize, labelled: bool) -> bool {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match Row::parse(line, labelled) {
            Ok(row) => {
                self.take(&Line::new(&row));
                true
            }
            Err(fault) => {
                self.faults += 1;
                if self.first_faults.len() < SKIPPED_SHOWN {
                    self.first_faults.push((number, fault));
                }
                false
            }
        }
    }

    fn take(&mut self, line: &Line) {
        self.clicks += u64::from(line.label == 1);
        let record = &mut self.records[self.columns.rows()];
        record::begin(record, line.label, &line.counts);
        self.columns.push(&line.values, line.missing);
    }

    /// The records of the rows.
    pub(super) fn records(&self) -> &[[u8; RECORD]] {
        &self.records[..self.columns.rows()]
    }

    /// Puts the columns' ids into the records.
    pub(super) fn complete(&mut self) {
        let records = &mut self.records[..self.columns.rows()];
        for (number, block) in records.chunks_mut(BLOCK).enumerate() {
            let first = number * BLOCK;
            let columns = self.columns.of(first..first + block.len());
            for (table, ids) in columns.enumerate() {
                record::put_ids(block, table, ids);
            }
        }
    }
}

impl Line {
    fn new(row: &Row) -> Self {
        let mut line = Self {
            label: row.label.map_or(record::NO_LABEL, u8::from),
            counts: row.integers.map(|n| n.unwrap_or(0).max(0) as u32),
            values: row.categories.map(|value| value.unwrap_or(0)),
            missing: 0,
        };
        for (table, value) in row.categories.iter().enumerate() {
            line.missing |= u32::from(value.is_none()) << table;
        }
        line
    }

    /// Reads the line that begins at `at` if all its fields are as they mostly are, and says where
    /// the next one begins. `None` says nothing about whether the line keeps the format.
    fn read_usual(&mut self, text: &[u8], mut at: usize, labelled: bool) -> Option<usize> {
        self.label = record::NO_LABEL;
        if labelled {
            self.label = match text.get(at..at + 2)? {
                b"0\t" => 0,
                b"1\t" => 1,
                _ => return None,
            };
            at += 2;
        }
        for count in &mut self.counts {
            let field = fields::count(text, at)?;
            *count = field.value;
            at = field.end + 1;
        }
        self.missing = 0;
        for (table, value) in self.values.iter_mut().enumerate() {
            let field = fields::category(text, at)?;
            if table + 1 < CATEGORIES && text.get(field.end) != Some(&b'\t') {
                return None;
            }
            *value = field.value;
            self.missing |= field.missing << table;
            at = field.end + 1;
        }
        match text.get(at - 1..)? {
            [b'\n', ..] => Some(at),
            [b'\r', b'\n', ..] => Some(at + 1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million line ends would be 270 MB of records and columns for a megabyte of text, in each of some
    /// ten chunks.
    #[test]
    fn lines_without_fields_ask_for_no_records() {
        let skipping = Preprocessing {
            malformed: Malformed::Skip,
            ..Preprocessing::default()
        };
        let (mut parsed, lines) = (Parsed::default(), 1 << 20);
        parsed.read(&vec![b'\n'; lines], lines, &skipping);
        assert_eq!((parsed.faults, parsed.records().len()), (1 << 20, 0));
        assert!(parsed.records.len() < 30_000, "{}", parsed.records.len());
        // As many rows as a text can have, all of them of empty fields: there is room for each.
        for labelled in [false, true] {
            let line = format!("{}{}\n", if labelled { "1\t" } else { "" }, "\t".repeat(38));
            let settings = Preprocessing {
                labelled,
                ..skipping
            };
            parsed.read(line.repeat(1000).as_bytes(), 1000, &settings);
            assert_eq!((parsed.faults, parsed.records().len()), (0, 1000));
        }
    }
}
