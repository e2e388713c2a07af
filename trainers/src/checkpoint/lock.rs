//! One process at a time writes in a folder.

use crate::disk::make_folder;
use crate::error::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

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

/// How often a lock is asked for, and how long to wait between. A process that this one is just starting has
/// its files open till it runs its own program: a lock that was given back a moment ago may be held by it.
const TRIES: u32 = 25;
const WAIT: Duration = Duration::from_millis(10);

fn patiently(file: &File) -> std::result::Result<(), TryLockError> {
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(WAIT),
            outcome => return outcome,
        }
    }
    file.try_lock()
}

fn claim(folder: &Path) -> Result<File> {
    let path = folder.join(NAME);
    let error = || Error::io("cannot lock the folder", &path);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).map_err(error())?;
    match patiently(&file) {
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
        Err(TryLockError::Error(e)) if has_no_locks(&e) => {
            tracing::warn!(
                "{}: the file system has no locks ({e}): nothing keeps another process from writing here",
                folder.display()
            );
            Ok(file)
        }
        Err(TryLockError::Error(e)) => Err(error()(e)),
    }
}

/// Whether a lock was refused because the file system has none: of those on a network some say it so (ENOLCK).
fn has_no_locks(error: &std::io::Error) -> bool {
    const NO_LOCKS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) {
        37
    } else {
        77 // macOS and the BSDs
    };
    let said = cfg!(unix) && error.raw_os_error() == Some(NO_LOCKS);
    said || error.kind() == std::io::ErrorKind::Unsupported
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_without_locks_says_so_in_one_of_three_ways() {
        let says = |number: i32| has_no_locks(&std::io::Error::from_raw_os_error(number));
        // ENOLCK, ENOSYS and EOPNOTSUPP, but not EACCES and EIO.
        assert_eq!(
            [37, 38, 95, 13, 5].map(says),
            [true, true, true, false, false]
        );
    }

    #[test]
    fn a_lock_that_is_about_to_be_free_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock_folder(folder.path()).unwrap();
        let refused = lock_folder(folder.path()).unwrap_err();
        assert!(matches!(refused, Error::InUse { .. }), "{refused}");
        let holder = std::thread::spawn(move || {
            std::thread::sleep(3 * WAIT);
            drop(held);
        });
        drop(lock_folder(folder.path()).unwrap());
        holder.join().unwrap();
    }
}
