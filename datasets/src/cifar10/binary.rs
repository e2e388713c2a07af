//! The binary version of CIFAR-10: records of 3,073 bytes, a label and three planes of 32 x 32.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::{NAME, SIDE, VALUES, bad_label, dataset};
use crate::error::{Error, Place, Result};
use crate::image::ImageDataset;
use crate::split::Split;

/// The folder in the download.
const FOLDER: &str = "cifar-10-batches-bin";
/// Bytes of a record.
const RECORD: usize = 1 + VALUES;
/// Pictures of all splits together.
const RECORDS: usize = 60_000;
/// Bytes of the largest file that can be CIFAR-10.
const LARGEST: usize = RECORDS * RECORD;

/// What the names of the split's files begin with.
fn stem(split: Split) -> &'static str {
    match split {
        Split::Train => "data_batch_",
        Split::Validation | Split::Test => "test",
    }
}

/// The split's files as an error lists them.
pub(super) fn pattern(split: Split) -> String {
    format!("{}*.bin[.gz]", stem(split))
}

/// The split's files in `dir` or the download's folder in it, sorted by name; none if there are
/// none. Of a file that is there plain and gzipped, the plain one.
pub(super) fn files(dir: &Path, split: Split) -> Result<Vec<PathBuf>> {
    let own = list(dir, split)?;
    if !own.is_empty() {
        return Ok(own);
    }
    list(&dir.join(FOLDER), split)
}

fn list(dir: &Path, split: Split) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let entry = entry.map_err(|e| Error::io(dir, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        let wanted = plain.starts_with(stem(split)) && plain.ends_with(".bin");
        if wanted && (plain == name || !dir.join(plain).is_file()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Reads files one after the other.
pub(super) fn load<P: AsRef<Path>>(files: &[P]) -> Result<ImageDataset> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for file in files {
        let path = file.as_ref();
        let bytes = read(path)?;
        if bytes.is_empty() {
            return Err(Error::Empty {
                path: path.to_path_buf(),
                expected: format!("records of {RECORD} bytes of {NAME}"),
            });
        }
        pixels.reserve(bytes.len());
        for (index, record) in bytes.chunks(RECORD).enumerate() {
            let place = Place::Record(index + 1);
            if record.len() < RECORD {
                return Err(Error::Damaged {
                    path: path.to_path_buf(),
                    place,
                    reason: format!(
                        "cut off after {} of {RECORD} bytes; the file has {} bytes",
                        record.len(),
                        bytes.len()
                    ),
                });
            }
            let label = u32::from(record[0]);
            if label > 9 {
                return Err(bad_label(path, place, label));
            }
            labels.push(label);
            interleave(&record[1..], &mut pixels);
        }
    }
    Ok(dataset(pixels, labels))
}

/// From planes of red, green and blue to the three values of each pixel.
fn interleave(planes: &[u8], pixels: &mut Vec<u8>) {
    for at in 0..SIDE * SIDE {
        pixels.extend([0, 1, 2].map(|channel| planes[channel * SIDE * SIDE + at]));
    }
}

/// A whole file, unpacked if its name ends in `.gz`; no more of it than there is of the data set, so that
/// a small file cannot fill the memory.
fn read(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let is_packed = path.extension().is_some_and(|ending| ending == "gz");
    let reader: Box<dyn Read> = match is_packed {
        true => Box::new(MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    let mut bytes = Vec::new();
    let read = reader.take(LARGEST as u64 + 1).read_to_end(&mut bytes);
    let damaged = |reason: String| Error::Damaged {
        path: path.to_path_buf(),
        place: Place::Record(bytes.len() / RECORD + 1),
        reason,
    };
    match read {
        Ok(_) if bytes.len() > LARGEST => Err(damaged(format!(
            "more than {LARGEST} bytes, which are all {RECORDS} pictures of {NAME}"
        ))),
        Ok(_) => Ok(bytes),
        Err(error) if is_packed => Err(damaged(format!("damaged or truncated gzip ({error})"))),
        Err(error) => Err(Error::io(path, error)),
    }
}
