//! TensorBoard's event files: TFRecord frames around protobuf messages, written by hand.
//!
//! ```text
//! record  = length u64, masked crc32c(length) u32, message, masked crc32c(message) u32   (little endian)
//! Event   { 1: wall_time double, 2: step int64, 3: file_version string, 5: summary Summary }
//! Summary { 1: repeated Value { 1: tag string, 2: simple_value float } }
//! ```

use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The remainder table of the reflected Castagnoli polynomial.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            let odd = remainder & 1 == 1;
            remainder = (remainder >> 1) ^ if odd { 0x82F6_3B78 } else { 0 };
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
};

/// CRC-32C (Castagnoli), as in RFC 3720.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xFF) as usize]
    })
}

/// The form in which TFRecord stores a CRC-32C: rotated and shifted, so that the checksum of data
/// that contain checksums stays good.
pub fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// What the tags of an evaluation begin with.
pub(super) const EVALUATION: &str = "eval/";

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new file. TensorBoard looks for names that contain `tfevents`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn create(path: impl Into<PathBuf>, wall_time: f64) -> Result<Self> {
        let path = path.into();
        let file = File::create(&path).map_err(Error::io("cannot write", &path))?;
        let mut events = Self { path, file };
        let mut event = Vec::new();
        double(&mut event, 1, wall_time);
        bytes(&mut event, 3, b"brain.Event:2");
        events.write(&event)?;
        Ok(events)
    }

    /// An existing file, cut off after this step and at the first record that is not whole; with `owed`
    /// before an evaluation of this step, which is made again.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read or written.
    pub fn open_at(path: impl Into<PathBuf>, step: u64, owed: bool) -> Result<Self> {
        let path = path.into();
        let error = || Error::io("cannot go on with the event file", &path);
        let kept = kept_length(&fs::read(&path).map_err(error())?, step, owed);
        // Some systems cut nothing off through a file that is open for appending.
        let whole = OpenOptions::new().write(true).open(&path);
        let cut = whole.and_then(|whole| whole.set_len(kept as u64));
        cut.map_err(error())?;
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(error())?;
        Ok(Self { path, file })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes values of this step, as f32. `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written.
    pub fn scalars(&mut self, wall_time: f64, step: u64, values: &[(String, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut message = Vec::new();
            bytes(&mut message, 1, tag.as_bytes());
            float(&mut message, 2, *value as f32);
            bytes(&mut summary, 1, &message);
        }
        let mut event = Vec::new();
        double(&mut event, 1, wall_time);
        key(&mut event, 2, 0);
        varint(&mut event, step);
        bytes(&mut event, 5, &summary);
        self.write(&event)
    }

    /// Brings what was written to the disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<()> {
        let synced = self.file.sync_data();
        synced.map_err(Error::io("cannot write", &self.path))
    }

    /// One record in one write, so that TensorBoard never sees half of one for long.
    fn write(&mut self, message: &[u8]) -> Result<()> {
        let length = (message.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc32c(&length).to_le_bytes());
        record.extend(message);
        record.extend(masked_crc32c(message).to_le_bytes());
        self.file
            .write_all(&record)
            .map_err(Error::io("cannot write", &self.path))
    }
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// A field's number and wire type: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
fn key(to: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(to, field << 3 | wire_type);
}

fn double(to: &mut Vec<u8>, field: u64, value: f64) {
    key(to, field, 1);
    to.extend(value.to_le_bytes());
}

fn float(to: &mut Vec<u8>, field: u64, value: f32) {
    key(to, field, 5);
    to.extend(value.to_le_bytes());
}

fn bytes(to: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(to, field, 2);
    varint(to, value.len() as u64);
    to.extend(value);
}

/// The length of the whole records at the beginning whose step is not above this one, and which are no evaluation of
/// it that is owed.
fn kept_length(file: &[u8], step: u64, owed: bool) -> usize {
    let mut kept = 0;
    while let Some(message) = record(&file[kept..]) {
        let of = step_of(message).unwrap_or(0);
        if of > step || (owed && of == step && is_evaluation(message)) {
            break;
        }
        kept += message.len() + 16;
    }
    kept
}

/// Tags are the only texts of an event of scalars.
fn is_evaluation(message: &[u8]) -> bool {
    let mut places = message.windows(EVALUATION.len());
    places.any(|place| place == EVALUATION.as_bytes())
}

/// The message of the first record, if it is whole.
fn record(file: &[u8]) -> Option<&[u8]> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*crc) != masked_crc32c(length) {
        return None;
    }
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (message, rest) = rest.split_at_checked(length)?;
    let (crc, _) = rest.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*crc) == masked_crc32c(message)).then_some(message)
}

/// Field 2 of an event; protobuf leaves out a step of 0.
fn step_of(mut message: &[u8]) -> Option<u64> {
    while !message.is_empty() {
        let key = read_varint(&mut message)?;
        let skip = match key & 7 {
            0 => {
                let value = read_varint(&mut message)?;
                if key >> 3 == 2 {
                    return Some(value);
                }
                0
            }
            1 => 8,
            2 => usize::try_from(read_varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skip..)?;
    }
    None
}

fn read_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
