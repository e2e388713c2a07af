//! The token ids of pairs, in a file that is mapped into memory.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::layout::{Checked, HEAD, Head, REBUILD};
use super::texts::PairIds;
use super::token_file;
use super::write::beside;
use super::writer::Writer;
use crate::error::{Error, Result};
use crate::lock::FileLock;

/// Token ids of sentences and their translations, both with `</s>` at the end; clones share the memory.
///
/// The system reads what is asked for and keeps what fits. The file must not be changed while a store of it is
/// open; a new one in its place is fine.
#[derive(Debug, Clone)]
pub struct PairStore {
    pairs: usize,
    vocabularies: [u32; 2],
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    File {
        map: Arc<Mmap>,
        head: Head,
        places: usize,
    },
    Memory(Arc<Vec<PairIds>>),
}

impl PairStore {
    /// A store in memory, for small data: source and target ids, all with the id of `</s>` at the end.
    ///
    /// # Errors
    /// If there are no pairs, a side has no ids, or not all of a side end with the same id.
    pub fn in_memory(pairs: Vec<PairIds>) -> Result<Self> {
        let mut checked = Checked::new([u32::MAX; 2]);
        let mut vocabularies = [0; 2];
        for (source, target) in &pairs {
            checked.check(source, target)?;
            for (size, ids) in vocabularies.iter_mut().zip([source, target]) {
                let largest = ids.iter().copied().max().unwrap_or(0);
                *size = (*size).max(largest + 1);
            }
        }
        if pairs.is_empty() {
            return Err(Error::Batch {
                reason: "a store of no pairs; does the filter keep any?".to_string(),
            });
        }
        Ok(Self {
            pairs: pairs.len(),
            vocabularies,
            data: Data::Memory(Arc::new(pairs)),
        })
    }

    /// Opens the file `path`, which must have been made of what has this `fingerprint`, and reads it once to check
    /// its sums, all places and all ids.
    ///
    /// # Errors
    /// If the file cannot be read, is no store, is of another version, was cut off or changed, or was made of
    /// something else: then it is to be deleted, or built again.
    pub fn open(path: &Path, fingerprint: u64) -> Result<Self> {
        let failed = |e| Error::io(path, e);
        let file = File::open(path).map_err(failed)?;
        // SAFETY: a file under its final name is written no more by this crate, and the documentation forbids it
        // to others.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        let head = Head::decode(path, &map)?;
        if head.fingerprint != fingerprint {
            let got = format!(
                "a store that was made of something else (fingerprint {:016x})",
                head.fingerprint
            );
            let expected =
                format!("one of this text, these subwords and this filter ({fingerprint:016x})");
            return Err(token_file(path, got, expected, REBUILD));
        }
        let places = head
            .places()
            .and_then(|places| usize::try_from(places).ok());
        let store = Self {
            pairs: head.pairs as usize,
            vocabularies: head.vocabularies,
            data: Data::File {
                places: places.unwrap_or(map.len()),
                map: Arc::new(map),
                head,
            },
        };
        store.check(path, head)?;
        Ok(store)
    }

    /// Builds the file `path` and opens it. Memory: one pair and some buffers.
    ///
    /// It is under way in files with `.partial` behind its name, and gets its name when it is whole and on the disk;
    /// an error or a stop leaves none, or the one that was there. A file with `.lock` behind the name keeps a second
    /// build of it out as long as one runs; it is empty and stays.
    ///
    /// `vocabularies` are the numbers of ids of source and target: ids have 16 bits where both fit. `fingerprint`
    /// tells what it is made of, see [`PairTexts::fingerprint`](super::PairTexts::fingerprint).
    ///
    /// # Errors
    /// If another build is running, a pair is an error, there are none, a side has no ids, one that is not in its
    /// vocabulary, or another last one than the first pair, or the disk is full.
    pub fn build(
        path: &Path,
        fingerprint: u64,
        vocabularies: (usize, usize),
        pairs: impl IntoIterator<Item = Result<PairIds>>,
    ) -> Result<Self> {
        let _lock = FileLock::claim(&beside(path, ".lock"), path)?;
        let sizes =
            [vocabularies.0, vocabularies.1].map(|size| u32::try_from(size).unwrap_or(u32::MAX));
        let mut writer = Writer::new(path, fingerprint, sizes)?;
        for pair in pairs {
            let (source, target) = pair?;
            writer.push(&source, &target)?;
        }
        writer.finish()?;
        Self::open(path, fingerprint)
    }

    /// Looks at all places and ids of a file with the right sums: who made it may have been wrong.
    fn check(&self, path: &Path, head: Head) -> Result<()> {
        let wrong = |got: String, expected: String| Err(token_file(path, got, expected, REBUILD));
        let mut checked = Checked::new(head.vocabularies);
        let mut end = 0;
        for pair in 0..self.pairs {
            let ranges = [2 * pair, 2 * pair + 1].map(|sentence| self.range(sentence));
            for (start, stop) in ranges {
                if start != end || stop < start || stop > head.tokens {
                    return wrong(
                        format!("a sentence of pair {pair} from id {start} to {stop}"),
                        format!("one from {end} on"),
                    );
                }
                end = stop;
            }
            let sides = self.source(pair).zip(self.target(pair));
            let (source, target) = sides.unwrap_or_default();
            if let Err(error) = checked.check(&source, &target) {
                return wrong(error.to_string(), "ids as they are written".to_string());
            }
        }
        match end == head.tokens {
            true => Ok(()),
            false => wrong(
                format!("{} ids", head.tokens),
                format!("{end}, those of its sentences"),
            ),
        }
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.pairs
    }

    /// Whether there are no pairs; never so.
    pub fn is_empty(&self) -> bool {
        self.pairs == 0
    }

    /// What the ids of source and target are below: those of the vocabularies that a file was built with, the largest
    /// id plus one in memory. A model must have as many embeddings.
    pub fn vocabularies(&self) -> (usize, usize) {
        (self.vocabularies[0] as usize, self.vocabularies[1] as usize)
    }

    /// The ids of a sentence, with `</s>` at the end; `None` if there is no such pair.
    pub fn source(&self, pair: usize) -> Option<Vec<u32>> {
        match &self.data {
            Data::Memory(pairs) => Some(pairs.get(pair)?.0.clone()),
            Data::File { .. } if pair >= self.pairs => None,
            Data::File { .. } => self.ids(2 * pair),
        }
    }

    /// The ids of a translation, with `</s>` at the end; `None` if there is no such pair.
    pub fn target(&self, pair: usize) -> Option<Vec<u32>> {
        match &self.data {
            Data::Memory(pairs) => Some(pairs.get(pair)?.1.clone()),
            Data::File { .. } if pair >= self.pairs => None,
            Data::File { .. } => self.ids(2 * pair + 1),
        }
    }

    /// The number of ids of each source and target, `</s>` included.
    pub fn lengths(&self) -> Vec<(usize, usize)> {
        let length = |sentence| {
            let (start, stop) = self.range(sentence);
            stop.saturating_sub(start) as usize
        };
        match &self.data {
            Data::Memory(pairs) => pairs
                .iter()
                .map(|(source, target)| (source.len(), target.len()))
                .collect(),
            Data::File { .. } => (0..self.pairs)
                .map(|pair| (length(2 * pair), length(2 * pair + 1)))
                .collect(),
        }
    }

    /// Where a sentence of a file begins and ends, in ids; `(0, 0)` if it is not there.
    fn range(&self, sentence: usize) -> (u64, u64) {
        let Data::File { map, places, .. } = &self.data else {
            return (0, 0);
        };
        let place = |sentence: usize| {
            let bytes = map.get(places + 8 * sentence..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        };
        place(sentence).zip(place(sentence + 1)).unwrap_or((0, 0))
    }

    fn ids(&self, sentence: usize) -> Option<Vec<u32>> {
        let Data::File { map, head, .. } = &self.data else {
            return None;
        };
        let (start, stop) = self.range(sentence);
        let bytes =
            map.get(HEAD + start as usize * head.width..HEAD + stop as usize * head.width)?;
        Some(match head.width {
            2 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|id| u32::from(u16::from_le_bytes(*id)))
                .collect(),
            _ => bytes
                .as_chunks()
                .0
                .iter()
                .map(|id| u32::from_le_bytes(*id))
                .collect(),
        })
    }
}
