//! Files that are whole or not there, and the files that they are made of.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::file_name;
use super::header::SourceFile;
use crate::error::{Error, Result};

/// A file that is removed unless it was renamed or is to be kept.
pub(crate) struct Partial {
    path: PathBuf,
    kept: Kept,
}

/// Whether a [`Partial`] file is to be kept, to be said from elsewhere.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<AtomicBool>);

impl Kept {
    pub(super) fn set(&self, kept: bool) {
        self.0.store(kept, Ordering::Relaxed);
    }
}

impl Partial {
    pub(crate) fn new(path: PathBuf) -> Self {
        let kept = Kept::default();
        Self { path, kept }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on it is kept, or it is not.
    pub(super) fn keep(&self, kept: bool) {
        self.kept.set(kept);
    }

    pub(super) fn kept(&self) -> Kept {
        self.kept.clone()
    }

    /// An I/O error with this file.
    pub(crate) fn failed(&self, error: std::io::Error) -> Error {
        Error::io(&self.path, error)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept.0.load(Ordering::Relaxed) {
            // After renaming there is none; where it cannot be removed the next preparation begins
            // it anew.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Makes renamings in the folder of a file outlast a loss of power.
pub(crate) fn sync_folder(file: &Path) {
    let folder = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    // Not every system can do it; the file is whole either way.
    if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
        folder.sync_all().ok();
    }
}

/// Refuses to put the store in the place of its text.
pub(super) fn refuse_source(sources: &[PathBuf], out: &Path) -> Result<()> {
    let Ok(out) = fs::canonicalize(out) else {
        // There is nothing yet.
        return Ok(());
    };
    for source in sources {
        if fs::canonicalize(source).map_err(|e| Error::io(source, e))? == out {
            return Err(Error::Setting {
                name: "out",
                got: out.display().to_string(),
                expected: "another file than the sources, which are kept".to_string(),
            });
        }
    }
    Ok(())
}

/// Names and lengths of the sources.
pub(super) fn describe(sources: &[PathBuf]) -> Result<Vec<SourceFile>> {
    if sources.is_empty() {
        return Err(Error::Setting {
            name: "sources",
            got: "no files".to_string(),
            expected: "at least one click log, such as train.txt".to_string(),
        });
    }
    let describe = |path: &PathBuf| {
        let metadata = fs::metadata(path).map_err(|e| Error::io(path, e))?;
        Ok(SourceFile {
            name: file_name(path),
            bytes: metadata.len(),
        })
    };
    sources.iter().map(describe).collect()
}

/// A source and when it was changed last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stamped {
    file: SourceFile,
    /// Nanoseconds since 1970; none where the system does not know.
    changed: Option<u64>,
}

/// The sources with the times of their last changes.
pub(super) fn stamped(sources: &[PathBuf], files: &[SourceFile]) -> Vec<Stamped> {
    let changed = |path: &PathBuf| {
        let time = fs::metadata(path).and_then(|metadata| metadata.modified());
        let since = time.ok()?.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_nanos()).ok()
    };
    let each = sources.iter().zip(files);
    each.map(|(path, file)| Stamped {
        file: file.clone(),
        changed: changed(path),
    })
    .collect()
}
