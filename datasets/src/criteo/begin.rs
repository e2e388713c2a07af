//! Where a preparation begins: at the beginning, or where an earlier one was interrupted.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use super::appearances::Appearances;
use super::files::{Partial, sync_folder};
use super::journal::{Journal, Origin, State};
use super::rare::Records;
use super::record::RECORD;
use crate::error::{Error, Result};

/// What there is at the beginning.
pub(super) struct Begun {
    /// The file under way, to be written to at its end.
    pub(super) file: File,
    pub(super) journal: Journal,
    pub(super) state: State,
    /// The values of each table, if they are numbered as they come.
    pub(super) tables: Vec<Appearances>,
    /// Whether an earlier preparation goes on.
    pub(super) again: bool,
}

/// Goes on from the journal at `journal`, if it is one of this origin and the file of `partial` has
/// the records that it speaks of; else begins anew. `offset` is where records begin, `tables` makes
/// tables without values.
pub(super) fn begin(
    journal: &Path,
    origin: Origin,
    partial: &Partial,
    offset: usize,
    tables: impl Fn() -> Vec<Appearances>,
) -> Result<Begun> {
    let mut begun = match earlier(journal, &origin, partial, offset, tables()) {
        Some(begun) => begun,
        None => anew(journal, origin, partial, tables())?,
    };
    // Zeros in the place of the head: no reader takes the file for a store.
    let file = &mut begun.file;
    file.write_all(&vec![0; offset])
        .and_then(|()| file.seek(SeekFrom::End(0)))
        .map_err(|e| partial.failed(e))?;
    Ok(begun)
}

fn earlier(
    path: &Path,
    origin: &Origin,
    partial: &Partial,
    offset: usize,
    mut tables: Vec<Appearances>,
) -> Option<Begun> {
    let (journal, state) = Journal::open(path, origin, &mut tables)?;
    let file = open(partial, false).ok()?;
    let rows = usize::try_from(state.rows).ok()?;
    let length = rows.checked_mul(RECORD)?.checked_add(offset)? as u64;
    if file.metadata().ok()?.len() < length {
        return None;
    }
    // What came after the last entry comes again.
    file.set_len(length).ok()?;
    if origin.preprocessing.minimum_count > 1 && !state.counted {
        let records = Records {
            file: &file,
            offset,
            rows,
        };
        records.count(&mut tables)?;
    }
    partial.keep(true);
    Some(Begun {
        file,
        journal,
        state,
        tables,
        again: true,
    })
}

fn anew(path: &Path, origin: Origin, partial: &Partial, tables: Vec<Appearances>) -> Result<Begun> {
    // First the journal, and for certain: it must not speak of the file to come.
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
        Err(error) => return Err(Error::io(path, error)),
    }
    Ok(Begun {
        file: open(partial, true).map_err(|e| partial.failed(e))?,
        journal: Journal::new(path, origin),
        state: State::default(),
        tables,
        again: false,
    })
}

fn open(partial: &Partial, new: bool) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(new).truncate(new);
    options.open(partial.path())
}
