//! Safetensors files that are whole or not there.

use crate::error::{Error, Result};
use safetensors::View;
use std::collections::HashMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::path::Path;

/// Writes tensors by name, and texts beside them, into a safetensors file. Meanwhile it is called
/// `.NAME.partial`: what had the name before is replaced by a whole file, or untouched. The file has the rights
/// that new files have (the safetensors crate's own are for its owner alone).
///
/// # Errors
/// [`Error::File`] if it cannot be written.
pub fn save_tensors<S: AsRef<str> + Ord + Display, V: View>(
    tensors: impl IntoIterator<Item = (S, V)>,
    texts: Option<HashMap<String, String>>,
    path: &Path,
) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.partial"));
    let failed = |what: String| Error::File {
        path: path.into(),
        what,
    };
    // A file of the program's own making has the rights that the system and the user's mask give.
    let rights = File::create(&partial).and_then(|file| file.metadata());
    let rights = rights.map_err(|e| failed(e.to_string()))?.permissions();
    safetensors::serialize_to_file(tensors, texts, &partial).map_err(|e| failed(e.to_string()))?;
    let published = fs::set_permissions(&partial, rights)
        .and_then(|()| File::open(&partial)?.sync_all())
        .and_then(|()| fs::rename(&partial, path));
    published.map_err(|e| failed(e.to_string()))
}
