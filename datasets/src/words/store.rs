//! The ids of a text's words, in a file that is mapped into memory.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::Crc;
use memmap2::Mmap;

use super::layout::{HEAD, Head, checksum, unusable};
use super::{WordVocabulary, files, for_each_word};
use crate::criteo::files::Partial;
use crate::error::{Error, Result};
use crate::lock::FileLock;
use crate::translation::write::{beside, put_in_place};

/// A text's words as ids; clones share the memory.
///
/// The system reads what is asked for and keeps what fits. The file must not be changed while a store of it is open; a new
/// one in its place is fine.
#[derive(Debug, Clone)]
pub struct WordStore(Data);

#[derive(Debug, Clone)]
enum Data {
    File(Arc<Mmap>),
    Memory(Arc<Vec<u32>>),
}

impl WordStore {
    /// Of ids at hand.
    pub fn in_memory(ids: Vec<u32>) -> Self {
        Self(Data::Memory(Arc::new(ids)))
    }

    /// The words of a text, from the store `path`, which is made if it is not there. One that was made of another text or
    /// with another vocabulary is an error: what it was made of is told by checksums.
    ///
    /// # Errors
    /// If the text cannot be read or has no words, another process makes the store at this moment, the disk is full, or
    /// the store is damaged or another text's.
    pub fn of_file(text: &Path, vocabulary: &WordVocabulary, path: &Path) -> Result<Self> {
        let fingerprint = fingerprint(text, vocabulary)?;
        if !path.is_file() {
            let _lock = FileLock::claim(&beside(path, ".lock"), path)?;
            // Somebody may have made it meanwhile.
            if !path.is_file() {
                build(text, vocabulary, path, fingerprint)?;
            }
        }
        Self::open(path, fingerprint, vocabulary.len())
    }

    /// Reads it once, to check its sums and all ids.
    fn open(path: &Path, fingerprint: u64, words: usize) -> Result<Self> {
        let failed = |e| Error::io(path, e);
        let file = File::open(path).map_err(failed)?;
        // SAFETY: a file under its final name is written no more by this crate, and the documentation forbids it to
        // others.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        let head = Head::decode(path, &map)?;
        if (head.fingerprint, head.vocabulary as usize) != (fingerprint, words) {
            let got = "a store of another text, or of another vocabulary's words".to_string();
            return Err(unusable(path, got, "one of this text"));
        }
        let ids = &map[HEAD..];
        if checksum(ids) != head.content {
            return Err(unusable(
                path,
                "damaged words".into(),
                "ids with the right sum",
            ));
        }
        let mut ids = ids
            .as_chunks::<4>()
            .0
            .iter()
            .map(|id| u32::from_le_bytes(*id));
        if let Some(id) = ids.find(|id| *id >= head.vocabulary) {
            let got = format!("word {id} of {words}");
            return Err(unusable(path, got, "ids of the vocabulary"));
        }
        Ok(Self(Data::File(Arc::new(map))))
    }

    /// The number of words, ends of lines included.
    pub fn len(&self) -> usize {
        match &self.0 {
            Data::File(map) => (map.len() - HEAD) / 4,
            Data::Memory(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A checksum of all ids.
    pub fn checksum(&self) -> u32 {
        match &self.0 {
            Data::File(map) => checksum(&map[HEAD..]),
            Data::Memory(ids) => {
                let mut crc = Crc::new();
                ids.iter().for_each(|id| crc.update(&id.to_le_bytes()));
                crc.sum()
            }
        }
    }

    /// The ids from word `start` on, `count` of them.
    ///
    /// # Errors
    /// If there are not as many.
    pub fn words(&self, start: usize, count: usize) -> Result<Vec<u32>> {
        let words = start.checked_add(count).filter(|end| *end <= self.len());
        let Some(end) = words else {
            return Err(Error::Batch {
                reason: format!(
                    "words {start} .. {start} + {count} of a text of {}",
                    self.len()
                ),
            });
        };
        Ok(match &self.0 {
            Data::Memory(ids) => ids[start..end].to_vec(),
            Data::File(map) => {
                let bytes = map[HEAD + 4 * start..HEAD + 4 * end].as_chunks::<4>().0;
                bytes.iter().map(|id| u32::from_le_bytes(*id)).collect()
            }
        })
    }
}

/// Of the text's bytes, as they are on the disk, and of all words.
fn fingerprint(text: &Path, vocabulary: &WordVocabulary) -> Result<u64> {
    let (mut crc, mut bytes) = (Crc::new(), vec![0; 1 << 16]);
    for path in files(text)? {
        let failed = |e| Error::io(&path, e);
        let mut file = File::open(&path).map_err(failed)?;
        loop {
            match file.read(&mut bytes).map_err(failed)? {
                0 => break,
                count => crc.update(&bytes[..count]),
            }
        }
    }
    let mut words = Crc::new();
    for word in vocabulary.words() {
        words.update(word.as_bytes());
        words.update(b"\n");
    }
    Ok(u64::from(crc.sum()) << 32 | u64::from(words.sum()))
}

/// Under a temporary name, until it is whole and on the disk.
fn build(text: &Path, vocabulary: &WordVocabulary, path: &Path, fingerprint: u64) -> Result<()> {
    let partial = Partial::new(beside(path, ".partial"));
    let failed = |e| partial.failed(e);
    let file = File::create(partial.path()).map_err(failed)?;
    let mut file = BufWriter::with_capacity(1 << 16, file);
    // The head comes when all is known.
    file.write_all(&[0; HEAD]).map_err(failed)?;
    let (mut crc, mut count) = (Crc::new(), 0);
    for_each_word(text, |word| {
        let id = vocabulary.id(word).to_le_bytes();
        crc.update(&id);
        count += 1;
        file.write_all(&id).map_err(failed)
    })?;
    let head = Head {
        count,
        fingerprint,
        vocabulary: vocabulary.len() as u32,
        content: crc.sum(),
    };
    let mut file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    let mut end = || {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&head.encode())?;
        file.sync_all()
    };
    end().map_err(failed)?;
    put_in_place(&partial, path)
}
