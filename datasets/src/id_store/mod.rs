//! The ids of a text's words or pieces, in a file that is mapped into memory.

mod layout;

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::Crc;
use memmap2::Mmap;

use crate::criteo::files::Partial;
use crate::error::{Error, Result};
use crate::lock::FileLock;
use crate::translation::write::{beside, put_in_place};
use layout::{HEAD, Head, checksum, unusable};

/// Where ids go while a store is made.
pub(crate) type Sink<'a> = dyn FnMut(&[u32]) -> Result<()> + 'a;

/// What a store is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// A checksum of everything that the ids depend on.
    pub fingerprint: u64,
    /// Ids are below it.
    pub vocabulary: usize,
}

/// A text as ids; clones share the memory.
///
/// The system reads what is asked for and keeps what fits. The file must not be changed while a store of it is open; a new
/// one in its place is fine.
#[derive(Debug, Clone)]
pub(crate) struct IdStore {
    data: Data,
    /// The CRC-32 of all ids.
    sum: u32,
}

#[derive(Debug, Clone)]
enum Data {
    File(Arc<Mmap>),
    Memory(Arc<Vec<u32>>),
}

impl IdStore {
    /// Of ids at hand.
    pub fn in_memory(ids: Vec<u32>) -> Self {
        let mut crc = Crc::new();
        ids.iter().for_each(|id| crc.update(&id.to_le_bytes()));
        Self {
            data: Data::Memory(Arc::new(ids)),
            sum: crc.sum(),
        }
    }

    /// The store `path`, which is made by `fill` if it is not there. One of another origin is an error.
    pub fn of(
        path: &Path,
        origin: Origin,
        fill: impl FnOnce(&mut Sink<'_>) -> Result<()>,
    ) -> Result<Self> {
        if !path.is_file() {
            let _lock = FileLock::claim(&beside(path, ".lock"), path)?;
            // Somebody may have made it meanwhile.
            if !path.is_file() {
                build(path, origin, fill)?;
            }
        }
        Self::open(path, origin)
    }

    /// Reads it once, to check its sums and all ids.
    fn open(path: &Path, origin: Origin) -> Result<Self> {
        let failed = |e| Error::io(path, e);
        let file = File::open(path).map_err(failed)?;
        // SAFETY: a file under its final name is written no more by this crate, and the documentation forbids it to
        // others.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        let head = Head::decode(path, &map)?;
        if (head.fingerprint, head.vocabulary as usize) != (origin.fingerprint, origin.vocabulary) {
            let got = "a store of another text, or with another vocabulary".to_string();
            return Err(unusable(path, got, "one of this text"));
        }
        let ids = &map[HEAD..];
        if checksum(ids) != head.content {
            return Err(unusable(
                path,
                "damaged ids".into(),
                "ids with the right sum",
            ));
        }
        let mut ids = ids
            .as_chunks::<4>()
            .0
            .iter()
            .map(|id| u32::from_le_bytes(*id));
        if let Some(id) = ids.find(|id| *id >= head.vocabulary) {
            let got = format!("id {id} of {}", origin.vocabulary);
            return Err(unusable(path, got, "ids of the vocabulary"));
        }
        Ok(Self {
            sum: head.content,
            data: Data::File(Arc::new(map)),
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::File(map) => (map.len() - HEAD) / 4,
            Data::Memory(ids) => ids.len(),
        }
    }

    /// A checksum of all ids.
    pub fn checksum(&self) -> u32 {
        self.sum
    }

    /// The ids from `start` on, `count` of them.
    ///
    /// # Errors
    /// If there are not as many.
    pub fn ids(&self, start: usize, count: usize) -> Result<Vec<u32>> {
        let words = start.checked_add(count).filter(|end| *end <= self.len());
        let Some(end) = words else {
            return Err(Error::Batch {
                reason: format!(
                    "ids {start} .. {start} + {count} of a text of {}",
                    self.len()
                ),
            });
        };
        Ok(match &self.data {
            Data::Memory(ids) => ids[start..end].to_vec(),
            Data::File(map) => {
                let bytes = map[HEAD + 4 * start..HEAD + 4 * end].as_chunks::<4>().0;
                bytes.iter().map(|id| u32::from_le_bytes(*id)).collect()
            }
        })
    }
}

/// Under a temporary name, until it is whole and on the disk.
fn build(
    path: &Path,
    origin: Origin,
    fill: impl FnOnce(&mut Sink<'_>) -> Result<()>,
) -> Result<()> {
    let partial = Partial::new(beside(path, ".partial"));
    let failed = |e| partial.failed(e);
    let file = File::create(partial.path()).map_err(failed)?;
    let mut file = BufWriter::with_capacity(1 << 16, file);
    // The head comes when all is known.
    file.write_all(&[0; HEAD]).map_err(failed)?;
    let (mut crc, mut count) = (Crc::new(), 0);
    fill(&mut |ids: &[u32]| {
        for id in ids {
            let id = id.to_le_bytes();
            crc.update(&id);
            file.write_all(&id).map_err(failed)?;
        }
        count += ids.len() as u64;
        Ok(())
    })?;
    let head = Head {
        count,
        fingerprint: origin.fingerprint,
        vocabulary: origin.vocabulary as u32,
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
