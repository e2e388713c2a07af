//! Files that are whole or not there, and the files that they are made of.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::file_name;
use super::header::SourceFile;
use crate::error::{Error, Result};

/// A file that is removed unless it was renamed.
pub(super) struct Partial(pub(super) PathBuf);

impl Partial {
    /// An I/O error with this file.
    pub(super) fn failed(&self, error: std::io::Error) -> Error {
        Error::io(&self.0, error)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After renaming there is none; where it cannot be removed the next preparation begins it
        // anew.
        fs::remove_file(&self.0).ok();
    }
}

/// Makes renamings in the folder of a file outlast a loss of power.
pub(super) fn sync_folder(file: &Path) {
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
