//! The file of a store of pairs.
//!
//! 64 bytes of head, the ids of all sentences (source, target, source, …; 16 or 32 bits each), zeros up to a multiple
//! of 8 bytes, and where each sentence begins and the last one ends, in ids (64 bits each); the lowest byte first. The
//! head has a checksum of its own, and one of all that is behind it.

use std::path::Path;

use flate2::Crc;

use super::token_file;
use crate::error::{Error, Result};

/// What a store begins with, and the version of its format.
const MAGIC: &[u8; 8] = b"PAIRSTOR";
const VERSION: u32 = 1;
/// Bytes of the head.
pub(super) const HEAD: usize = 64;
/// What to do about a store that is not whole.
pub(super) const REBUILD: &str = "delete the file, or build it again from the text";

/// What a store says about itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Head {
    /// Bytes of an id: 2 or 4.
    pub(super) width: usize,
    pub(super) pairs: u64,
    /// The ids of all sentences.
    pub(super) tokens: u64,
    /// What it was made of.
    pub(super) fingerprint: u64,
    /// Ids of either side are below these.
    pub(super) vocabularies: [u32; 2],
    /// The CRC-32 of what is behind the head.
    pub(super) content: u32,
}

/// The bytes of an id of vocabularies of these sizes.
pub(super) fn width(vocabularies: [u32; 2]) -> usize {
    match vocabularies.iter().all(|size| *size <= 1 << 16) {
        true => 2,
        false => 4,
    }
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD] {
        let mut bytes = Vec::with_capacity(HEAD);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.width as u32).to_le_bytes());
        for number in [self.pairs, self.tokens, self.fingerprint] {
            bytes.extend(number.to_le_bytes());
        }
        for number in self.vocabularies.into_iter().chain([self.content]) {
            bytes.extend(number.to_le_bytes());
        }
        let mut head = [0; HEAD];
        head[..bytes.len()].copy_from_slice(&bytes);
        let sum = checksum(&head[..HEAD - 4]);
        head[HEAD - 4..].copy_from_slice(&sum.to_le_bytes());
        head
    }

    /// The head of a file, whose length fits it, and whose content has its checksum.
    pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let wrong = |got: String, expected: String| token_file(path, got, expected, REBUILD);
        let Some((head, content)) = bytes.split_first_chunk::<HEAD>() else {
            let got = format!("{} bytes", bytes.len());
            return Err(wrong(got, format!("a store of pairs, of at least {HEAD}")));
        };
        if !head.starts_with(MAGIC) {
            let got = "other bytes at the beginning".to_string();
            return Err(wrong(got, "a store of pairs".to_string()));
        }
        let word = |at: usize| {
            head[at..]
                .first_chunk()
                .map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if word(8) != VERSION {
            let got = format!("version {} of the format", word(8));
            return Err(wrong(got, format!("version {VERSION}")));
        }
        if checksum(&head[..HEAD - 4]) != word(HEAD - 4) {
            return Err(wrong(
                "a damaged head".to_string(),
                "its checksum".to_string(),
            ));
        }
        let vocabularies = [word(40), word(44)];
        let head = Self {
            width: word(12) as usize,
            pairs: long(16),
            tokens: long(24),
            fingerprint: long(32),
            vocabularies,
            content: word(48),
        };
        if head.width != width(vocabularies) {
            let got = format!("ids of {} bytes", head.width);
            return Err(wrong(got, format!("{} bytes", width(vocabularies))));
        }
        if head.length() != Some(bytes.len() as u64) {
            let expected = head
                .length()
                .map_or("fewer pairs".to_string(), |length| length.to_string());
            return Err(wrong(
                format!("{} bytes; it was cut off or written to", bytes.len()),
                expected,
            ));
        }
        if checksum(content) != head.content {
            return Err(wrong(
                "damaged ids".to_string(),
                "their checksum".to_string(),
            ));
        }
        Ok(head)
    }

    /// Where the places of the sentences begin; `None` if no file is as long.
    pub(super) fn places(&self) -> Option<u64> {
        let ids = self.tokens.checked_mul(self.width as u64)?;
        ids.checked_add(HEAD as u64)?.checked_next_multiple_of(8)
    }

    /// The bytes of the file; `None` if no file is as long.
    fn length(&self) -> Option<u64> {
        let places = self.pairs.checked_mul(2)?.checked_add(1)?.checked_mul(8)?;
        self.places()?.checked_add(places)
    }
}

pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// What all sentences of a store have in common: ids below those of their vocabularies, the same one at the end.
#[derive(Debug)]
pub(super) struct Checked {
    vocabularies: [u32; 2],
    ends: [Option<u32>; 2],
    pairs: usize,
}

impl Checked {
    pub(super) fn new(vocabularies: [u32; 2]) -> Self {
        Self {
            vocabularies,
            ends: [None; 2],
            pairs: 0,
        }
    }

    /// Looks at the next pair.
    pub(super) fn check(&mut self, source: &[u32], target: &[u32]) -> Result<()> {
        for (side, (name, ids)) in [("source", source), ("target", target)]
            .into_iter()
            .enumerate()
        {
            let wrong = |what: String| Error::Batch {
                reason: format!("the {name} of pair {} {what}", self.pairs),
            };
            let Some(&end) = ids.last() else {
                return Err(wrong(
                    "has no ids; each must end with that of </s>".to_string(),
                ));
            };
            let expected = *self.ends[side].get_or_insert(end);
            if end != expected {
                return Err(wrong(format!(
                    "ends with id {end}, that of the first pair with {expected}; each must end with that of </s>"
                )));
            }
            let size = self.vocabularies[side];
            if let Some(id) = ids.iter().find(|id| **id >= size) {
                return Err(wrong(format!(
                    "has id {id}, but its vocabulary {size} entries"
                )));
            }
        }
        self.pairs += 1;
        Ok(())
    }
}
