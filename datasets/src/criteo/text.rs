//! Click logs as chunks of whole lines, plain or gzipped.

use std::fs::File;
use std::io::{BufReader, Chain, Cursor, Read, Seek, SeekFrom, sink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Bytes of text in a chunk, about.
const CHUNK: usize = 1 << 20;
/// What gzip files begin with.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// What some editors begin a text with; it is no part of it.
const BYTE_ORDER_MARK: &[u8; 3] = b"\xef\xbb\xbf";

/// A place between two lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Position {
    /// The number of the file among the sources.
    pub(super) source: usize,
    /// Bytes of its text, unpacked, before the place.
    pub(super) bytes: u64,
    /// Lines before the place.
    pub(super) lines: usize,
}

/// Some whole lines of one file.
pub(super) struct Chunk {
    /// The number of the file among the sources.
    pub(super) source: usize,
    /// Lines of the file before this chunk.
    pub(super) lines_before: usize,
    /// Lines of the chunk, the last one even without a line end.
    pub(super) lines: usize,
    /// Where it ends.
    pub(super) end: Position,
    /// The lines.
    pub(super) bytes: Vec<u8>,
}

/// The chunks of several files, one after the other.
pub(super) struct Chunks<'a> {
    sources: &'a [PathBuf],
    next_source: usize,
    /// Where in that source to begin.
    from: Position,
    open: Option<Open>,
    read: Arc<AtomicU64>,
}

/// A file under way.
struct Open {
    reader: Box<dyn Read + Send>,
    gzip: bool,
    /// The beginning of a line whose end comes later.
    rest: Vec<u8>,
    /// What has been handed out.
    bytes: u64,
    lines: usize,
}

impl<'a> Chunks<'a> {
    /// Those from a position on, where `read` bytes of files before its own need no reading.
    pub(super) fn new(sources: &'a [PathBuf], from: Position, read: u64) -> Self {
        Self {
            sources,
            next_source: from.source,
            from,
            open: None,
            read: Arc::new(AtomicU64::new(read)),
        }
    }

    /// Bytes of the files that have been read, as they lie on the disk.
    pub(super) fn read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    /// The next chunks, at most `count`; none at the end.
    pub(super) fn group(&mut self, count: usize) -> Result<Vec<Chunk>> {
        let mut group = Vec::with_capacity(count);
        while group.len() < count {
            match self.next()? {
                Some(chunk) => group.push(chunk),
                None => break,
            }
        }
        Ok(group)
    }

    fn next(&mut self) -> Result<Option<Chunk>> {
        loop {
            if self.open.is_none() {
                let Some(path) = self.sources.get(self.next_source) else {
                    return Ok(None);
                };
                self.open = Some(Open::new(path, std::mem::take(&mut self.from), &self.read)?);
                self.next_source += 1;
            }
            let source = self.next_source - 1;
            let Some(open) = self.open.as_mut() else {
                continue;
            };
            let (lines_before, bytes) = (open.lines, open.next(&self.sources[source])?);
            if !bytes.is_empty() {
                let unended = usize::from(bytes.last() != Some(&b'\n'));
                return Ok(Some(Chunk {
                    source,
                    lines_before,
                    lines: open.lines - lines_before + unended,
                    end: Position {
                        source,
                        bytes: open.bytes,
                        lines: open.lines,
                    },
                    bytes,
                }));
            }
            self.open = None;
        }
    }
}

impl Open {
    /// Opens a file and skips what lies before a position in it.
    fn new(path: &Path, from: Position, read: &Arc<AtomicU64>) -> Result<Self> {
        let failed = |e| Error::io(path, e);
        let file = File::open(path).map_err(failed)?;
        let mut counted = Counted {
            file,
            read: Arc::clone(read),
        };
        let mut start = Vec::new();
        let begun = counted.by_ref().take(2).read_to_end(&mut start);
        begun.map_err(failed)?;
        let gzip = start == GZIP;
        if !gzip && from.bytes > 0 {
            counted.seek(from.bytes).map_err(failed)?;
            start.clear();
        }
        let whole: Chain<Cursor<Vec<u8>>, Counted> = Cursor::new(start).chain(counted);
        let reader: Box<dyn Read + Send> = if gzip {
            Box::new(MultiGzDecoder::new(BufReader::with_capacity(
                1 << 18,
                whole,
            )))
        } else {
            Box::new(whole)
        };
        let mut open = Self {
            reader,
            gzip,
            rest: Vec::new(),
            bytes: from.bytes,
            lines: from.lines,
        };
        if gzip {
            // There is no way to what is packed but through what lies before.
            let before = std::io::copy(&mut open.reader.by_ref().take(from.bytes), &mut sink());
            before.map_err(|e| open.failed(path, &[], e))?;
        }
        Ok(open)
    }

    /// The next whole lines, the file's last one even without a line end; empty at its end.
    fn next(&mut self, path: &Path) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(CHUNK + self.rest.len());
        bytes.append(&mut self.rest);
        let (begins, begun) = (self.bytes == 0, bytes.len());
        let limit = CHUNK as u64;
        if let Err(source) = self.reader.by_ref().take(limit).read_to_end(&mut bytes) {
            return Err(self.failed(path, &bytes, source));
        }
        let ended = bytes.len() - begun < CHUNK;
        if !ended {
            match bytes.iter().rposition(|&byte| byte == b'\n') {
                Some(last) => self.rest = bytes.split_off(last + 1),
                None => self.drop_rest_of_line(path, &mut bytes)?,
            }
        }
        if begins && bytes.starts_with(BYTE_ORDER_MARK) {
            self.bytes += BYTE_ORDER_MARK.len() as u64;
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        self.bytes += bytes.len() as u64;
        self.lines += line_ends(&bytes);
        Ok(bytes)
    }

    /// Goes on behind a line so long that it can be no row, wherever it lies: its beginning, which is `bytes`, stands for
    /// it.
    fn drop_rest_of_line(&mut self, path: &Path, bytes: &mut Vec<u8>) -> Result<()> {
        loop {
            let mut block = Vec::new();
            let mut portion = self.reader.by_ref().take(CHUNK as u64);
            let read = portion.read_to_end(&mut block);
            if let Err(source) = read {
                return Err(self.failed(path, bytes, source));
            }
            if block.is_empty() {
                return Ok(());
            }
            if let Some(end) = block.iter().position(|&byte| byte == b'\n') {
                self.bytes += end as u64;
                self.rest = block.split_off(end + 1);
                bytes.push(b'\n');
                return Ok(());
            }
            self.bytes += block.len() as u64;
        }
    }

    fn failed(&self, path: &Path, bytes: &[u8], source: std::io::Error) -> Error {
        if !self.gzip {
            return Error::io(path, source);
        }
        Error::Gzip {
            path: path.to_path_buf(),
            line: self.lines + line_ends(bytes),
            source,
        }
    }
}

fn line_ends(bytes: &[u8]) -> usize {
    // So many that a sum fits in a byte: sixteen and more sums are made at once.
    let blocks = bytes.chunks(255);
    let ends = |block: &[u8]| {
        block
            .iter()
            .map(|&byte| u8::from(byte == b'\n'))
            .sum::<u8>()
    };
    blocks.map(|block| usize::from(ends(block))).sum()
}

/// A file that counts what is read from it.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Counted {
    /// Goes to a place, as if all before it had been read.
    fn seek(&mut self, place: u64) -> std::io::Result<()> {
        let now = self.file.stream_position()?;
        self.file.seek(SeekFrom::Start(place))?;
        self.read
            .fetch_add(place.saturating_sub(now), Ordering::Relaxed);
        Ok(())
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}
