//! How far a preparation has come, in a file beside the store, so that the next one goes on there.
//!
//! The file: `CLICKLOG`, version, and entries, the first of which says what is being prepared and
//! each other one how far it has come and which values are new since the entry before. An entry is
//! the length of its content (64 bits), the content, and the CRC-32 of the file up to here but for
//! such checksums, as a CRC of what its own value is part of depends on nothing before; the
//! content is the length of a JSON text, the text, and the tables of new values in the form of
//! vocabulary files. What was cut off fails the checksum and is ignored, with all that follows.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::Crc;
use serde::{Deserialize, Serialize};

use super::Preprocessing;
use super::appearances::Appearances;
use super::files::{Stamped, sync_folder};
use super::header::Skipped;
use super::text::Position;
use super::vocabulary::{Words, write_table};
use crate::error::{Error, Result};

/// What a journal begins with: magic and version.
const HEAD: &[u8; 12] = b"CLICKLOG\x01\0\0\0";

/// What is being prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) preprocessing: Preprocessing,
    pub(super) sources: Vec<Stamped>,
    /// The checksum of the vocabularies that the ids come from, if they are an earlier store's.
    pub(super) vocabulary: Option<u32>,
}

/// How far it has come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) rows: u64,
    pub(super) clicks: u64,
    pub(super) skipped: Skipped,
    /// Where in the text the next line begins.
    pub(super) position: Position,
    /// Whether all text has been read and values are counted: then counts come after the values,
    /// and positions in the records may have been replaced by ids.
    pub(super) counted: bool,
}

/// The content of an entry.
pub(super) struct Entry(Vec<u8>);

impl Entry {
    /// The state, and the values of each table from the position in `noted` on, which is moved.
    pub(super) fn new(state: &State, tables: &[Appearances], noted: &mut [usize]) -> Self {
        let mut content = json(state);
        for (table, noted) in tables.iter().zip(noted) {
            // Memory takes everything.
            write_table(&mut content, table.since(*noted)).ok();
            *noted = table.len();
        }
        if state.counted {
            for table in tables {
                let counts = table.counts().iter();
                content.extend(counts.flat_map(|count| count.to_le_bytes()));
            }
        }
        Self(content)
    }
}

/// A journal that is written.
pub(super) struct Journal {
    path: PathBuf,
    origin: Origin,
    /// None before the first entry.
    file: Option<File>,
    /// Of all that is in the file but for checksums.
    crc: Crc,
}

impl Journal {
    /// One that is to be made with its first entry.
    pub(super) fn new(path: &Path, origin: Origin) -> Self {
        Self {
            path: path.to_path_buf(),
            origin,
            file: None,
            crc: Crc::new(),
        }
    }

    /// Adds an entry and waits until it is on the disk.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<()> {
        let created = self.file.is_none();
        let written = self.write(entry);
        written.map_err(|e| Error::io(&self.path, e))?;
        if created {
            sync_folder(&self.path);
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry) -> std::io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                let mut file = File::create(&self.path)?;
                put(&mut file, &mut self.crc, HEAD)?;
                put_entry(&mut file, &mut self.crc, &json(&self.origin))?;
                file
            }
        };
        put_entry(&mut file, &mut self.crc, &entry.0)?;
        file.sync_data()?;
        self.file = Some(file);
        Ok(())
    }

    /// The journal at a path, its last state, and in `tables` the values; `None` if there is none,
    /// or none of this origin, and `tables` may hold anything.
    pub(super) fn open(
        path: &Path,
        origin: &Origin,
        tables: &mut [Appearances],
    ) -> Option<(Self, State)> {
        let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let mut entries = Entries::new(&file)?;
        let found: Origin = serde_json::from_slice(split(&entries.next()?)?.0).ok()?;
        let mut last = None;
        while let Some(content) = entries.next() {
            last = Some(apply(&content, tables)?);
        }
        let state: State = last?;
        if !found.same(origin, &state.skipped) {
            return None;
        }
        let (end, crc) = (entries.end, entries.crc);
        // What was cut off makes room.
        file.set_len(end).ok()?;
        (&file).seek(SeekFrom::Start(end)).ok()?;
        let journal = Self {
            file: Some(file),
            crc,
            ..Self::new(path, found)
        };
        Some((journal, state))
    }
}

impl Origin {
    /// Whether what has been made so far is what is wanted.
    fn same(&self, wanted: &Self, skipped: &Skipped) -> bool {
        let differences = wanted
            .preprocessing
            .differences(&self.preprocessing, skipped.count);
        differences.is_empty()
            && self.sources == wanted.sources
            && self.vocabulary == wanted.vocabulary
    }
}

/// Takes over the values of an entry.
fn apply(content: &[u8], tables: &mut [Appearances]) -> Option<State> {
    let (text, rest) = split(content)?;
    let state: State = serde_json::from_slice(text).ok()?;
    let mut words = Words(rest);
    for table in tables.iter_mut() {
        table.extend(words.table()?);
    }
    if state.counted {
        for table in tables {
            let counts: Option<Vec<u32>> = (0..table.len()).map(|_| words.next()).collect();
            table.set_counts(counts?);
        }
    }
    Some(state)
}

/// A text with its length before it.
fn json(value: &impl Serialize) -> Vec<u8> {
    // Numbers and names: there is nothing that cannot be written.
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut content = (text.len() as u32).to_le_bytes().to_vec();
    content.extend(text);
    content
}

/// The text at the beginning of a content, and what follows.
fn split(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = content.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

fn put(file: &mut File, crc: &mut Crc, bytes: &[u8]) -> std::io::Result<()> {
    crc.update(bytes);
    file.write_all(bytes)
}

fn put_entry(file: &mut File, crc: &mut Crc, content: &[u8]) -> std::io::Result<()> {
    put(file, crc, &(content.len() as u64).to_le_bytes())?;
    put(file, crc, content)?;
    file.write_all(&crc.sum().to_le_bytes())
}

/// The contents of the entries of a file that are whole.
struct Entries<'a> {
    reader: BufReader<&'a File>,
    length: u64,
    /// Where the last whole entry ends, and the checksum up to there.
    end: u64,
    crc: Crc,
}

impl<'a> Entries<'a> {
    fn new(file: &'a File) -> Option<Self> {
        let mut entries = Self {
            length: file.metadata().ok()?.len(),
            reader: BufReader::with_capacity(1 << 18, file),
            end: HEAD.len() as u64,
            crc: Crc::new(),
        };
        let mut head = [0; HEAD.len()];
        entries.reader.read_exact(&mut head).ok()?;
        entries.crc.update(&head);
        (head == *HEAD).then_some(entries)
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 8];
        self.reader.read_exact(&mut length).ok()?;
        let bytes = u64::from_le_bytes(length);
        // Before so much memory is asked for.
        let left = self.length.checked_sub(self.end + 8 + 4)?;
        if bytes > left {
            return None;
        }
        let mut content = vec![0; bytes as usize];
        self.reader.read_exact(&mut content).ok()?;
        let mut sum = [0; 4];
        self.reader.read_exact(&mut sum).ok()?;
        // A copy: that of the whole entries is still wanted if this one is not whole.
        let mut crc = Crc::new();
        crc.combine(&self.crc);
        crc.update(&length);
        crc.update(&content);
        if crc.sum().to_le_bytes() != sum {
            return None;
        }
        self.crc = crc;
        self.end += 8 + bytes + 4;
        Some(content)
    }
}
