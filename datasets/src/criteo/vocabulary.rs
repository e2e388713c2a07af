//! From categorical values to ids, and the file that keeps them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Crc;
use rayon::prelude::*;

use super::appearances::Appearances;
use super::column::Column;
use super::header::VocabularyFile;
use super::positions::{Positions, key};
use super::{CATEGORIES, file_name};
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
    /// The id of values that are not in the table.
    unknown: u32,
    size: usize,
}

impl Vocabularies {
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
            .par_iter()
            .map(|values| Table::new(values, minimum_count))
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

    /// Puts ids in the place of the values of a chunk's column of table `table`.
    pub(super) fn number(&self, table: usize, column: Column) {
        let table = &self.tables[table];
        for (values, keys) in column.batches() {
            let first = table.ids.first_slots(&keys);
            for ((value, key), first) in values.iter_mut().zip(keys).zip(first) {
                *value = table.ids.get(key, first).unwrap_or(table.unknown);
            }
        }
    }
}

impl Table {
    /// The ids of values that are listed in the order of their ids.
    fn new(values: &[Option<u32>], minimum_count: u32) -> Self {
        let rare = minimum_count > 1;
        let mut next = u32::from(rare);
        let mut ids = Positions::with_room(values.len());
        for value in values {
            ids.insert(key(value.unwrap_or(0), value.is_none()), next);
            next += 1;
        }
        Self {
            ids,
            unknown: if rare { 0 } else { next },
            size: size(next, minimum_count),
        }
    }

    fn id(&self, value: Option<u32>) -> u32 {
        let key = key(value.unwrap_or(0), value.is_none());
        self.ids.find(key).unwrap_or(self.unknown)
    }
}

/// The number of ids of a table whose values have ids below `next`.
pub(super) fn size(next: u32, minimum_count: u32) -> usize {
    next as usize + usize::from(minimum_count <= 1)
}

/// Writes what has been counted as a vocabulary file at `path`, which is to be called `name`.
pub(super) fn create(
    path: &Path,
    name: String,
    counted: &[Appearances],
    minimum_count: u32,
) -> Result<VocabularyFile> {
    let write = || {
        let file = File::create(path)?;
        let mut writer = BufWriter::with_capacity(1 << 18, Checked::new(&file));
        write(&mut writer, counted, minimum_count)?;
        writer.flush()?;
        let checksum = writer.get_ref().crc.sum();
        (&file).write_all(&checksum.to_le_bytes())?;
        file.sync_all()?;
        Ok(VocabularyFile { name, checksum })
    };
    write().map_err(|e| Error::io(path, e))
}

fn write(to: &mut impl Write, counted: &[Appearances], minimum: u32) -> std::io::Result<()> {
    to.write_all(MAGIC)?;
    to.write_all(&VERSION.to_le_bytes())?;
    to.write_all(&minimum.to_le_bytes())?;
    let mut tables = counted.iter();
    tables.try_for_each(|table| write_table(to, table.frequent(minimum)))
}

/// Writes the number of values, the place of the empty one, and the values.
pub(super) fn write_table(
    to: &mut impl Write,
    values: impl Iterator<Item = Option<u32>> + Clone,
) -> std::io::Result<()> {
    let (mut length, mut missing) = (0u32, NONE);
    for value in values.clone() {
        if value.is_none() {
            missing = length;
        }
        length += 1;
    }
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&missing.to_le_bytes())?;
    for value in values {
        to.write_all(&value.unwrap_or(0).to_le_bytes())?;
    }
    Ok(())
}

/// A writer that sums up what goes through it.
struct Checked<W> {
    writer: W,
    crc: Crc,
}

impl<W> Checked<W> {
    fn new(writer: W) -> Self {
        Self {
            writer,
            crc: Crc::new(),
        }
    }
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
pub(super) struct Words<'a>(pub(super) &'a [u8]);

impl Words<'_> {
    pub(super) fn next(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*word))
    }

    /// The values of a table in the order of their ids.
    pub(super) fn table(&mut self) -> Option<Vec<Option<u32>>> {
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
