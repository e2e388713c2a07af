//! From categorical values to ids, and the file that keeps them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Crc;
use rayon::prelude::*;

use super::appearances::{Appearances, Numbered, Positions};
use super::header::VocabularyFile;
use super::{CATEGORIES, file_name, record};
use crate::error::{Error, Result};

/// What a vocabulary file begins with.
const MAGIC: &[u8; 8] = b"CLICKVOC";
/// The version of the format that this crate writes and reads.
pub(super) const VERSION: u32 = 1;
/// In the file, the place of the empty value of a table that has none.
const NONE: u32 = u32::MAX;
/// Bytes before the first table: magic, version, minimum count.
const HEAD: usize = 16;

/// The ids of all 26 tables.
///
/// With `minimum_count` 1 the values have ids `0..n` in the order of their first appearance, and id
/// `n` is reserved for values that come up only in later files. With a greater one id 0 is for rare
/// values, values of later files among them, and the others have ids `1..=n`. Either way a table has
/// `n + 1` ids.
///
/// The file: `CLICKVOC`, version, minimum count; for each table the number of values, the place of
/// the empty value among them (`0xffffffff` if none) and the values in the order of their ids; the
/// CRC-32 of all that. All numbers have 32 bits, the lowest byte first.
pub struct Vocabularies {
    tables: Vec<Table>,
    minimum_count: u32,
    pub(super) file: VocabularyFile,
}

/// The ids of one table.
struct Table {
    ids: Positions,
    /// The id of the empty value.
    missing: u32,
    /// The id of values that are not in the table.
    unknown: u32,
    size: usize,
}

impl Vocabularies {
    /// Writes what has been counted as a vocabulary file at `path` and returns its ids.
    pub(super) fn create(
        path: &Path,
        name: String,
        counted: Vec<Appearances>,
        minimum_count: u32,
    ) -> Result<Self> {
        let failed = |e| Error::io(path, e);
        let file = File::create(path).map_err(failed)?;
        let mut writer = Checked {
            writer: BufWriter::with_capacity(1 << 18, &file),
            crc: Crc::new(),
        };
        write(&mut writer, &counted, minimum_count).map_err(failed)?;
        let checksum = writer.crc.sum();
        writer
            .writer
            .write_all(&checksum.to_le_bytes())
            .and_then(|()| writer.writer.flush())
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        let tables = counted
            .into_par_iter()
            .map(|table| Table::new(table.numbered(minimum_count), minimum_count))
            .collect();
        Ok(Self {
            tables,
            minimum_count,
            file: VocabularyFile { name, checksum },
        })
    }

    /// Reads a vocabulary file, `train.clicks.vocabulary` beside the store `train.clicks`.
    ///
    /// # Errors
    /// If the file cannot be read, is no vocabulary, has another version, or is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let damaged = |reason: &str| Error::NotAStore {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        };
        if bytes.len() < HEAD + 4 || bytes[..8] != *MAGIC {
            return Err(damaged("not a vocabulary of a click store"));
        }
        let mut words = Words(&bytes[8..]);
        let version = words.next().unwrap_or(0);
        if version != VERSION {
            return Err(Error::StoreVersion {
                path: path.to_path_buf(),
                expected: VERSION,
                got: version,
            });
        }
        let (content, checksum) = bytes.split_at(bytes.len() - 4);
        let mut crc = Crc::new();
        crc.update(content);
        if crc.sum().to_le_bytes() != checksum {
            return Err(damaged("its checksum is wrong: cut off or damaged"));
        }
        let minimum_count = words.next().unwrap_or(1);
        let lists: Option<Vec<_>> = (0..CATEGORIES).map(|_| words.table()).collect();
        let lists = lists.ok_or_else(|| damaged("it ends within a table"))?;
        let tables = lists
            .into_par_iter()
            .map(|values| Table::new(number(values, minimum_count), minimum_count))
            .collect();
        Ok(Self {
            tables,
            minimum_count,
            file: VocabularyFile {
                name: file_name(path),
                checksum: crc.sum(),
            },
        })
    }

    /// The number of ids of each table, the shared one included.
    pub fn sizes(&self) -> Vec<usize> {
        self.tables.iter().map(|table| table.size).collect()
    }

    /// How often a value must have been seen to have an id of its own.
    pub fn minimum_count(&self) -> u32 {
        self.minimum_count
    }

    /// The id of a value, `None` for the empty one, in table `table` of 0 to 25; `None` if there is
    /// no such table.
    pub fn id(&self, table: usize, value: Option<u32>) -> Option<u32> {
        self.tables.get(table).map(|table| table.id(value))
    }

    /// The ids of a row.
    pub(super) fn ids(&self, values: &[Option<u32>; CATEGORIES]) -> [u32; CATEGORIES] {
        let mut ids = [0; CATEGORIES];
        for ((id, table), &value) in ids.iter_mut().zip(&self.tables).zip(values) {
            *id = table.id(value);
        }
        ids
    }

    /// Puts ids in the place of the values of records.
    pub(super) fn number(&self, records: &mut [u8]) {
        for (index, table) in self.tables.iter().enumerate() {
            record::number(records, index, |value| table.id(value));
        }
    }
}

impl Table {
    fn new(numbered: Numbered, minimum_count: u32) -> Self {
        let (next, rare) = (numbered.next, minimum_count > 1);
        let unknown = if rare { 0 } else { next };
        Self {
            ids: numbered.ids,
            missing: numbered.missing.unwrap_or(unknown),
            unknown,
            size: next as usize + usize::from(!rare),
        }
    }

    fn id(&self, value: Option<u32>) -> u32 {
        match value {
            None => self.missing,
            Some(value) => self.ids.get(&value).copied().unwrap_or(self.unknown),
        }
    }
}

/// The ids of values that are listed in the order of their ids.
fn number(values: Vec<Option<u32>>, minimum_count: u32) -> Numbered {
    let first = u32::from(minimum_count > 1);
    let (mut ids, mut missing) = (Positions::default(), None);
    ids.reserve(values.len());
    for (&value, id) in values.iter().zip(first..) {
        match value {
            Some(value) => _ = ids.insert(value, id),
            None => missing = Some(id),
        }
    }
    Numbered {
        ids,
        missing,
        next: first + values.len() as u32,
    }
}

fn write(to: &mut impl Write, counted: &[Appearances], minimum: u32) -> std::io::Result<()> {
    to.write_all(MAGIC)?;
    to.write_all(&VERSION.to_le_bytes())?;
    to.write_all(&minimum.to_le_bytes())?;
    for table in counted {
        let (mut length, mut missing) = (0u32, NONE);
        for value in table.frequent(minimum) {
            if value.is_none() {
                missing = length;
            }
            length += 1;
        }
        to.write_all(&length.to_le_bytes())?;
        to.write_all(&missing.to_le_bytes())?;
        for value in table.frequent(minimum) {
            to.write_all(&value.unwrap_or(0).to_le_bytes())?;
        }
    }
    Ok(())
}

/// A writer that sums up what goes through it.
struct Checked<W> {
    writer: W,
    crc: Crc,
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.crc.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

/// The numbers that are left of a file.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn next(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*word))
    }

    /// The values of a table in the order of their ids.
    fn table(&mut self) -> Option<Vec<Option<u32>>> {
        let (length, missing) = (self.next()? as usize, self.next()?);
        let (bytes, rest) = self.0.split_at_checked(length.checked_mul(4)?)?;
        self.0 = rest;
        let mut values = Vec::with_capacity(length);
        for (place, word) in bytes.chunks_exact(4).enumerate() {
            let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            values.push((place as u32 != missing).then_some(value));
        }
        Some(values)
    }
}

/// The name of the vocabulary file of a store.
pub(super) fn beside(store: &Path) -> PathBuf {
    with_ending(store, ".vocabulary")
}

/// A path with an ending after all others.
pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
