//! From text to a store: a pass over the text, and one over the records if values can be rare.
//! Neither keeps rows in memory.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::appearances::{Appearances, Numbered};
use super::begin::begin;
use super::files::{Partial, describe, refuse_source, stamped, sync_folder};
use super::header::{self, Summary, VocabularyFile};
use super::journal::{Origin, State};
use super::numbering::Ids;
use super::rare::Records;
use super::reading::{Reading, Text};
use super::vocabulary::{self, Vocabularies, beside, with_ending};
use super::{CATEGORIES, Phase, Preprocessing, Progress, Store, file_name};
use crate::error::{Error, Result};
use crate::lock::FileLock;

/// Bytes of text between two entries of the journal.
const INTERVAL: u64 = 2 << 30;

/// Makes the store `out` of click logs, plain or gzipped, one after the other, and its vocabulary
/// file, which is named as the store with `.vocabulary` behind, unless ids are hashes.
///
/// The text is read once, in parallel by chunks; the result does not depend on the number of
/// threads. Memory: the vocabularies and some chunks of a few MiB. Disk: 160 bytes a row.
///
/// The store is under way in a file with `.partial` behind its name and gets its name when it is
/// whole, so that an interruption leaves none. Every 2 GiB of text a file with `.journal` behind
/// its name notes how far the work has come, from where the next call with the same arguments goes
/// on, after an error too; the store is the same as without interruption. If a source has another
/// name, length or time of its last change, or the preprocessing makes other records, it begins
/// anew. In the end both files are gone; who does not want to go on removes them. A file with
/// `.lock` behind the store's name keeps a second preparation of the same store out as long as one
/// runs; it is empty and stays.
///
/// # Errors
/// If another preparation of the store is running, settings are out of range, a file cannot be read or written, a gzip file is cut off, a line
/// breaks the format and is not to be skipped, or there are no rows.
pub fn prepare(
    sources: &[PathBuf],
    out: &Path,
    preprocessing: &Preprocessing,
    progress: impl FnMut(Progress),
) -> Result<Store> {
    prepare_noting(sources, out, preprocessing, None, INTERVAL, progress)
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
    let vocabularies = Some(vocabularies);
    prepare_noting(
        sources,
        out,
        preprocessing,
        vocabularies,
        INTERVAL,
        progress,
    )
}

/// [`prepare`] or [`prepare_with`] with another number of bytes between two entries of the journal,
/// for tests.
///
/// # Errors
/// As theirs.
#[doc(hidden)]
pub fn prepare_noting(
    sources: &[PathBuf],
    out: &Path,
    preprocessing: &Preprocessing,
    vocabularies: Option<&Vocabularies>,
    interval: u64,
    progress: impl FnMut(Progress),
) -> Result<Store> {
    let ids = match (vocabularies, preprocessing.hash_modulo) {
        (Some(vocabularies), _) => {
            preprocessing.check_with(vocabularies.minimum_count())?;
            Ids::Known(vocabularies)
        }
        (None, Some(modulo)) => Ids::Modulo(modulo),
        (None, None) => Ids::Later,
    };
    preprocessing.check()?;
    let files = describe(sources)?;
    refuse_source(sources, out)?;
    let _lock = FileLock::claim(&with_ending(out, ".lock"), out)?;
    let preparation = Preparation {
        out,
        ids,
        offset: header::reserved(&files),
        partial: Partial::new(with_ending(out, ".partial")),
        journal: with_ending(out, ".journal"),
        text: Text {
            sources,
            files: &files,
            preprocessing: *preprocessing,
            interval,
        },
    };
    preparation.run(progress)
}

/// A store under way.
struct Preparation<'a> {
    text: Text<'a>,
    out: &'a Path,
    ids: Ids<'a>,
    partial: Partial,
    journal: PathBuf,
    /// Where the records begin.
    offset: usize,
}

/// What a store knows of its ids.
struct Known {
    table_sizes: Vec<usize>,
    file: Option<VocabularyFile>,
    /// The file, if it waits for its name.
    renamed: Option<(Partial, PathBuf)>,
}

impl Preparation<'_> {
    fn run(self, mut progress: impl FnMut(Progress)) -> Result<Store> {
        let minimum_count = self.text.preprocessing.minimum_count;
        let tables = || self.ids.tables(minimum_count);
        let begun = begin(
            &self.journal,
            self.origin(),
            &self.partial,
            self.offset,
            tables,
        )?;
        let reading = Reading::new(&self.text, &self.partial, self.ids, begun)?;
        let (file, state, tables) = reading.read(&mut progress)?;
        if state.rows == 0 {
            self.partial.keep(false);
            fs::remove_file(&self.journal).ok();
            return Err(Error::Empty {
                path: self.text.sources[0].clone(),
                expected: "lines of a label, 13 integers and 26 categorical values".to_string(),
            });
        }
        let known = self.settle(&file, &state, tables, &mut progress)?;
        self.finish(file, state, known)?;
        Store::open(self.out)
    }

    fn origin(&self) -> Origin {
        Origin {
            preprocessing: self.text.preprocessing,
            sources: stamped(self.text.sources, self.text.files),
            vocabulary: match self.ids {
                Ids::Known(vocabularies) => Some(vocabularies.file.checksum),
                _ => None,
            },
        }
    }

    /// Writes the vocabularies, if they are new, and makes all records final.
    fn settle(
        &self,
        file: &File,
        state: &State,
        tables: Vec<Appearances>,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Known> {
        let (table_sizes, known) = match self.ids {
            Ids::Modulo(modulo) => (vec![modulo as usize; CATEGORIES], None),
            Ids::Known(from) => (from.sizes(), Some(from.file.clone())),
            Ids::Later => return self.number(file, state, tables, progress),
        };
        Ok(Known {
            table_sizes,
            file: known,
            renamed: None,
        })
    }

    fn number(
        &self,
        file: &File,
        state: &State,
        tables: Vec<Appearances>,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Known> {
        let minimum_count = self.text.preprocessing.minimum_count;
        let path = beside(self.out);
        let partial = Partial::new(with_ending(&path, ".partial"));
        let name = file_name(&path);
        let made = vocabulary::create(partial.path(), name, &tables, minimum_count)?;
        let tables = tables.into_par_iter();
        let numbered: Vec<Numbered> = tables.map(|t| t.numbered(minimum_count)).collect();
        let records = Records {
            file,
            offset: self.offset,
            rows: state.rows as usize,
        };
        let bytes = self.text.bytes();
        let done = |rows: usize| {
            progress(Progress {
                phase: Phase::Numbering,
                bytes,
                bytes_in_all: bytes,
                rows: rows as u64,
            })
        };
        let all = records.number(&numbered, done);
        all.map_err(|e| self.partial.failed(e))?;
        let size = |table: &Numbered| vocabulary::size(table.next, minimum_count);
        Ok(Known {
            table_sizes: numbered.iter().map(size).collect(),
            file: Some(made),
            renamed: Some((partial, path)),
        })
    }

    /// Writes the head and gives the files their names, the store last.
    fn finish(&self, mut file: File, state: State, known: Known) -> Result<()> {
        let summary = Summary {
            preprocessing: self.text.preprocessing,
            rows: state.rows,
            clicks: state.clicks,
            table_sizes: known.table_sizes,
            sources: self.text.files.to_vec(),
            skipped: state.skipped,
            vocabulary: known.file,
        };
        let head = header::encode(&summary, self.offset, self.out)?;
        // Everything else first: with the head the file is whole.
        file.sync_all()
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(&head))
            .and_then(|()| file.sync_all())
            .map_err(|e| self.partial.failed(e))?;
        if let Some((partial, path)) = &known.renamed {
            fs::rename(partial.path(), path).map_err(|e| Error::io(path, e))?;
        }
        fs::rename(self.partial.path(), self.out).map_err(|e| Error::io(self.out, e))?;
        sync_folder(self.out);
        // Without its file it would not be believed; where there is none it cannot be removed.
        fs::remove_file(&self.journal).ok();
        Ok(())
    }
}
