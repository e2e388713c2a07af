//! One process at a time makes a file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};

/// Keeps other processes, and other threads of this one, from making the same file, until it is dropped
/// or the process dies.
#[must_use = "the file is unlocked when this is dropped"]
pub(crate) struct FileLock(#[expect(dead_code, reason = "held, never read")] File);

impl FileLock {
    /// Locks `target` through the file `lock` beside it, which holds nothing and stays: one that was
    /// removed could be another's by now.
    pub(crate) fn claim(lock: &Path, target: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(lock).map_err(|e| Error::io(lock, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::InUse {
                path: target.to_path_buf(),
            }),
            // A file system that knows no locks has to do without; one whose locks fail (ENOLCK) is refused.
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => Ok(Self(file)),
            Err(TryLockError::Error(e)) => Err(Error::io(lock, e)),
        }
    }
}
