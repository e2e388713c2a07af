//! The head of a store: what made it, and what is in it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Preprocessing;
use crate::error::{Error, Result};
use crate::excerpt::reason;

/// What a store begins with.
const MAGIC: &[u8; 8] = b"CLICKROW";
/// The version of the format that this crate writes and reads.
pub(super) const VERSION: u32 = 1;
/// Bytes before the JSON: magic, version, bytes of the JSON, offset of the records.
const HEAD: usize = 24;
/// The offset of the records is a multiple of this, the size of a page of memory.
const PAGE: usize = 4096;
/// Lines that broke the format, of which the place is kept.
pub(super) const SKIPPED_SHOWN: usize = 10;

/// A text file that a store was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its name without the folder.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Lines that were left out because they broke the format.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Skipped {
    /// How many there were.
    pub count: u64,
    /// The name of the file and the number of the line, from 1, of the first ten.
    pub first: Vec<(String, usize)>,
}

/// The vocabulary that a store's ids come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VocabularyFile {
    /// Its name, in the folder of the store unless it was made elsewhere.
    pub name: String,
    /// The CRC-32 of its contents.
    pub checksum: u32,
}

/// What a store says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// What became of the raw fields.
    pub preprocessing: Preprocessing,
    /// Records.
    pub rows: u64,
    /// Records whose label is 1.
    pub clicks: u64,
    /// The number of ids of each of the 26 tables.
    pub table_sizes: Vec<usize>,
    /// The text files, in order.
    pub sources: Vec<SourceFile>,
    /// What was left out.
    pub skipped: Skipped,
    /// Where the ids come from; `None` with [`Preprocessing::hash_modulo`].
    pub vocabulary: Option<VocabularyFile>,
}

/// Bytes to leave for the head of a store of these sources.
pub(super) fn reserved(sources: &[SourceFile]) -> usize {
    // A character of a name takes at most 6 bytes of JSON, and names come up twice.
    let names: usize = sources.iter().map(|s| s.name.len() * 6 + 64).sum();
    let longest = sources.iter().map(|s| s.name.len() * 6 + 64).max();
    let skipped = longest.unwrap_or(0) * SKIPPED_SHOWN;
    (HEAD + names + skipped + PAGE).next_multiple_of(PAGE)
}

/// The head of a store whose records begin at byte `offset`.
pub(super) fn encode(summary: &Summary, offset: usize, path: &Path) -> Result<Vec<u8>> {
    let failed = |reason: String| Error::NotAStore {
        path: path.to_path_buf(),
        reason,
    };
    let json = serde_json::to_vec(summary).map_err(|e| failed(e.to_string()))?;
    if HEAD + json.len() > offset {
        return Err(failed(format!(
            "its head takes {} bytes, but {offset} were left for it",
            HEAD + json.len()
        )));
    }
    let mut head = Vec::with_capacity(HEAD + json.len());
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    head.extend((json.len() as u32).to_le_bytes());
    head.extend((offset as u64).to_le_bytes());
    head.extend(json);
    Ok(head)
}

/// The summary in the first bytes of a store, and the offset of its records.
pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<(Summary, usize)> {
    let refuse = |reason: &str| Error::NotAStore {
        path: path.to_path_buf(),
        reason: reason.to_string(),
    };
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return Err(refuse("it is shorter than the head of one"));
    };
    if head[..8] == [0; 8] {
        return Err(refuse("its preparation was interrupted"));
    }
    if head[..8] != *MAGIC {
        return Err(refuse("it begins with other bytes"));
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if word(8) != VERSION {
        return Err(Error::StoreVersion {
            path: path.to_path_buf(),
            expected: VERSION,
            got: word(8),
        });
    }
    let (length, offset) = (
        word(12) as usize,
        u64::from(word(16)) | u64::from(word(20)) << 32,
    );
    let Some(json) = rest.get(..length).filter(|_| offset <= bytes.len() as u64) else {
        return Err(refuse("it ends within its head; it was cut off"));
    };
    if offset < (HEAD + length) as u64 {
        return Err(refuse("its records begin within its head"));
    }
    let summary: Summary = serde_json::from_slice(json)
        .map_err(|e| refuse(&format!("its head is damaged ({})", reason(e))))?;
    Ok((summary, offset as usize))
}
