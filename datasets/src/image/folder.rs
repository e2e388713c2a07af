//! Folders of pictures.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The endings of picture files, as an error lists them.
pub(crate) const ENDINGS: &str = ".jpg, .jpeg or .png";

/// Endings of pictures that are not read.
const OTHERS: [&str; 12] = [
    "avif", "bmp", "gif", "heic", "jp2", "jxl", "pgm", "ppm", "tga", "tif", "tiff", "webp",
];

/// What is in a folder, sorted by name, and whether it is a folder; hidden files are left out.
fn entries(dir: &Path) -> Result<Vec<(PathBuf, bool)>> {
    let fails = |e| Error::io(dir, e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fails)? {
        let entry = entry.map_err(fails)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let kind = entry.file_type().map_err(fails)?;
        let path = entry.path();
        // Following only links saves a question to the system for each of a million files.
        let folder = kind.is_dir() || (kind.is_symlink() && path.is_dir());
        found.push((path, folder));
    }
    found.sort();
    Ok(found)
}

/// Whether the name ends like a picture's, in any case.
fn is_picture(path: &Path) -> bool {
    let ending = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    ["jpg", "jpeg", "png"]
        .iter()
        .any(|e| ending.eq_ignore_ascii_case(e))
}

/// Whether it looks as if it had pictures that are not read: a folder, or a picture in another format.
fn is_left_out(path: &Path, folder: bool) -> bool {
    let ending = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    folder || OTHERS.iter().any(|e| ending.eq_ignore_ascii_case(e))
}

/// The pictures directly in a folder, sorted by name, and how many pictures in other formats and folders are beside
/// them: `.jpg`, `.jpeg` and `.png` are read, in capitals, too; hidden files are passed over.
///
/// # Errors
/// If the folder cannot be read.
pub fn pictures(dir: &Path) -> Result<(Vec<PathBuf>, usize)> {
    let (mut found, mut left_out) = (Vec::new(), 0);
    for (path, folder) in entries(dir)? {
        match !folder && is_picture(&path) {
            true => found.push(path),
            false => left_out += usize::from(is_left_out(&path, folder)),
        }
    }
    Ok((found, left_out))
}

/// The folders in a folder with their names, sorted by name.
pub(crate) fn class_folders(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let folders = entries(dir)?.into_iter().filter(|(_, folder)| *folder);
    Ok(folders.map(|(path, _)| (file_name(&path), path)).collect())
}

/// The last part of a path as text.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
