//! Safetensors files that are whole or not there.

use crate::error::{Error, Result};
use safetensors::View;
use std::collections::HashMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes tensors by name, and texts beside them, into a safetensors file. Meanwhile it is called
/// `.NAME.PROCESS-NUMBER.partial`: what had the name before is replaced by a whole file, or untouched; of two that write at
/// once one is the last. The file has the rights that new files have (the safetensors crate's own are for its owner
/// alone).
///
/// # Errors
/// [`Error::File`] if it cannot be written.
pub fn save_tensors<S: AsRef<str> + Ord + Display, V: View>(
    tensors: impl IntoIterator<Item = (S, V)>,
    texts: Option<HashMap<String, String>>,
    path: &Path,
) -> Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let process = std::process::id();
    let partial = path.with_file_name(format!(".{name}.{process}-{number}.partial"));
    let written = write(tensors, texts, path, &partial);
    written.inspect_err(|_| drop(fs::remove_file(&partial)))
}

fn write<S: AsRef<str> + Ord + Display, V: View>(
    tensors: impl IntoIterator<Item = (S, V)>,
    texts: Option<HashMap<String, String>>,
    path: &Path,
    partial: &Path,
) -> Result<()> {
    let failed = |what: String| Error::File {
        path: path.into(),
        what,
    };
    // A file of the program's own making has the rights that the system and the user's mask give.
    let rights = File::create(partial).and_then(|file| file.metadata());
    let rights = rights.map_err(|e| failed(e.to_string()))?.permissions();
    safetensors::serialize_to_file(tensors, texts, partial).map_err(|e| failed(e.to_string()))?;
    let published = fs::set_permissions(partial, rights)
        // Some systems ask for the right to write.
        .and_then(|()| {
            let writes = cfg!(not(unix));
            let file = File::options().read(true).write(writes).open(partial)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(partial, path))
        .and_then(|()| sync_folder_of(path));
    published.map_err(|e| failed(e.to_string()))
}

/// Brings a name to the disk, on systems where a folder can be opened as a file.
pub(crate) fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    match cfg!(unix) {
        true => File::open(folder.unwrap_or(Path::new(".")))?.sync_all(),
        false => Ok(()),
    }
}
