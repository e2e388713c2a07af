//! A file as memory, which is under its name whole or not at all.
//!
//! A new one is made beside its place, as `.NAME.partial`, filled, brought to the disk, and only then
//! renamed. So a process that is killed at any moment leaves no file that looks like a table and is none.
//! Who fills a file holds its lock, which the system takes from a process that dies: what one that was
//! killed has left is filled anew, and what a living one is filling is left to it.

use crate::error::{Error, Result};
use crate::files::sync_folder_of;
use memmap2::MmapMut;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

/// A file as memory, which is nobody else's as long as this is there: where files have locks, a second table of it is
/// refused.
pub(crate) struct Mapped {
    map: MmapMut,
    _held: File,
}

impl Deref for Mapped {
    type Target = MmapMut;

    fn deref(&self) -> &MmapMut {
        &self.map
    }
}

impl DerefMut for Mapped {
    fn deref_mut(&mut self) -> &mut MmapMut {
        &mut self.map
    }
}

/// A file of so many bytes as memory, made and filled if it is not there. `layout` says what it holds.
pub(crate) fn open(
    path: &Path,
    bytes: u64,
    layout: impl Fn() -> String,
    fill: impl FnOnce(&mut MmapMut),
) -> Result<Mapped> {
    if !path.exists()
        && let Some(partial) = Partial::claim(path)?
    {
        return partial.publish(bytes, fill);
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).open(path);
    let file = file.map_err(failed(path))?;
    hold(&file, path, || {
        let what = "is the memory of another table, here or in another process: drop that first";
        refused(path, what.into())
    })?;
    let length = file.metadata().map_err(failed(path))?.len();
    if length != bytes {
        return Err(refused(
            path,
            format!("{length} bytes, expected {bytes}: {}", layout()),
        ));
    }
    Ok(Mapped {
        map: map(&file, path)?,
        _held: file,
    })
}

/// Takes a file's lock; a file system that knows no locks has to do without, one whose locks fail (ENOLCK) is refused.
fn hold(file: &File, path: &Path, taken: impl FnOnce() -> Error) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(taken()),
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(e)) => Err(failed(path)(e)),
    }
}

fn map(file: &File, path: &Path) -> Result<MmapMut> {
    // SAFETY: the map is sound as long as nobody cuts the file short or writes to it: another table of it has
    // to have its lock, and of other programs `SparseTable::mapped` asks it.
    unsafe { MmapMut::map_mut(file) }.map_err(failed(path))
}

/// A file beside its place, with its lock. It is never removed, only renamed: so whoever has its lock has
/// the file of that name.
struct Partial<'a> {
    /// Where it shall be.
    target: &'a Path,
    path: PathBuf,
    file: File,
    published: bool,
}

impl<'a> Partial<'a> {
    /// `None` if another process has just put the file in its place.
    fn claim(target: &'a Path) -> Result<Option<Self>> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = target.with_file_name(format!(".{name}.partial"));
        let mut options = OpenOptions::new();
        // Not cut short: until the lock is ours, it may be another process's memory.
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(failed(&path))?;
        hold(&file, &path, || {
            let what = "is being filled by another process: wait until it is there";
            refused(target, what.into())
        })?;
        // The name may have changed while the lock was another's.
        if target.exists() {
            return Ok(None);
        }
        Ok(Some(Self {
            target,
            path,
            file,
            published: false,
        }))
    }

    fn publish(mut self, bytes: u64, fill: impl FnOnce(&mut MmapMut)) -> Result<Mapped> {
        let path = self.path.clone();
        let sized = self.file.set_len(0);
        let sized = sized.and_then(|()| take_place(&self.file, bytes));
        sized.map_err(failed(&path))?;
        let mut map = map(&self.file, &path)?;
        fill(&mut map);
        map.flush().map_err(failed(&path))?;
        self.file.sync_all().map_err(failed(&path))?;
        std::fs::rename(&path, self.target).map_err(failed(self.target))?;
        self.published = true;
        sync_folder_of(self.target).map_err(failed(self.target))?;
        Ok(Mapped {
            map,
            // The lock is one of the file as it was opened, and this shares it.
            _held: self.file.try_clone().map_err(failed(self.target))?,
        })
    }
}

/// Makes an empty file so many bytes long that have their place on the disk: where a disk is full, a write to memory that
/// has none ends the process (SIGBUS), and no error says why.
fn take_place(mut file: &File, bytes: u64) -> std::io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(zeros.len() as u64) as usize;
        file.write_all(&zeros[..piece])?;
        left -= piece as u64;
    }
    Ok(())
}

/// Gives the disk back where it was not filled, also where what fills it panics.
impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if !self.published {
            // Whatever is left in it is filled anew the next time.
            let _ = self.file.set_len(0);
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |e| Error::File {
        path,
        what: e.to_string(),
    }
}

fn refused(path: &Path, what: String) -> Error {
    Error::File {
        path: path.into(),
        what,
    }
}
