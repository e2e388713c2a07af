//! Writes a store of pairs, one after the other, with a few buffers in memory.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::Crc;

use super::layout::{Checked, HEAD, Head, width};
use super::write::{beside, put_in_place};
use crate::criteo::files::Partial;
use crate::error::{Error, Result};

/// A store under way: a file of ids, and one of where sentences end, until they are put together. Both are removed
/// if it is dropped before that.
pub(super) struct Writer {
    out: PathBuf,
    ids: Part,
    places: Part,
    head: Head,
    checked: Checked,
    crc: Crc,
}

/// A file under a temporary name.
struct Part {
    file: BufWriter<File>,
    partial: Partial,
}

impl Part {
    fn new(path: PathBuf) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(&path).map_err(|e| Error::io(&path, e))?;
        Ok(Self {
            file: BufWriter::with_capacity(1 << 16, file),
            partial: Partial::new(path),
        })
    }
}

impl Writer {
    pub(super) fn new(out: &Path, fingerprint: u64, vocabularies: [u32; 2]) -> Result<Self> {
        let mut writer = Self {
            out: out.to_path_buf(),
            ids: Part::new(beside(out, ".partial"))?,
            places: Part::new(beside(out, ".places.partial"))?,
            head: Head {
                width: width(vocabularies),
                pairs: 0,
                tokens: 0,
                fingerprint,
                vocabularies,
                content: 0,
            },
            checked: Checked::new(vocabularies),
            crc: Crc::new(),
        };
        // The head comes when all is known.
        let begun = writer.ids.file.write_all(&[0; HEAD]);
        begun.map_err(|e| writer.ids.partial.failed(e))?;
        writer.note_place()?;
        Ok(writer)
    }

    pub(super) fn push(&mut self, source: &[u32], target: &[u32]) -> Result<()> {
        self.checked.check(source, target)?;
        for side in [source, target] {
            let bytes: Vec<u8> = match self.head.width {
                2 => side
                    .iter()
                    .flat_map(|id| (*id as u16).to_le_bytes())
                    .collect(),
                _ => side.iter().flat_map(|id| id.to_le_bytes()).collect(),
            };
            self.crc.update(&bytes);
            let written = self.ids.file.write_all(&bytes);
            written.map_err(|e| self.ids.partial.failed(e))?;
            self.head.tokens += side.len() as u64;
            self.note_place()?;
        }
        self.head.pairs += 1;
        Ok(())
    }

    /// Where a sentence ends and the next one begins.
    fn note_place(&mut self) -> Result<()> {
        let written = self.places.file.write_all(&self.head.tokens.to_le_bytes());
        written.map_err(|e| self.places.partial.failed(e))
    }

    /// Puts the file together, waits until it is on the disk, and gives it its name.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.head.pairs == 0 {
            return Err(Error::Empty {
                path: self.out.clone(),
                expected: "pairs that the filter keeps".to_string(),
            });
        }
        self.complete().map_err(|e| self.ids.partial.failed(e))?;
        put_in_place(&self.ids.partial, &self.out)
    }

    fn complete(&mut self) -> io::Result<()> {
        let end = HEAD as u64 + self.head.tokens * self.head.width as u64;
        let zeros = [0; 8];
        let missing = (end.next_multiple_of(8) - end) as usize;
        self.crc.update(&zeros[..missing]);
        self.ids.file.write_all(&zeros[..missing])?;
        self.places.file.flush()?;
        let mut places = self.places.file.get_ref();
        places.seek(SeekFrom::Start(0))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = places.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            self.crc.update(&buffer[..count]);
            self.ids.file.write_all(&buffer[..count])?;
        }
        self.head.content = self.crc.sum();
        self.ids.file.seek(SeekFrom::Start(0))?;
        self.ids.file.write_all(&self.head.encode())?;
        self.ids.file.flush()?;
        self.ids.file.get_ref().sync_all()
    }
}
