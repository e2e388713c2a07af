//! ImageNet as folders of pictures.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::NAME;
use crate::error::{Error, Place, Result};
use crate::excerpt::{cut, excerpt};
use crate::image::{ENDINGS, ImageDataset, OnCorrupt, class_folders, file_name, pictures};
use crate::limits::{LARGEST_LIST, read_text};

/// Tiny ImageNet's list of its validation pictures: file, class, box.
const ANNOTATIONS: &str = "val_annotations.txt";
/// Tiny ImageNet's name for the folder of pictures.
const IMAGES: &str = "images";

/// Loads the pictures of one folder: class folders, Tiny ImageNet's annotated pictures, or pictures
/// whose names begin with `n`, eight digits and `_`.
///
/// `classes` gives the classes their numbers; `None` sorts the names that are found. The pictures
/// of a class are in the order of their file names.
///
/// # Errors
/// If there are no pictures, a class is not among `classes`, a class folder is empty (unless
/// `on_corrupt` says to skip it), or the annotations and the pictures do not match.
pub fn load_folder(
    dir: &Path,
    classes: Option<Vec<String>>,
    on_corrupt: OnCorrupt,
) -> Result<ImageDataset> {
    let annotations = dir.join(ANNOTATIONS);
    let folders = class_folders(dir)?;
    let (mut empty, mut left_out) = (Vec::new(), 0);
    let (found, given) = if annotations.is_file() {
        (annotated(dir, &annotations)?, classes)
    } else if !folders.is_empty() {
        let own = || folders.iter().map(|(name, _)| name.clone()).collect();
        let found;
        (found, empty, left_out) = in_folders(&folders, on_corrupt)?;
        // An empty folder has its number, too.
        (found, Some(classes.unwrap_or_else(own)))
    } else {
        (named(dir)?, classes)
    };
    let classes = given.unwrap_or_else(|| {
        let mut names: Vec<String> = found.iter().map(|(_, name)| name.clone()).collect();
        names.sort();
        names.dedup();
        names
    });
    let numbers: HashMap<&str, u32> = (0u32..)
        .zip(&classes)
        .map(|(number, name)| (name.as_str(), number))
        .collect();
    let files = found.into_iter().map(|(path, name)| {
        let number = numbers.get(name.as_str()).copied();
        let number = number.ok_or_else(|| Error::Inconsistent {
            path: path.clone(),
            reason: format!(
                "its class {:?} is not among the {} of the training split; take both from one source",
                cut(&name),
                classes.len()
            ),
        })?;
        Ok((path, number))
    });
    let files = files.collect::<Result<Vec<_>>>()?;
    Ok(ImageDataset::from_files(classes, files, on_corrupt)?
        .with_empty_classes(empty)
        .with_left_out(left_out))
}

/// Pictures with the names of their classes, the classes without any, and what was left out.
type Found = (Vec<(PathBuf, String)>, Vec<String>, usize);

fn in_folders(folders: &[(String, PathBuf)], on_corrupt: OnCorrupt) -> Result<Found> {
    let (mut found, mut empty, mut left_out) = (Vec::new(), Vec::new(), 0);
    for (name, folder) in folders {
        let inner = folder.join(IMAGES);
        let place = if inner.is_dir() { &inner } else { folder };
        let (files, others) = pictures(place)?;
        left_out += others;
        if files.is_empty() {
            match on_corrupt {
                OnCorrupt::SkipAndCount => empty.push(name.clone()),
                OnCorrupt::Fail => {
                    return Err(Error::EmptyClass {
                        path: place.clone(),
                        expected: ENDINGS,
                    });
                }
            }
        }
        found.extend(files.into_iter().map(|path| (path, name.clone())));
    }
    if found.is_empty() {
        let dir = folders.first().and_then(|(_, folder)| folder.parent());
        return Err(no_pictures(dir.unwrap_or(Path::new(""))));
    }
    Ok((found, empty, left_out))
}

fn annotated(dir: &Path, list: &Path) -> Result<Vec<(PathBuf, String)>> {
    let text = read_text(list, LARGEST_LIST)?;
    let folder = dir.join(IMAGES);
    let wrong = |reason: String| Error::Inconsistent {
        path: list.to_path_buf(),
        reason,
    };
    let (files, _) = pictures(&folder)?;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = Place::Line(index + 1);
        let mut fields = line.split('\t');
        let (Some(file), Some(class)) = (fields.next(), fields.next()) else {
            return Err(wrong(format!(
                "{place}: {:?}, expected a file and a class with a tab between",
                cut(line)
            )));
        };
        let path = folder.join(file);
        if files.binary_search(&path).is_err() {
            return Err(wrong(format!(
                "{place}: there is no {IMAGES}/{}; unpack the pictures again",
                excerpt(file)
            )));
        }
        found.push((path, class.to_string()));
    }
    let mut listed: Vec<&PathBuf> = found.iter().map(|(path, _)| path).collect();
    listed.sort();
    if let Some(two) = listed.windows(2).find(|two| two[0] == two[1]) {
        return Err(wrong(format!("two lines for {}", two[0].display())));
    }
    if let Some(path) = files
        .iter()
        .find(|path| listed.binary_search(path).is_err())
    {
        return Err(wrong(format!("no line for {}", path.display())));
    }
    if found.is_empty() {
        return Err(no_pictures(&folder));
    }
    Ok(found)
}

pub(super) fn named(dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    let (files, _) = pictures(dir)?;
    if files.is_empty() {
        return Err(no_pictures(dir));
    }
    let found = files.into_iter().map(|path| {
        let name = file_name(&path);
        let class = name.split_once('_').map(|(class, _)| class);
        let class = class.filter(|class| {
            let digits = class.strip_prefix('n').unwrap_or_default();
            digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit())
        });
        match class.map(str::to_string) {
            Some(class) => Ok((path, class)),
            None => Err(Error::Inconsistent {
                path,
                reason: "a picture without a class; sort the pictures into a folder for each \
                         class (those of the validation split by the list in the development kit)"
                    .to_string(),
            }),
        }
    });
    found.collect()
}

fn no_pictures(dir: &Path) -> Error {
    Error::NotFound {
        what: format!("pictures of {NAME}"),
        dir: dir.to_path_buf(),
        tried: format!("a folder for each class with files ending in {ENDINGS}"),
    }
}
