//! The runs that a path names.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// A run's folder itself, if `has` holds of it, else the runs of a comparison of which it does, in the order of their
/// names. With none, the path as it is: who opens it says what it is not.
///
/// # Errors
/// If the folder cannot be read.
pub fn named(path: &Path, has: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    if has(path) {
        return Ok(vec![path.into()]);
    }
    let entries = path
        .read_dir()
        .with_context(|| path.display().to_string())?;
    let runs = entries.map(|entry| Ok(entry?.path()));
    let mut runs = runs.collect::<Result<Vec<_>>>()?;
    runs.retain(|run| has(run));
    runs.sort();
    match runs.is_empty() {
        true => Ok(vec![path.into()]),
        false => Ok(runs),
    }
}
