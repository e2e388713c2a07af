//! The binary version of CIFAR-10: records of 3,073 bytes, a label and three planes of 32 x 32.

use std::fs::File;
use std::io::{BufReader, Read};
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
const LARGEST: u64 = (RECORDS * RECORD) as u64;

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
    match missing(&found) {
        Some(number) => Err(Error::Inconsistent {
            path: dir.to_path_buf(),
            reason: format!(
                "there are later files of the {split} split and no {}{number}.bin; unpack the download again",
                stem(split)
            ),
        }),
        None => Ok(found),
    }
}

/// The first number below the largest one that no file has, of files with the download's names.
fn missing(files: &[PathBuf]) -> Option<u32> {
    let numbers: Vec<u32> = files
        .iter()
        .filter_map(|file| {
            let name = file.file_name()?.to_str()?;
            let rest = name.strip_prefix(stem(Split::Train))?;
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            rest[..digits].parse().ok()
        })
        .collect();
    (1..numbers.iter().copied().max()?).find(|number| !numbers.contains(number))
}

/// Reads files one after the other.
pub(super) fn load<P: AsRef<Path>>(files: &[P]) -> Result<ImageDataset> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for file in files {
        let path = file.as_ref();
        let mut records = Records::open(path)?;
        while let Some((place, record)) = records.next()? {
            let label = u32::from(record[0]);
            if label > 9 {
                return Err(bad_label(path, place, label));
            }
            labels.push(label);
            interleave(&record[1..], &mut pixels);
        }
        if records.read == 0 {
            return Err(Error::Empty {
                path: path.to_path_buf(),
                expected: format!("records of {RECORD} bytes of {NAME}"),
            });
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

/// The records of a file, unpacked if its name ends in `.gz`; no more of them than there are of the data
/// set, so that a small file cannot fill the memory.
struct Records<'a> {
    path: &'a Path,
    reader: Box<dyn Read>,
    packed: bool,
    /// Records before the next one.
    read: usize,
    record: Vec<u8>,
}

impl<'a> Records<'a> {
    /// The length of a plain file is looked at before anything is read.
    fn open(path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let file = BufReader::with_capacity(1 << 16, file);
        let packed = path.extension().is_some_and(|ending| ending == "gz");
        let reader: Box<dyn Read> = match packed {
            true => Box::new(MultiGzDecoder::new(file)),
            false => Box::new(file),
        };
        let records = Self {
            path,
            reader,
            packed,
            read: 0,
            record: Vec::with_capacity(RECORD),
        };
        if !packed && length > LARGEST {
            return Err(records.too_long());
        }
        Ok(records)
    }

    /// The next record and its place.
    fn next(&mut self) -> Result<Option<(Place, &[u8])>> {
        self.record.clear();
        let mut next = self.reader.by_ref().take(RECORD as u64);
        if let Err(error) = next.read_to_end(&mut self.record) {
            return Err(match self.packed {
                true => self.damaged(format!("damaged or truncated gzip ({error})")),
                false => Error::io(self.path, error),
            });
        }
        match self.record.len() {
            0 => Ok(None),
            RECORD if self.read == RECORDS => Err(self.too_long()),
            RECORD => {
                self.read += 1;
                Ok(Some((Place::Record(self.read), &self.record)))
            }
            cut => Err(self.damaged(format!(
                "cut off after {cut} of {RECORD} bytes; the file has {} bytes",
                self.read * RECORD + cut
            ))),
        }
    }

    fn too_long(&self) -> Error {
        self.damaged(format!(
            "more than {LARGEST} bytes, which are all {RECORDS} pictures of {NAME}"
        ))
    }

    fn damaged(&self, reason: String) -> Error {
        Error::Damaged {
            path: self.path.to_path_buf(),
            place: Place::Record(self.read + 1),
            reason,
        }
    }
}
