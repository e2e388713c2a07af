//! The pass over the text: who reads, parses, writes and notes at the same time.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use super::appearances::Appearances;
use super::begin::Begun;
use super::behind::Behind;
use super::chunk::Parsed;
use super::files::Partial;
use super::header::{SKIPPED_SHOWN, SourceFile};
use super::journal::{Entry, State};
use super::numbering::{Ids, Numbering};
use super::text::{Chunk, Chunks};
use super::{Malformed, Phase, Preprocessing, Progress, file_name};
use crate::error::{Error, Place, Result};

/// Chunks that are parsed at once, for each thread.
const CHUNKS_A_THREAD: usize = 4;

/// What is read, and how.
pub(super) struct Text<'a> {
    pub(super) sources: &'a [PathBuf],
    pub(super) files: &'a [SourceFile],
    pub(super) preprocessing: Preprocessing,
    /// Bytes of text between two entries of the journal.
    pub(super) interval: u64,
}

impl Text<'_> {
    /// The length of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// A store whose text is being read.
pub(super) struct Reading<'a> {
    text: &'a Text<'a>,
    partial: &'a Partial,
    file: File,
    behind: Behind,
    numbering: Numbering<'a>,
    state: State,
    /// Bytes of text since the last entry of the journal.
    since: u64,
    /// For each table, how many values the journal has; whether there is one.
    noted: Vec<usize>,
    journal: bool,
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        text: &'a Text<'a>,
        partial: &'a Partial,
        ids: Ids<'a>,
        begun: Begun,
    ) -> Result<Self> {
        Ok(Self {
            text,
            partial,
            behind: Behind::start(&begun.file, partial, begun.journal)?,
            file: begun.file,
            noted: begun.tables.iter().map(Appearances::len).collect(),
            numbering: Numbering::new(ids, begun.tables),
            state: begun.state,
            since: 0,
            journal: begun.again,
        })
    }

    /// Reads all that has not been read yet: a thread reads ahead, all others parse.
    pub(super) fn read(
        mut self,
        mut progress: impl FnMut(Progress),
    ) -> Result<(File, State, Vec<Appearances>)> {
        if !self.state.counted {
            self.groups(&mut progress)?;
        }
        self.behind.finish()?;
        Ok((self.file, self.state, self.numbering.tables))
    }

    fn groups(&mut self, progress: &mut impl FnMut(Progress)) -> Result<()> {
        let (text, from) = (self.text, self.state.position);
        let before = text.files.iter().take(from.source);
        let before = before.map(|file| file.bytes).sum();
        let mut chunks = Chunks::new(text.sources, from, before);
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
            let reader = spawned.map_err(|e| self.partial.failed(e))?;
            for group in receiver {
                self.take(&group?)?;
                progress(Progress {
                    phase: Phase::Reading,
                    bytes: read.load(Ordering::Relaxed),
                    bytes_in_all: text.bytes(),
                    rows: self.state.rows,
                });
            }
            // A thread that panicked sends nothing more either: that is not the end of the text.
            if let Err(panic) = reader.join() {
                std::panic::resume_unwind(panic);
            }
            self.end()
        })
    }

    /// Parses chunks, while those before are written, and numbers their values.
    fn take(&mut self, group: &[Chunk]) -> Result<()> {
        let preprocessing = &self.text.preprocessing;
        let parsed = self.numbering.parse(group, preprocessing, &mut self.file);
        let (parsed, written) = parsed.map_err(|e| self.partial.failed(e))?;
        self.behind.wrote(written);
        for (chunk, parsed) in group.iter().zip(&parsed) {
            self.faults(chunk, parsed)?;
            self.state.rows += parsed.records().len() as u64;
            self.state.clicks += parsed.clicks;
            self.state.position = chunk.end;
            self.since += chunk.bytes.len() as u64;
        }
        self.numbering.number(parsed)?;
        if self.since >= self.text.interval {
            self.write()?;
            self.note()?;
        }
        Ok(())
    }

    /// Refuses or notes the lines that broke the format.
    fn faults(&mut self, chunk: &Chunk, parsed: &Parsed) -> Result<()> {
        let path = &self.text.sources[chunk.source];
        let skipped = &mut self.state.skipped;
        skipped.count += parsed.faults;
        for (number, fault) in &parsed.first_faults {
            let line = chunk.lines_before + number + 1;
            if self.text.preprocessing.malformed == Malformed::Refuse {
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

    /// Writes what is left, and notes the counts if the pass over the records needs them: what it
    /// replaces cannot be counted again.
    fn end(&mut self) -> Result<()> {
        self.write()?;
        let rare = self.text.preprocessing.minimum_count > 1 && !self.numbering.tables.is_empty();
        if rare && self.journal {
            self.state.counted = true;
            self.note()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let written = self.numbering.write(&mut self.file);
        self.behind
            .wrote(written.map_err(|e| self.partial.failed(e))?);
        Ok(())
    }

    fn note(&mut self) -> Result<()> {
        let entry = Entry::new(&self.state, &self.numbering.tables, &mut self.noted);
        (self.since, self.journal) = (0, true);
        self.behind.note(entry)
    }
}
