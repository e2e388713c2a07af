//! CIFAR-10 (Krizhevsky, 2009): 50,000 and 10,000 pictures of 32 x 32 in ten classes.
//!
//! Three sources, one result, an [`ImageDataset`] in memory:
//!
//! * the binary version, `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`;
//! * a folder of pictures, `train/airplane/*.png`;
//! * parquet files in the layout of `uoft-cs/cifar10`, from a folder or the Hub.
//!
//! CIFAR-10 has no validation split of its own: [`Split::Validation`] and [`Split::Test`] are both
//! its 10,000 test pictures.

mod binary;

use std::path::Path;

use rayon::prelude::*;

use crate::error::{Error, Place, Result};
use crate::hub::{Hub, RepoKind};
use crate::image::{ENDINGS, Image, ImageDataset, Shard, Source, class_folders, pictures};
use crate::shards::shards;
use crate::split::Split;

/// The classes, by class number.
pub const CLASSES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

/// Height and width of a picture.
const SIDE: usize = 32;
/// Values of a picture.
const VALUES: usize = SIDE * SIDE * 3;
/// The Hub's repository.
const REPO: &str = "uoft-cs/cifar10";
/// The folder in it.
const FOLDER: &str = "plain_text";
/// The column of its pictures.
const COLUMN: &str = "img";
/// What errors call the data set.
const NAME: &str = "CIFAR-10";
/// Where it is to be had.
const SOURCE: &str =
    "cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html, unpacked";

/// Loads a split from a folder of any of the three layouts, or from the Hub where `data` is `None`.
///
/// In a folder are looked for, in this order: `data_batch_*.bin` (train) or `test*.bin`, plain or
/// gzipped, there or in `cifar-10-batches-bin`, all of them in the order of their names; class
/// folders in `train` or in `test` or `val`; `plain_text/train-NNNNN-of-NNNNN.parquet`.
///
/// # Errors
/// If no layout has the split; of the numbered files one below the last is missing; a file is unreadable, cut off, or has a label above 9; a picture
/// cannot be decoded or is not of 32 x 32; a class folder is missing, empty, or has another name
/// than those in [`CLASSES`]. The error names the file and the record.
pub fn load(data: Option<&Path>, split: Split) -> Result<ImageDataset> {
    let Some(dir) = data else {
        return load_hub(&Hub::from_env()?, split);
    };
    let files = binary::files(dir, split)?;
    if !files.is_empty() {
        return binary::load(&files);
    }
    let folders: &[&str] = match split {
        Split::Train => &["train"],
        Split::Validation | Split::Test => &["test", "val"],
    };
    if let Some(folder) = folders.iter().map(|f| dir.join(f)).find(|f| f.is_dir()) {
        return load_folder(&folder);
    }
    let name = hub_name(split);
    match shards(dir, FOLDER, name, "") {
        Err(Error::NotFound { tried, .. }) => Err(Error::NotFound {
            what: format!("{split} split of {NAME}"),
            dir: dir.to_path_buf(),
            tried: format!(
                "{0}, cifar-10-batches-bin/{0}, {1}/CLASS/*.png or *.jpg, {tried} ({SOURCE}, has the first)",
                binary::pattern(split),
                folders.join(" or "),
            ),
        }),
        other => load_shards(&other?),
    }
}

/// Loads a split from the Hub's `uoft-cs/cifar10`, or from the cache.
///
/// # Errors
/// If the file cannot be fetched, see [`Hub::get`], or read.
pub fn load_hub(hub: &Hub, split: Split) -> Result<ImageDataset> {
    let file = format!("{FOLDER}/{}-00000-of-00001.parquet", hub_name(split));
    load_shards(&[hub.get(RepoKind::Dataset, REPO, None, &file)?])
}

/// Loads binary files with records of a label and 3 x 32 x 32 values, plain or gzipped.
///
/// # Errors
/// As [`load`].
pub fn load_binary<P: AsRef<Path>>(files: &[P]) -> Result<ImageDataset> {
    binary::load(files)
}

/// Loads a folder with a folder of pictures for each class.
///
/// # Errors
/// As [`load`].
pub fn load_folder(dir: &Path) -> Result<ImageDataset> {
    let (mut files, mut left_out) = (Vec::new(), 0);
    let folders = class_folders(dir)?;
    if let Some((_, path)) = folders
        .iter()
        .find(|(name, _)| !CLASSES.contains(&name.as_str()))
    {
        return Err(Error::Inconsistent {
            path: path.clone(),
            reason: format!(
                "not a class of {NAME}; the classes are {}",
                CLASSES.join(", ")
            ),
        });
    }
    for (label, class) in CLASSES.iter().enumerate() {
        let Some((_, folder)) = folders.iter().find(|(name, _)| name == class) else {
            return Err(Error::NotFound {
                what: format!("folder of the class {class}"),
                dir: dir.to_path_buf(),
                tried: format!("a folder for each of {}", CLASSES.join(", ")),
            });
        };
        let (found, others) = pictures(folder)?;
        left_out += others;
        if found.is_empty() {
            return Err(Error::EmptyClass {
                path: folder.clone(),
                expected: ENDINGS,
            });
        }
        files.extend(found.into_iter().map(|path| (path, label as u32)));
    }
    let decoded: Vec<Result<Vec<u8>>> = files
        .par_iter()
        .map(|(path, _)| checked(Image::open(path)?, path, None))
        .collect();
    let mut pixels = Vec::with_capacity(files.len() * VALUES);
    for picture in decoded {
        pixels.extend(picture?);
    }
    let labels = files.into_iter().map(|(_, label)| label).collect();
    Ok(dataset(pixels, labels).with_left_out(left_out))
}

/// The split's name on the Hub.
fn hub_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Validation | Split::Test => "test",
    }
}

fn load_shards<P: AsRef<Path>>(files: &[P]) -> Result<ImageDataset> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for file in files {
        let path = file.as_ref();
        let shard = Shard::open(path, COLUMN, NAME)?;
        if let Some(row) = shard.labels.iter().position(|&label| label > 9) {
            return Err(bad_label(path, Place::Row(row + 1), shard.labels[row]));
        }
        shard.for_each_group(|start, group| {
            let decoded: Vec<Result<Vec<u8>>> = group
                .par_iter()
                .enumerate()
                .map(|(i, bytes)| {
                    let place = Some(Place::Row(start + i + 1));
                    checked(Image::decode(bytes.data(), path, place)?, path, place)
                })
                .collect();
            for picture in decoded {
                pixels.extend(picture?);
            }
            Ok(())
        })?;
        labels.extend(shard.labels);
    }
    Ok(dataset(pixels, labels))
}

/// The values of a picture of the right size.
fn checked(image: Image, path: &Path, place: Option<Place>) -> Result<Vec<u8>> {
    if (image.height, image.width) != (SIDE, SIDE) {
        return Err(Error::ImageSize {
            path: path.to_path_buf(),
            place,
            expected: (SIDE, SIDE),
            got: (image.height, image.width),
        });
    }
    Ok(image.pixels)
}

fn bad_label(path: &Path, place: Place, label: u32) -> Error {
    Error::BadLabel {
        path: path.to_path_buf(),
        place,
        column: "label",
        expected: "a class number in 0..10".to_string(),
        got: label.to_string(),
    }
}

fn dataset(pixels: Vec<u8>, labels: Vec<u32>) -> ImageDataset {
    let classes = CLASSES.iter().map(|class| class.to_string()).collect();
    let source = Source::Decoded {
        height: SIDE,
        width: SIDE,
        pixels,
    };
    ImageDataset::new(classes, source, labels)
}
