//! One process at a time writes in a folder.

use crate::disk::make_folder;
use crate::error::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The file of the lock, in which its holder says who it is. It stays: one that was removed could be
/// another's by now.
const NAME: &str = ".lock";

/// Keeps other processes, and other runs of this one, from writing in a folder, until the last clone is
/// dropped or the process dies. See [`super::Checkpoints::lock`] and [`crate::RunFolder`].
#[derive(Clone, Debug)]
#[must_use = "the folder is unlocked when this is dropped"]
pub struct Lock(#[expect(dead_code, reason = "held, never read")] Arc<File>);

/// The lock that clones of [`super::Checkpoints`] share, while one of them holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Weak<File>>>);

impl Shared {
    /// The folder's lock: ours, where it is held already.
    pub fn lock(&self, folder: &Path) -> Result<Lock> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = held.upgrade() {
            return Ok(Lock(file));
        }
        make_folder(folder)?;
        let file = Arc::new(claim(folder)?);
        *held = Arc::downgrade(&file);
        Ok(Lock(file))
    }
}

/// The lock of a folder that exists.
pub(crate) fn lock_folder(folder: &Path) -> Result<Lock> {
    Ok(Lock(Arc::new(claim(folder)?)))
}

fn claim(folder: &Path) -> Result<File> {
    let path = folder.join(NAME);
    let error = || Error::io("cannot lock the folder", &path);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).map_err(error())?;
    match file.try_lock() {
        Ok(()) => {
            // Who it is helps whoever is refused; that the folder is refused does not depend on it.
            let _ = file.set_len(0);
            let _ = write!(file, "process {}", std::process::id());
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            path: folder.into(),
            by: std::fs::read_to_string(&path)
                .ok()
                .filter(|by| !by.is_empty()),
        }),
        // A file system without locks has to do without.
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(e)) => Err(error()(e)),
    }
}
