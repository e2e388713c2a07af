//! ImageNet (Russakovsky et al., 2015) and sets in its layout, decoded picture by picture when a
//! batch wants them.
//!
//! * Class folders, `train/n01440764/*.JPEG` and `val/n01440764/*.JPEG`; class numbers are the
//!   places of the folders' sorted names in `train`.
//! * Tiny ImageNet: `train/n01443537/images/*.JPEG`, `val/images/*.JPEG` with
//!   `val/val_annotations.txt`.
//! * Pictures in one folder whose names begin with their class, `n01440764_tench.JPEG`.
//! * Parquet files in the layout of `ILSVRC/imagenet-1k`, `data/train-00000-of-00294.parquet`, from
//!   a folder or the Hub. A picture is read from the middle of its file, which costs some reading
//!   around it: for many epochs, unpack them to class folders.
//!
//! The labels of the test split are not published, so there is no such split here.

mod folder;

use std::path::Path;

pub use folder::load_folder;

use crate::error::{Error, Place, Result};
use crate::hub::{Hub, RepoKind};
use crate::image::{ImageDataset, OnCorrupt, Shard, Source, class_folders};
use crate::shards::shards;
use crate::split::Split;

/// The Hub's repository; it wants a token and the acceptance of its terms.
const REPO: &str = "ILSVRC/imagenet-1k";
/// The folder in it.
const FOLDER: &str = "data";
/// The column of its pictures.
const COLUMN: &str = "image";
/// What errors call the data set.
const NAME: &str = "ImageNet";
/// Classes of files that name none: a damaged label shall not become a name for each number below it.
/// ImageNet-21k has 21,843.
const MOST_UNNAMED: u32 = 1 << 16;
/// Where it is to be had.
const SOURCE: &str = "https://image-net.org/download.php";

/// Loads a split from a folder of any of the layouts, or from the Hub where `data` is `None`.
///
/// # Errors
/// If no layout has the split, or for the reasons of [`load_folder`], [`load_parquet`] and
/// [`load_hub`].
pub fn load(data: Option<&Path>, split: Split, on_corrupt: OnCorrupt) -> Result<ImageDataset> {
    let name = hub_name(split)?;
    let Some(dir) = data else {
        return load_hub(&Hub::from_env()?, split, usize::MAX, on_corrupt);
    };
    let folders: &[&str] = match split {
        Split::Train => &["train"],
        _ => &["val", "validation"],
    };
    if let Some(folder) = folders.iter().map(|f| dir.join(f)).find(|f| f.is_dir()) {
        let train = dir.join("train");
        let classes = if split == Split::Train || !train.is_dir() {
            None
        } else {
            let folders = class_folders(&train)?.into_iter();
            let mut names: Vec<String> = folders.map(|(name, _)| name).collect();
            if names.is_empty() {
                // Pictures whose names begin with their class.
                let pictures = folder::named(&train).unwrap_or_default();
                names = pictures.into_iter().map(|(_, name)| name).collect();
                names.sort();
                names.dedup();
            }
            Some(names)
        };
        let classes = classes.filter(|classes| !classes.is_empty());
        return load_folder(&folder, classes, on_corrupt);
    }
    match shards(dir, FOLDER, name, "") {
        Err(Error::NotFound { tried, .. }) => Err(Error::NotFound {
            what: format!("{split} split of {NAME}"),
            dir: dir.to_path_buf(),
            tried: format!(
                "{}/CLASS/*.JPEG, {tried} (pictures: {SOURCE}; parquet: {REPO} on the Hub)",
                folders.join(" or ")
            ),
        }),
        other => load_parquet(&other?, on_corrupt),
    }
}

/// Loads the first `most` files of a split from the Hub's `ILSVRC/imagenet-1k`, or from the cache;
/// the training split has 294 of half a gigabyte each, the validation split 14.
///
/// # Errors
/// If a file cannot be fetched, see [`Hub::get`], or for the reasons of [`load_parquet`].
pub fn load_hub(
    hub: &Hub,
    split: Split,
    most: usize,
    on_corrupt: OnCorrupt,
) -> Result<ImageDataset> {
    let name = hub_name(split)?;
    let count = if split == Split::Train { 294 } else { 14 };
    let files = (0..count.min(most)).map(|index| {
        let file = format!("{FOLDER}/{name}-{index:05}-of-{count:05}.parquet");
        hub.get(RepoKind::Dataset, REPO, None, &file)
    });
    load_parquet(&files.collect::<Result<Vec<_>>>()?, on_corrupt)
}

/// Loads parquet files with a column `image` of encoded pictures and a column `label`.
///
/// The names of the classes are those in the first file's footer; without them, the numbers up to
/// the largest label, at most 65,536.
///
/// # Errors
/// If a file is unreadable, cut off, empty or lacks a column, or has a label that is no class.
pub fn load_parquet<P: AsRef<Path>>(files: &[P], on_corrupt: OnCorrupt) -> Result<ImageDataset> {
    let (mut found, mut labels) = (Vec::new(), Vec::new());
    for file in files {
        let shard = Shard::open(file.as_ref(), COLUMN, NAME)?;
        let first = labels.len();
        labels.extend_from_slice(&shard.labels);
        found.push((first, shard));
    }
    let named = found.first().and_then(|(_, shard)| shard.names.clone());
    let classes = named.unwrap_or_else(|| {
        let largest = labels.iter().max().copied();
        let count = largest.map_or(0, |largest| largest.saturating_add(1).min(MOST_UNNAMED));
        (0..count).map(|label| label.to_string()).collect()
    });
    for (_, shard) in &found {
        let wrong = |&label: &u32| label as usize >= classes.len();
        if let Some(row) = shard.labels.iter().position(wrong) {
            return Err(Error::BadLabel {
                path: shard.path.clone(),
                place: Place::Row(row + 1),
                column: "label",
                expected: format!("a class number in 0..{}", classes.len()),
                got: shard.labels[row].to_string(),
            });
        }
    }
    Ok(ImageDataset::new(classes, Source::Shards(found), labels).on_corrupt(on_corrupt))
}

/// The split's name on the Hub.
fn hub_name(split: Split) -> Result<&'static str> {
    match split {
        Split::Train => Ok("train"),
        Split::Validation => Ok("validation"),
        Split::Test => Err(Error::Setting {
            name: "split",
            got: "test".to_string(),
            expected: format!("train or validation: {NAME}'s test labels are not published"),
        }),
    }
}
