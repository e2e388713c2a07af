//! Pictures: decoding, augmentation, and batches as tensors.
//!
//! ```text
//! file ──decode──> Image ──augment (seed, epoch, index)──> Image ──normalise──> ImageBatch
//! ```
//!
//! [`crate::cifar10`] and [`crate::imagenet`] make an [`ImageDataset`]; [`ImageBatches`] gives its
//! batches by epoch and number, made ahead of the training step.

mod augment;
mod batch;
mod batches;
mod dataset;
mod folder;
mod resize;
mod shard;

pub use augment::{Augment, Crop};
pub use batch::ImageBatch;
pub use batches::ImageBatches;
pub(crate) use dataset::Source;
pub use dataset::{ImageDataset, OnCorrupt};
pub(crate) use folder::{ENDINGS, class_folders, file_name, pictures};
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
/// Within a scan a byte `FF` of data is followed by `00`, so both markers are found by their bytes.
fn is_cut_off(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    bytes.starts_with(&[0xff, 0xd8]) && last(0xda).is_some_and(|scan| last(0xd9) < Some(scan))
}
