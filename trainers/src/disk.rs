//! Files and folders that are on the disk when the call returns, so that a power failure after it does not
//! take them back.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Writes a small file so that it is there whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.partial"));
    let error = || Error::io("cannot write", &partial);
    let mut file = File::create(&partial).map_err(error())?;
    file.write_all(bytes).map_err(error())?;
    // Before the name: a system may bring names to the disk before what is in the files.
    file.sync_all().map_err(error())?;
    fs::rename(&partial, path).map_err(Error::io("cannot write", path))?;
    sync_folder(above(path))
}

/// Makes a folder, and those above it that are not there.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
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
