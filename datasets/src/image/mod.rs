//! Pictures: decoding, augmentation, and batches as tensors.
//!
//! ```text
//! file ──decode──> Image ──augment (seed, epoch, index)──> Image ──normalise──> ImageBatch
//! ```
//!
//! [`crate::cifar10`] and [`crate::imagenet`] make an [`ImageDataset`]; [`ImageBatches`] gives its
//! batches by epoch and number, which [`Ahead`](crate::Ahead) makes ahead of the training step.

mod augment;
mod batch;
mod batches;
mod dataset;
mod folder;
mod preprocessor;
mod resize;
mod shard;

pub use augment::{Augment, Crop};
pub use batch::ImageBatch;
pub use batches::ImageBatches;
pub(crate) use dataset::Source;
pub use dataset::{ImageDataset, OnCorrupt};
pub use folder::pictures;
pub(crate) use folder::{ENDINGS, class_folders, file_name};
pub(crate) use shard::Shard;

use std::io::Cursor;
use std::path::Path;

use ::image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, RgbImage};

use crate::border::guarded;
use crate::error::{Error, Place, Result};
use crate::excerpt::reason;
use crate::limits::{self, MOST_PIXELS};

/// Bytes of a decoded picture, which may have 16 bits a channel and transparency, and of what the decoder
/// keeps on its way.
const MOST_MEMORY: u64 = 8 * MOST_PIXELS;
/// Bytes of the largest file of one picture.
const LARGEST_FILE: u64 = MOST_MEMORY;

/// A picture in RGB, eight bits a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `height * width * 3` values: row by row, and red, green, blue of each pixel.
    pub pixels: Vec<u8>,
}

impl Image {
    /// Decodes a JPEG or PNG file, whatever its name ends in.
    ///
    /// # Errors
    /// If it cannot be read or decoded; the error names the file.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = limits::read(path, LARGEST_FILE)?;
        Self::decode(&bytes, path, None)
    }

    /// Decodes a JPEG or PNG in memory; `path` and `place` are for the error.
    ///
    /// Grey becomes three equal channels, transparency is dropped, CMYK is converted, 16 bits are
    /// cut to 8. An orientation in the file's metadata is not applied.
    ///
    /// # Errors
    /// If the bytes are not a whole picture of either kind, or one of more than [`MOST_PIXELS`].
    pub fn decode(bytes: &[u8], path: &Path, place: Option<Place>) -> Result<Self> {
        let decoded = match is_cut_off(bytes) {
            true => Err("the JPEG ends before its end marker".to_string()),
            false => guarded(|| decode(bytes)).flatten(),
        };
        let picture = decoded.map_err(|why| Error::Image {
            path: path.to_path_buf(),
            place,
            reason: reason(why),
        })?;
        let (width, height) = picture.dimensions();
        Ok(Self {
            height: height as usize,
            width: width as usize,
            pixels: picture.into_raw(),
        })
    }
}

/// The picture, or why there is none. Its head says how large it is: that is looked at before memory is
/// asked for.
fn decode(bytes: &[u8]) -> std::result::Result<RgbImage, String> {
    let fails = |e: ImageError| e.to_string();
    let mut reader = ImageReader::new(Cursor::new(bytes));
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let reader = reader.with_guessed_format().map_err(|e| e.to_string())?;
    let decoder = reader.into_decoder().map_err(fails)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MOST_PIXELS || decoder.total_bytes() > MOST_MEMORY {
        return Err(format!(
            "{height} x {width} pixels, which are more than the {MOST_PIXELS} that are read"
        ));
    }
    let picture = DynamicImage::from_decoder(decoder).map_err(fails)?;
    Ok(picture.into_rgb8())
}

/// Whether a JPEG has no end marker after its last scan. The decoder would fill the missing part
/// with grey and say nothing.
///
/// Segments are passed by their lengths, scans by their bytes, in which `FF` is followed by `00` or a restart. What lies
/// behind the end, a phone's film say, is not looked at.
fn is_cut_off(bytes: &[u8]) -> bool {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return false;
    }
    let (mut at, mut in_scan) = (2, false);
    while let Some(&[byte, marker]) = bytes.get(at..at + 2) {
        at += match (byte, marker) {
            (0xff, 0xd9) => return false,
            // What a scan holds, and what fills the room before a marker.
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => 2,
            (0xff, 0xff) => 1,
            (0xff, _) => {
                in_scan |= marker == 0xda;
                let length = bytes.get(at + 2..at + 4);
                2 + length.map_or(2, |length| {
                    usize::from(length[0]) << 8 | usize::from(length[1])
                })
            }
            _ => 1,
        };
    }
    in_scan
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::ImageFormat;

    #[test]
    fn a_jpeg_is_whole_whatever_lies_behind_its_end() {
        let picture = RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 90]));
        let mut jpeg = Vec::new();
        let mut to = Cursor::new(&mut jpeg);
        picture.write_to(&mut to, ImageFormat::Jpeg).unwrap();
        assert!(!is_cut_off(&jpeg));
        let behind = [0u8, 0xff, 0xd9, 7, 0xff, 0xda, 1, 2, 0xff];
        assert!(!is_cut_off(&[&jpeg[..], &behind].concat()));
        // Without its last two bytes, its end marker, and any part of what it holds.
        let scan = jpeg
            .windows(2)
            .position(|pair| pair == [0xff, 0xda])
            .unwrap();
        for end in scan + 2..jpeg.len() - 1 {
            assert!(is_cut_off(&jpeg[..end]), "{end} of {}", jpeg.len());
        }
        // Before its scan the decoder says what is missing.
        assert!((0..=scan).all(|end| !is_cut_off(&jpeg[..end])));
    }
}
