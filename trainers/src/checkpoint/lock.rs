//! One process at a time saves in a folder.

use crate::disk::make_folder;
use crate::error::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The file of the lock. It holds nothing, and stays: one that was removed could be another's by now.
const NAME: &str = ".lock";

/// Keeps other processes, and other runs of this one, from saving in a folder, until the last clone is
/// dropped or the process dies. See [`super::Checkpoints::lock`].
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

fn claim(folder: &Path) -> Result<File> {
    let path = folder.join(NAME);
    let error = || Error::io("cannot lock the folder", &path);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(&path).map_err(error())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            path: folder.into(),
        }),
        // A file system without locks has to do without.
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(e)) => Err(error()(e)),
    }
}
