//! The ids of a text's words.

use std::path::Path;

use super::{WordVocabulary, for_each_word};
use crate::error::Result;
use crate::id_store::{IdStore, Origin};
use crate::plain_text;

/// A text's words as ids; clones share the memory.
///
/// The system reads what is asked for and keeps what fits. The file must not be changed while a store of it is open; a new
/// one in its place is fine.
#[derive(Debug, Clone)]
pub struct WordStore(IdStore);

impl WordStore {
    /// Of ids at hand.
    pub fn in_memory(ids: Vec<u32>) -> Self {
        Self(IdStore::in_memory(ids))
    }

    /// The words of a text, from the store `path`, which is made if it is not there. One that was made of another text or
    /// with another vocabulary is an error: what it was made of is told by checksums.
    ///
    /// # Errors
    /// If the text cannot be read or has no words, another process makes the store at this moment, the disk is full, or
    /// the store is damaged or another text's.
    pub fn of_file(text: &Path, vocabulary: &WordVocabulary, path: &Path) -> Result<Self> {
        let origin = Origin {
            fingerprint: u64::from(plain_text::checksum(text)?) << 32
                | u64::from(vocabulary.checksum()),
            vocabulary: vocabulary.len(),
        };
        let made = IdStore::of(path, origin, |sink| {
            for_each_word(text, |word| sink(&[vocabulary.id(word)]))
        });
        Ok(Self(made?))
    }

    /// The number of words, ends of lines included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A checksum of all ids.
    pub fn checksum(&self) -> u32 {
        self.0.checksum()
    }

    /// The ids from word `start` on, `count` of them.
    ///
    /// # Errors
    /// If there are not as many.
    pub fn words(&self, start: usize, count: usize) -> Result<Vec<u32>> {
        self.0.ids(start, count)
    }
}
