//! The names in a folder of checkpoints: published ones, and hidden ones that are on their way.
//!
//! | name | what it is |
//! |---|---|
//! | `step-00000120`, `best-00000100`, `stop-00000130` | published |
//! | `.step-00000120.partial` | being written, or being removed |
//! | `.step-00000120.replaced.partial` | published before, put aside for another one of its name |
//!
//! A process may die between putting one aside and putting the other in its place. The one put aside is
//! then the published one: it is found as such, and gets its name back before anything is removed.

use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

const PARTIAL: &str = ".partial";
const REPLACED: &str = ".replaced.partial";

/// `.NAME.partial` beside a checkpoint.
pub(super) fn partial(path: &Path) -> PathBuf {
    beside(path, PARTIAL)
}

/// `.NAME.replaced.partial` beside a checkpoint.
pub(super) fn replaced(path: &Path) -> PathBuf {
    beside(path, REPLACED)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{ending}"))
}

/// The place of one that was put aside.
fn place(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_prefix('.')?.strip_suffix(REPLACED)?;
    Some(path.with_file_name(name))
}

/// Where a checkpoint lies once [`recover`] has been at work.
pub(crate) fn settled(path: PathBuf) -> PathBuf {
    place(&path).unwrap_or(path)
}

/// The checkpoints of a kind, by step.
pub(super) fn of_kind(folder: &Path, kind: &str) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        let shown = match place(&path) {
            Some(place) if place.exists() => continue,
            Some(place) => place,
            None => path.clone(),
        };
        let name = shown.file_name().unwrap_or_default().to_string_lossy();
        let digits = name
            .strip_prefix(kind)
            .and_then(|rest| rest.strip_prefix('-'));
        if let Some(step) = digits.and_then(|digits| digits.parse().ok()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Puts back what a process that died has put aside, then removes what it left half written. Only under
/// the lock: it may be another process's.
pub(super) fn recover(folder: &Path) -> Result<()> {
    for path in entries(folder)? {
        if let Some(place) = place(&path)
            && !place.exists()
        {
            let error = Error::io("cannot put the checkpoint back in its place", &path);
            fs::rename(&path, &place).map_err(error)?;
        }
    }
    remove_leftovers(folder)
}

/// Removes what is half written or half removed, and what has been replaced.
pub(super) fn remove_leftovers(folder: &Path) -> Result<()> {
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(PARTIAL) {
            fs::remove_dir_all(&path).map_err(Error::io("cannot remove", &path))?;
        }
    }
    Ok(())
}

/// Takes a checkpoint off the list in one rename, then removes it at leisure.
pub(super) fn discard(path: &Path) -> Result<()> {
    let aside = partial(path);
    fs::rename(path, &aside).map_err(Error::io("cannot remove the old checkpoint", path))?;
    fs::remove_dir_all(&aside).map_err(Error::io("cannot remove the old checkpoint", &aside))
}

/// The folders in a folder; none if it does not exist.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let error = || Error::io("cannot list the checkpoints", folder);
    let listing = match fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(error())?,
    };
    let mut folders = Vec::new();
    for entry in listing {
        let path = entry.map_err(error())?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    Ok(folders)
}
