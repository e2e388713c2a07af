//! A click log as a file of equally long records, mapped into memory.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use memmap2::Mmap;

use super::files::describe;
use super::header::{self, Summary};
use super::record::{self, RECORD};
use super::vocabulary::Vocabularies;
use super::{CATEGORIES, ClickBatch, Days, INTEGERS, Preprocessing, split};
use crate::error::{Error, Result};

/// A store that [`prepare`](super::prepare()) made; clones share the memory.
///
/// The system reads what is asked for and keeps what fits. The file must not be changed while a
/// store of it is open; a new preparation puts another file in its place, which is fine.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    map: Arc<Mmap>,
    /// Where the records begin.
    offset: usize,
    summary: Arc<Summary>,
}

impl Store {
    /// Opens a store.
    ///
    /// # Errors
    /// If the file cannot be read, is no store, is of another version, was cut off, or its
    /// preparation was interrupted.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e| Error::io(path, e);
        let file = File::open(path).map_err(failed)?;
        // SAFETY: a file under its final name is written no more by this crate, and the
        // documentation forbids it to others.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        let (summary, offset) = header::decode(&map, path)?;
        let refuse = |reason: String| {
            Err(Error::NotAStore {
                path: path.to_path_buf(),
                reason,
            })
        };
        let expected = (summary.rows as usize)
            .checked_mul(RECORD)
            .and_then(|bytes| bytes.checked_add(offset));
        if expected != Some(map.len()) {
            return refuse(format!(
                "it has {} bytes, expected {} for its {} rows; it was cut off or written to",
                map.len(),
                expected.unwrap_or(usize::MAX),
                summary.rows
            ));
        }
        if summary.table_sizes.len() != CATEGORIES {
            let tables = summary.table_sizes.len();
            return refuse(format!("it has {tables} tables, expected {CATEGORIES}"));
        }
        // What a model is made from: ids have 32 bits.
        let most = 1 << u32::BITS;
        if let Some(&size) = summary.table_sizes.iter().find(|size| **size > most) {
            return refuse(format!("a table of {size} ids, of at most {most}"));
        }
        Ok(Self {
            path: path.to_path_buf(),
            map: Arc::new(map),
            offset,
            summary: Arc::new(summary),
        })
    }

    /// Makes sure that the records are what `preprocessing` makes of the text. The treatment of
    /// malformed lines counts only if there were any.
    ///
    /// # Errors
    /// If they are not; the error names what differs.
    pub fn expect(&self, preprocessing: &Preprocessing) -> Result<()> {
        let own = &self.summary.preprocessing;
        let differences = preprocessing.differences(own, self.summary.skipped.count);
        self.refuse(differences)
    }

    /// Makes sure that the store was made of files of these names and lengths, in this order.
    ///
    /// # Errors
    /// If it was not, or if a file cannot be found.
    pub fn expect_sources(&self, sources: &[PathBuf]) -> Result<()> {
        let (wanted, own) = (describe(sources)?, &self.summary.sources);
        let mut differences = Vec::new();
        if wanted.len() != own.len() {
            let (got, wanted) = (own.len(), wanted.len());
            differences.push(format!("it was made of {got} files, wanted {wanted}"));
        }
        for (wanted, own) in wanted.iter().zip(own) {
            if wanted != own {
                differences.push(format!(
                    "it was made of {} with {} bytes, wanted {} with {}",
                    own.name, own.bytes, wanted.name, wanted.bytes
                ));
            }
        }
        self.refuse(differences)
    }

    fn refuse(&self, differences: Vec<String>) -> Result<()> {
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::OtherPreprocessing {
            path: self.path.clone(),
            differences: differences.join("; "),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the store says about itself: counts, sources, skipped lines.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The number of ids of each of the 26 tables: the rows of the model's embeddings.
    pub fn table_sizes(&self) -> &[usize] {
        &self.summary.table_sizes
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.summary.rows as usize
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The vocabularies that the ids come from; `None` if they are hashes. They are looked for in
    /// the folder of the store; those of another place are opened with [`Vocabularies::open`].
    ///
    /// # Errors
    /// If the file is not there, cannot be read, or belongs to another store.
    pub fn vocabularies(&self) -> Result<Option<Vocabularies>> {
        let Some(expected) = &self.summary.vocabulary else {
            return Ok(None);
        };
        let path = self.path.with_file_name(&expected.name);
        let vocabularies = Vocabularies::open(&path)?;
        if vocabularies.file.checksum != expected.checksum {
            return Err(Error::NotAStore {
                reason: format!(
                    "it is not the vocabulary of {}; prepare the store again",
                    self.path.display()
                ),
                path,
            });
        }
        Ok(Some(vocabularies))
    }

    /// The label of a row; `None` if it has none or there is no such row.
    pub fn label(&self, row: usize) -> Option<bool> {
        self.record(row).and_then(record::label)
    }

    /// The 13 numbers of a row; `None` if there is no such row.
    pub fn dense(&self, row: usize) -> Option<[f32; INTEGERS]> {
        let mut dense = [0.0; INTEGERS];
        for (to, from) in dense.iter_mut().zip(record::dense(self.record(row)?)) {
            *to = from;
        }
        Some(dense)
    }

    /// The 26 ids of a row; `None` if there is no such row.
    pub fn ids(&self, row: usize) -> Option<[u32; CATEGORIES]> {
        let mut ids = [0; CATEGORIES];
        for (to, from) in ids.iter_mut().zip(record::ids(self.record(row)?)) {
            *to = from;
        }
        Some(ids)
    }

    pub(super) fn record(&self, row: usize) -> Option<&[u8]> {
        if row >= self.len() {
            return None;
        }
        let start = self.offset + row * RECORD;
        self.map.get(start..start + RECORD)
    }

    /// The rows as `count` days, in the order of the files.
    ///
    /// # Errors
    /// If `count` is below 2, or above the number of rows.
    pub fn days(&self, count: usize) -> Result<Days> {
        split::days(self.len(), count)
    }

    /// Consecutive ranges of rows with these fractions of all rows, such as `[0.8, 0.1, 0.1]`.
    ///
    /// # Errors
    /// If a fraction is negative or not a number, or their sum is above 1.
    pub fn split(&self, fractions: &[f64]) -> Result<Vec<Range<usize>>> {
        split::fractions(self.len(), fractions)
    }

    /// A batch of these rows, in this order.
    ///
    /// # Errors
    /// If there are none, if the store has no such row, or the device refuses the tensors.
    pub fn batch(&self, rows: &[usize], device: &Device) -> Result<ClickBatch> {
        ClickBatch::new(self, rows.iter().copied(), device)
    }
}
