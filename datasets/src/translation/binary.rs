//! The `.bin` and `.idx` files of `fairseq-preprocess` (`--dataset-impl mmap`), mapped into memory.
//!
//! The index: `MMIDIDX` and two zeros, the version 1 (64 bits), the code of a number type (8 bits), the number of
//! sentences (64 bits), then the lengths of all sentences (32 bits each, signed) and where each begins in the
//! `.bin` file, in bytes (64 bits each, signed); the lowest byte first. The `.bin` file holds the ids alone, each
//! sentence with the end that fairseq put behind it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::write::beside;
use super::{FETCH, token_file};
use crate::error::{Error, Result};

/// What an index begins with, and what one of the format before it does.
const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const OLD_MAGIC: &[u8; 8] = b"TNTIDX\0\0";
/// Bytes before the lengths: magic, version, type, number of sentences.
const HEAD: usize = 9 + 8 + 1 + 8;
/// Bytes of the index for a sentence: its length and its place.
const ENTRY: u64 = 4 + 8;

/// The sentences of one side as token ids; clones share the memory.
///
/// The files must not be changed while they are open.
#[derive(Debug, Clone)]
pub struct FairseqBinary {
    path: PathBuf,
    index: Arc<Mmap>,
    ids: Arc<Mmap>,
    width: Width,
    len: usize,
}

/// The number type of the ids.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Width {
    bytes: usize,
    signed: bool,
}

impl Width {
    /// fairseq's codes; 6 and 7 are floating-point numbers.
    fn of(code: u8) -> Option<Self> {
        let (bytes, signed) = match code {
            1 => (1, false),
            2 => (1, true),
            3 => (2, true),
            4 => (4, true),
            5 => (8, true),
            8 => (2, false),
            9 => (4, false),
            10 => (8, false),
            _ => return None,
        };
        Some(Self { bytes, signed })
    }

    /// An id; `None` where it is negative or has more than 32 bits.
    fn id(self, bytes: &[u8]) -> Option<u32> {
        let negative = self.signed && bytes.last().is_some_and(|high| high & 0x80 != 0);
        let value = bytes
            .iter()
            .rev()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        u32::try_from(value).ok().filter(|_| !negative)
    }
}

impl FairseqBinary {
    /// Opens `PREFIX.bin` and `PREFIX.idx`, such as `data-bin/train.de-en.de`, and checks every length and place
    /// of the index against the lengths of both files.
    ///
    /// # Errors
    /// If a file cannot be read, the index is of the older format (`TNTIDX`), of Megatron-LM or of another
    /// version, holds numbers that are no ids, or does not fit the lengths of the files.
    pub fn open(prefix: &Path) -> Result<Self> {
        let (path, ids_path) = (beside(prefix, ".idx"), beside(prefix, ".bin"));
        let index = map(&path)?;
        let (width, len) = head(&path, &index)?;
        let binary = Self {
            ids: map(&ids_path)?,
            path,
            index,
            width,
            len,
        };
        (0..len).try_for_each(|sentence| binary.bytes(sentence).map(|_| ()))?;
        Ok(binary)
    }

    /// The number of sentences.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no sentences.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ids of a sentence, with the end (fairseq's id 2) where the file has it.
    ///
    /// # Errors
    /// If there is no such sentence, or an id is negative or has more than 32 bits.
    pub fn get(&self, sentence: usize) -> Result<Vec<u32>> {
        if sentence >= self.len {
            let got = format!("sentence {sentence} of {}", self.len);
            return Err(token_file(
                &self.path,
                got,
                "a smaller number",
                "count from 0",
            ));
        }
        let numbers = self.bytes(sentence)?.chunks_exact(self.width.bytes);
        let ids: Option<Vec<u32>> = numbers.map(|bytes| self.width.id(bytes)).collect();
        ids.ok_or_else(|| {
            let got = format!("sentence {sentence} has an id that is negative or above 4294967295");
            token_file(&self.path, got, "ids of 32 bits", FETCH)
        })
    }

    /// The bytes of a sentence.
    fn bytes(&self, sentence: usize) -> Result<&[u8]> {
        let (tokens, start) = self.entry(sentence);
        let range = u64::try_from(tokens).ok().zip(u64::try_from(start).ok());
        let range = range.and_then(|(tokens, start)| {
            let end = tokens
                .checked_mul(self.width.bytes as u64)?
                .checked_add(start)?;
            Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
        });
        range.and_then(|range| self.ids.get(range)).ok_or_else(|| {
            let got = format!("sentence {sentence} has {tokens} ids from byte {start} on");
            let expected = format!(
                "a place within the {} bytes of the .bin file",
                self.ids.len()
            );
            token_file(&self.path, got, expected, FETCH)
        })
    }

    /// The length of a sentence in ids and its place in bytes, as the index has them.
    fn entry(&self, sentence: usize) -> (i32, i64) {
        let lengths = HEAD + 4 * sentence;
        let places = HEAD + 4 * self.len + 8 * sentence;
        let length = self.index[lengths..].first_chunk().copied();
        let place = self.index[places..].first_chunk().copied();
        // The head was checked: both are there.
        (
            length.map_or(-1, i32::from_le_bytes),
            place.map_or(-1, i64::from_le_bytes),
        )
    }
}

fn map(path: &Path) -> Result<Arc<Mmap>> {
    let failed = |e| Error::io(path, e);
    let file = File::open(path).map_err(failed)?;
    // SAFETY: nothing of this crate writes to such files, and the documentation forbids it to others.
    let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
    Ok(Arc::new(map))
}

/// The number type and the number of sentences of an index whose length fits them.
fn head(path: &Path, index: &[u8]) -> Result<(Width, usize)> {
    const REMAKE: &str = "make it again with fairseq-preprocess --dataset-impl mmap";
    let wrong = |got: String, expected: &str, hint| Err(token_file(path, got, expected, hint));
    if index.starts_with(OLD_MAGIC) {
        let got = "an index of fairseq's older format (TNTIDX)".to_string();
        return wrong(got, "one that begins with MMIDIDX", REMAKE);
    }
    let Some((head, rest)) = index.split_first_chunk::<HEAD>() else {
        let got = format!("an index of {} bytes", index.len());
        return wrong(got, "at least 26 of them", FETCH);
    };
    if !head.starts_with(MAGIC) {
        let got = "an index that begins with other bytes".to_string();
        return wrong(got, "MMIDIDX, as fairseq's begin", REMAKE);
    }
    let word = |at: usize| {
        head[at..]
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    if word(9) != 1 {
        return wrong(format!("version {}", word(9)), "version 1", REMAKE);
    }
    let Some(width) = Width::of(head[17]) else {
        let got = format!("numbers of type {}", head[17]);
        return wrong(got, "ids, of types 1 to 5 or 8 to 10", REMAKE);
    };
    let (count, bytes) = (word(18), rest.len() as u64);
    match count.checked_mul(ENTRY) {
        Some(expected) if expected == bytes => Ok((width, count as usize)),
        // The number of documents, and one place more than those.
        Some(expected)
            if bytes >= expected.saturating_add(16) && documents(rest, count, bytes - expected) =>
        {
            wrong(
                "an index of Megatron-LM, which has documents behind the sentences".to_string(),
                "one of fairseq",
                REMAKE,
            )
        }
        _ => {
            let expected = format!("{ENTRY} bytes for each of its {count} sentences");
            wrong(format!("{bytes} bytes behind the head"), &expected, FETCH)
        }
    }
}

/// Whether an index has as many documents as Megatron-LM's says behind its head.
fn documents(rest: &[u8], count: u64, bytes: u64) -> bool {
    let documents = rest
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    documents > 0
        && documents <= count.saturating_add(1)
        && documents.checked_mul(8) == Some(bytes - 8)
}
