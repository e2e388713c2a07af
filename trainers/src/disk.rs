//! Files and folders that are on the disk when the call returns, so that a power failure after it does not
//! take them back.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes a small file so that it is there whole or not at all. Meanwhile it is called `.NAME.partial`.
///
/// # Errors
/// [`Error::Io`]; what was there before is untouched.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = partial(path);
    let error = || Error::io("cannot write", &partial);
    let mut file = File::create(&partial).map_err(error())?;
    file.write_all(bytes).map_err(error())?;
    // Before the name: a system may bring names to the disk before what is in the files.
    file.sync_all().map_err(error())?;
    fs::rename(&partial, path).map_err(Error::io("cannot write", path))?;
    sync_folder(above(path))
}

/// Makes a folder of files so that it is there whole or not at all: `fill` writes them into an empty folder,
/// which then gets its name. A folder that has the name already is replaced: it is called `.NAME.replaced` for a
/// moment, from which a later call brings it back if the process died there.
///
/// # Errors
/// The error of `fill`, and [`Error::Io`]; what was there before is untouched.
pub fn write_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (partial, replaced) = (partial(path), hidden(path, "replaced"));
    let error = |path: &Path| Error::io("cannot write", path);
    let remove = |folder: &Path| match folder.exists() {
        true => fs::remove_dir_all(folder).map_err(error(folder)),
        false => Ok(()),
    };
    if replaced.exists() && !path.exists() {
        fs::rename(&replaced, path).map_err(error(path))?;
    }
    remove(&replaced)?;
    remove(&partial)?;
    make_folder(&partial)?;
    fill(&partial)?;
    sync_files(&partial)?;
    if path.exists() {
        fs::rename(path, &replaced).map_err(error(path))?;
    }
    fs::rename(&partial, path).map_err(error(path))?;
    sync_folder(above(path))?;
    remove(&replaced)
}

/// Brings all files of a folder, and its entries, to the disk.
fn sync_files(folder: &Path) -> Result<()> {
    let error = || Error::io("cannot bring the files to the disk", folder);
    for entry in fs::read_dir(folder).map_err(error())? {
        let path = entry.map_err(error())?.path();
        match path.is_dir() {
            true => sync_files(&path)?,
            // Some systems ask for the right to write.
            false => File::options()
                .read(true)
                .write(cfg!(not(unix)))
                .open(&path)
                .and_then(|file| file.sync_all())
                .map_err(Error::io("cannot bring the file to the disk", &path))?,
        }
    }
    sync_folder(folder)
}

/// `.NAME.partial` beside a path.
pub(crate) fn partial(path: &Path) -> PathBuf {
    hidden(path, "partial")
}

fn hidden(path: &Path, end: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{end}"))
}

/// Makes a folder, and those above it that are not there.
///
/// # Errors
/// [`Error::Io`].
pub fn make_folder(folder: &Path) -> Result<()> {
    let fresh = folder.ancestors().take_while(|f| !f.exists());
    let fresh: Vec<&Path> = fresh.filter(|f| !f.as_os_str().is_empty()).collect();
    fs::create_dir_all(folder).map_err(Error::io("cannot make the folder", folder))?;
    // A folder's name is an entry of the one above it.
    fresh.into_iter().try_for_each(|f| sync_folder(above(f)))
}

/// Brings a folder's entries to the disk, on systems where a folder can be opened as a file.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        let file = File::open(folder).and_then(|file| file.sync_all());
        file.map_err(Error::io("cannot bring the folder to the disk", folder))?;
    }
    Ok(())
}

fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
