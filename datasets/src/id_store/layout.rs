//! The file of a store of ids: a head of 48 bytes and the ids, 32 bits each, the lowest byte first. The head has a checksum
//! of its own, and one of the ids.

use std::path::Path;

use flate2::Crc;

use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"WORDSTOR";
const VERSION: u32 = 1;
/// Bytes of the head.
pub(super) const HEAD: usize = 48;
const REBUILD: &str = "delete the file; it is made again from the text";

/// What a store says about itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Head {
    pub count: u64,
    /// Of what it was made of: a text and a vocabulary, or a tokenizer.
    pub fingerprint: u64,
    /// Ids are below it.
    pub vocabulary: u32,
    /// The CRC-32 of the ids.
    pub content: u32,
}

pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A store that is not what it should be.
pub(super) fn unusable(path: &Path, got: String, expected: &str) -> Error {
    Error::TokenFile {
        path: path.to_path_buf(),
        expected: expected.into(),
        got,
        hint: REBUILD,
    }
}

impl Head {
    pub fn encode(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        head[12..20].copy_from_slice(&self.count.to_le_bytes());
        head[20..28].copy_from_slice(&self.fingerprint.to_le_bytes());
        head[28..32].copy_from_slice(&self.vocabulary.to_le_bytes());
        head[32..36].copy_from_slice(&self.content.to_le_bytes());
        let sum = checksum(&head[..HEAD - 4]);
        head[HEAD - 4..].copy_from_slice(&sum.to_le_bytes());
        head
    }

    /// Of a whole file, whose length must be what the head says.
    pub fn decode(path: &Path, file: &[u8]) -> Result<Self> {
        let Some(head) = file.first_chunk::<HEAD>() else {
            return Err(unusable(
                path,
                format!("{} bytes", file.len()),
                "a store of ids",
            ));
        };
        let four =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let eight = |at: usize| u64::from(four(at)) | u64::from(four(at + 4)) << 32;
        if &head[..8] != MAGIC {
            return Err(unusable(
                path,
                "another kind of file".into(),
                "a store of ids",
            ));
        }
        if four(8) != VERSION {
            let got = format!("a store of version {}", four(8));
            return Err(unusable(path, got, "version 1"));
        }
        if four(HEAD - 4) != checksum(&head[..HEAD - 4]) {
            return Err(unusable(
                path,
                "a damaged head".into(),
                "one with the right sum",
            ));
        }
        let found = Self {
            count: eight(12),
            fingerprint: eight(20),
            vocabulary: four(28),
            content: four(32),
        };
        let bytes = found
            .count
            .checked_mul(4)
            .and_then(|n| n.checked_add(HEAD as u64));
        match bytes == Some(file.len() as u64) {
            true => Ok(found),
            false => {
                let got = format!("{} bytes for {} ids", file.len(), found.count);
                Err(unusable(path, got, "four for each id and the head"))
            }
        }
    }
}
