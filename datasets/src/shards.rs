//! What the parquet readers share: which files are a split's shards, and errors with a way out.

use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;

use crate::border;
use crate::error::{Error, Result};
use crate::excerpt::reason;

/// The files `dir/folder/name-NNNNN-of-NNNNN.parquet`, in order and complete.
///
/// `what` is what an error says is missing.
pub(crate) fn shards(dir: &Path, folder: &str, name: &str, what: &str) -> Result<Vec<PathBuf>> {
    let place = dir.join(folder);
    let not_found = || Error::NotFound {
        what: what.to_string(),
        dir: dir.to_path_buf(),
        tried: format!("{folder}/{name}-NNNNN-of-NNNNN.parquet"),
    };
    if !place.is_dir() {
        return Err(not_found());
    }
    let mut found: Vec<(usize, usize, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(&place).map_err(|e| Error::io(&place, e))? {
        let path = entry.map_err(|e| Error::io(&place, e))?.path();
        let numbers = path
            .file_name()
            .and_then(|file| file.to_str())
            .and_then(|file| file.strip_prefix(name)?.strip_prefix('-'))
            .and_then(|rest| rest.strip_suffix(".parquet")?.split_once("-of-"))
            .and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        if let Some((index, count)) = numbers {
            found.push((index, count, path));
        }
    }
    found.sort();
    let Some(&(_, count, _)) = found.first() else {
        return Err(not_found());
    };
    let complete = found.len() == count
        && found
            .iter()
            .enumerate()
            .all(|(i, shard)| shard.0 == i && shard.1 == count);
    if !complete {
        return Err(Error::Inconsistent {
            path: place,
            reason: format!(
                "{} files {name}-NNNNN-of-{count:05}.parquet, expected numbers 0 to {}; fetch the missing ones",
                found.len(),
                count.saturating_sub(1)
            ),
        });
    }
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// Reads with the parquet crate, which panics on some malformed files: here it is an error like the others.
pub(crate) fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    border::guarded(read).unwrap_or_else(|panic| {
        Err(Error::Parquet {
            path: path.to_path_buf(),
            reason: reason(panic),
            hint: "is the file damaged? fetch it again",
        })
    })
}

/// A decoder's error with its file and what to do about it.
pub(crate) fn unreadable(path: &Path, error: ParquetError) -> Error {
    let reason = reason(error);
    let hint = if reason.contains("Disabled feature") {
        "build with `--features zstd` for zstd files, or rewrite the file with snappy compression"
    } else {
        "was the download cut off? fetch the file again"
    };
    Error::Parquet {
        path: path.to_path_buf(),
        reason,
        hint,
    }
}
