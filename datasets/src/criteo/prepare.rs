//! From text to a store: a pass over the text, and one over the records if values can be rare.
//! Neither keeps rows in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use memmap2::{MmapMut, MmapOptions};
use rayon::prelude::*;

use super::appearances::{Appearances, Numbered};
use super::chunk::Parsed;
use super::column::Column;
use super::files::{Partial, describe, refuse_source, sync_folder};
use super::header::{self, SKIPPED_SHOWN, Skipped, Summary};
use super::record::{self, RECORD};
use super::text::{Chunk, Chunks};
use super::vocabulary::{self, Vocabularies, beside, with_ending};
use super::{CATEGORIES, Malformed, Phase, Preprocessing, Progress, Store, file_name};
use crate::error::{Error, Place, Result};

/// Chunks that are parsed at once, for each thread.
const CHUNKS_A_THREAD: usize = 4;
/// Records that are mapped into memory at once in the second pass.
const WINDOW: usize = 1 << 18;
/// Records of which a thread does one table after the other: they stay in its cache.
const BLOCK: usize = 1 << 10;

/// Makes the store `out` of click logs, plain or gzipped, one after the other, and its vocabulary
/// file, which is named as the store with `.vocabulary` behind, unless ids are hashes.
///
/// The text is read once, in parallel by chunks; the result does not depend on the number of
/// threads. Memory: the vocabularies and some chunks of a few MiB. Disk: 160 bytes a row. The store
/// is under way in a file with `.partial` behind its name and gets its name when it is whole, so
/// that an interruption leaves none; the next call begins anew. Two preparations of the same store
/// must not run at once.
///
/// # Errors
/// If settings are out of range, a file cannot be read or written, a gzip file is cut off, a line
/// breaks the format and is not to be skipped, or there are no rows.
pub fn prepare(
    sources: &[PathBuf],
    out: &Path,
    preprocessing: &Preprocessing,
    progress: impl FnMut(Progress),
) -> Result<Store> {
    let ids = match preprocessing.hash_modulo {
        Some(modulo) => Ids::Modulo(modulo),
        None => Ids::Later,
    };
    Preparation::start(sources, out, preprocessing, ids)?.run(progress)
}

/// Makes the store `out` of click logs, as [`prepare`] does, with the ids of an earlier store's
/// `vocabularies`: for files of tests and of later days. No vocabulary file is written.
///
/// # Errors
/// As [`prepare`]; and if `preprocessing` asks for hashes or another `minimum_count` than that of
/// the vocabularies.
pub fn prepare_with(
    sources: &[PathBuf],
    out: &Path,
    preprocessing: &Preprocessing,
    vocabularies: &Vocabularies,
    progress: impl FnMut(Progress),
) -> Result<Store> {
    preprocessing.check_with(vocabularies.minimum_count())?;
    Preparation::start(sources, out, preprocessing, Ids::Known(vocabularies))?.run(progress)
}

/// Where ids come from.
#[derive(Clone, Copy)]
enum Ids<'a> {
    /// Values are numbered as they come.
    Later,
    /// The value modulo this number.
    Modulo(u32),
    /// Vocabularies made before.
    Known(&'a Vocabularies),
}

/// A store under way.
struct Preparation<'a> {
    sources: &'a [PathBuf],
    out: &'a Path,
    ids: Ids<'a>,
    partial: Partial,
    file: File,
    /// Where the records begin.
    offset: usize,
    bytes_in_all: u64,
    counted: Vec<Appearances>,
    /// Chunks that have ids and are to be written.
    numbered: Vec<Parsed>,
    /// Chunks that have been written: their memory serves again.
    spare: Vec<Parsed>,
    /// The vocabulary file that waits for its name.
    vocabulary: Option<(Partial, PathBuf)>,
    summary: Summary,
}

impl<'a> Preparation<'a> {
    fn start(
        sources: &'a [PathBuf],
        out: &'a Path,
        preprocessing: &Preprocessing,
        ids: Ids<'a>,
    ) -> Result<Self> {
        preprocessing.check()?;
        let files = describe(sources)?;
        refuse_source(sources, out)?;
        let offset = header::reserved(&files);
        let partial = Partial(with_ending(out, ".partial"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(&partial.0).map_err(|e| partial.failed(e))?;
        Ok(Self {
            sources,
            out,
            ids,
            partial,
            file,
            offset,
            bytes_in_all: files.iter().map(|file| file.bytes).sum(),
            counted: (0..CATEGORIES)
                .map(|_| Appearances::new(preprocessing.minimum_count))
                .collect(),
            numbered: Vec::new(),
            spare: Vec::new(),
            vocabulary: None,
            summary: Summary {
                preprocessing: *preprocessing,
                rows: 0,
                clicks: 0,
                table_sizes: Vec::new(),
                sources: files,
                skipped: Skipped::default(),
                vocabulary: None,
            },
        })
    }

    fn run(mut self, mut progress: impl FnMut(Progress)) -> Result<Store> {
        // Zeros in the place of the head: no reader takes the file for a store.
        let zeros = vec![0; self.offset];
        self.file
            .write_all(&zeros)
            .map_err(|e| self.partial.failed(e))?;
        self.read(&mut progress)?;
        if self.summary.rows == 0 {
            return Err(Error::Empty {
                path: self.sources[0].clone(),
                expected: "lines of a label, 13 integers and 26 categorical values".to_string(),
            });
        }
        self.settle(&mut progress)?;
        self.finish()?;
        Store::open(self.out)
    }

    /// The first pass: a thread reads ahead, all others parse.
    fn read(&mut self, progress: &mut impl FnMut(Progress)) -> Result<()> {
        let mut chunks = Chunks::new(self.sources);
        let read = chunks.read();
        let group = CHUNKS_A_THREAD * rayon::current_num_threads();
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(1);
            let work = move || loop {
                let group = chunks.group(group);
                let last = group.as_ref().map_or(true, Vec::is_empty);
                // Sending fails once nobody listens.
                if sender.send(group).is_err() || last {
                    return;
                }
            };
            let thread = std::thread::Builder::new().name("click log".to_string());
            let spawned = thread.spawn_scoped(scope, work);
            spawned.map_err(|e| self.partial.failed(e))?;
            for group in receiver {
                self.take(&group?)?;
                progress(Progress {
                    phase: Phase::Reading,
                    bytes: read.load(Ordering::Relaxed),
                    bytes_in_all: self.bytes_in_all,
                    rows: self.summary.rows,
                });
            }
            write(&mut self.file, &mut self.numbered).map_err(|e| self.partial.failed(e))
        })
    }

    /// Parses chunks at once, while those before are written, and numbers their values.
    fn take(&mut self, group: &[Chunk]) -> Result<()> {
        let mut parsed = std::mem::take(&mut self.spare);
        parsed.resize_with(group.len(), Parsed::default);
        let preprocessing = self.summary.preprocessing;
        let parse = || {
            let each = parsed.par_iter_mut().zip(group);
            each.for_each(|(into, chunk)| into.read(&chunk.bytes, chunk.lines, &preprocessing));
        };
        let ((), written) = rayon::join(parse, || write(&mut self.file, &mut self.numbered));
        written.map_err(|e| self.partial.failed(e))?;
        for (chunk, parsed) in group.iter().zip(&parsed) {
            self.faults(chunk, parsed)?;
            self.summary.rows += parsed.records().len() as u64;
            self.summary.clicks += parsed.clicks;
        }
        self.number(&mut parsed)?;
        self.spare = std::mem::replace(&mut self.numbered, parsed);
        Ok(())
    }

    /// Puts ids in the place of values, or positions if it is not known yet which are rare: at once
    /// for all tables, for each in the order of the rows.
    fn number(&mut self, parsed: &mut [Parsed]) -> Result<()> {
        let mut tables: Vec<Vec<Column>> = (0..CATEGORIES).map(|_| Vec::new()).collect();
        for chunk in parsed {
            for (table, column) in tables.iter_mut().zip(chunk.columns.each()) {
                table.push(column);
            }
        }
        let tables = tables.into_par_iter().enumerate();
        match self.ids {
            Ids::Later => {
                let each = self.counted.par_iter_mut().zip(tables);
                each.try_for_each(|(counted, (_, columns))| {
                    columns.into_iter().for_each(|c| counted.number(c));
                    counted.check()
                })
            }
            Ids::Modulo(modulo) => {
                let values = tables
                    .flat_map_iter(|(_, columns)| columns)
                    .map(Column::values);
                values.for_each(|values| values.iter_mut().for_each(|value| *value %= modulo));
                Ok(())
            }
            Ids::Known(vocabularies) => {
                tables.for_each(|(table, columns)| {
                    columns
                        .into_iter()
                        .for_each(|c| vocabularies.number(table, c));
                });
                Ok(())
            }
        }
    }

    /// Refuses or notes the lines that broke the format.
    fn faults(&mut self, chunk: &Chunk, parsed: &Parsed) -> Result<()> {
        let path = &self.sources[chunk.source];
        let skipped = &mut self.summary.skipped;
        skipped.count += parsed.faults;
        for (number, fault) in &parsed.first_faults {
            let line = chunk.lines_before + number + 1;
            if self.summary.preprocessing.malformed == Malformed::Refuse {
                return Err(Error::ClickLine {
                    path: path.clone(),
                    place: Place::Line(line),
                    expected: fault.expected.clone(),
                    got: fault.got.clone(),
                });
            }
            if skipped.first.len() < SKIPPED_SHOWN {
                skipped.first.push((file_name(path), line));
            }
        }
        Ok(())
    }

    /// Writes the vocabularies and, if values can be rare, replaces positions by ids.
    fn settle(&mut self, progress: &mut impl FnMut(Progress)) -> Result<()> {
        match self.ids {
            Ids::Modulo(modulo) => self.summary.table_sizes = vec![modulo as usize; CATEGORIES],
            Ids::Known(vocabularies) => {
                self.summary.table_sizes = vocabularies.sizes();
                self.summary.vocabulary = Some(vocabularies.file.clone());
            }
            Ids::Later => {
                let minimum_count = self.summary.preprocessing.minimum_count;
                let path = beside(self.out);
                let partial = Partial(with_ending(&path, ".partial"));
                let name = file_name(&path);
                let file = vocabulary::create(&partial.0, name, &self.counted, minimum_count)?;
                self.vocabulary = Some((partial, path));
                self.summary.vocabulary = Some(file);
                let counted = std::mem::take(&mut self.counted).into_par_iter();
                let numbered: Vec<Numbered> =
                    counted.map(|table| table.numbered(minimum_count)).collect();
                let size = |table: &Numbered| vocabulary::size(table.next, minimum_count);
                self.summary.table_sizes = numbered.iter().map(size).collect();
                self.replace(&numbered, progress)?;
            }
        }
        Ok(())
    }

    /// The second pass: ids in the place of positions.
    fn replace(
        &mut self,
        numbered: &[Numbered],
        progress: &mut impl FnMut(Progress),
    ) -> Result<()> {
        let ids: Option<Vec<&[u32]>> = numbered.iter().map(|table| table.ids.as_deref()).collect();
        let rows = self.summary.rows as usize;
        for start in (0..rows).step_by(WINDOW) {
            let count = WINDOW.min(rows - start);
            if let Some(ids) = &ids {
                let mut map = self.window(start, count)?;
                let records = map.as_chunks_mut::<RECORD>().0;
                records.par_chunks_mut(BLOCK).for_each(|block| {
                    for (table, ids) in ids.iter().enumerate() {
                        record::replace_ids(block, table, |position| ids[position as usize]);
                    }
                });
            }
            progress(Progress {
                phase: Phase::Numbering,
                bytes: self.bytes_in_all,
                bytes_in_all: self.bytes_in_all,
                rows: (start + count) as u64,
            });
        }
        Ok(())
    }

    /// Some records of the file as memory.
    fn window(&self, start: usize, count: usize) -> Result<MmapMut> {
        let mut options = MmapOptions::new();
        let at = self.offset + start * RECORD;
        options.offset(at as u64).len(count * RECORD);
        // SAFETY: the file is this preparation's own, under a name that nobody else is to use, and
        // stays as long as it is while the map lives.
        let map = unsafe { options.map_mut(&self.file) };
        map.map_err(|e| self.partial.failed(e))
    }

    /// Writes the head and gives the files their names, the store last.
    fn finish(&mut self) -> Result<()> {
        let head = header::encode(&self.summary, self.offset, self.out)?;
        // Everything else first: with the head the file is whole.
        self.file
            .sync_all()
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(&head))
            .and_then(|()| self.file.sync_all())
            .map_err(|e| self.partial.failed(e))?;
        if let Some((partial, path)) = &self.vocabulary {
            fs::rename(&partial.0, path).map_err(|e| Error::io(path, e))?;
        }
        fs::rename(&self.partial.0, self.out).map_err(|e| Error::io(self.out, e))?;
        sync_folder(self.out);
        Ok(())
    }
}

/// Completes chunks and appends them to a file.
fn write(file: &mut File, numbered: &mut [Parsed]) -> std::io::Result<()> {
    numbered.par_iter_mut().for_each(Parsed::complete);
    let mut chunks = numbered.iter();
    chunks.try_for_each(|chunk| file.write_all(chunk.records().as_flattened()))
}
