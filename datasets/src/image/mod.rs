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

use std::path::Path;

use crate::error::{Error, Place, Result};

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
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::decode(&bytes, path, None)
    }

    /// Decodes a JPEG or PNG in memory; `path` and `place` are for the error.
    ///
    /// Grey becomes three equal channels, transparency is dropped, CMYK is converted, 16 bits are
    /// cut to 8. An orientation in the file's metadata is not applied.
    ///
    /// # Errors
    /// If the bytes are not a whole picture of either kind.
    pub fn decode(bytes: &[u8], path: &Path, place: Option<Place>) -> Result<Self> {
        let refused = |reason: String| Error::Image {
            path: path.to_path_buf(),
            place,
            reason,
        };
        if is_cut_off(bytes) {
            return Err(refused("the JPEG ends before its end marker".to_string()));
        }
        let picture = ::image::load_from_memory(bytes).map_err(|e| refused(e.to_string()))?;
        let picture = picture.into_rgb8();
        let (width, height) = picture.dimensions();
        Ok(Self {
            height: height as usize,
            width: width as usize,
            pixels: picture.into_raw(),
        })
    }
}

/// Whether a JPEG has no end marker after its last scan. The decoder would fill the missing part
/// with grey and say nothing.
///
/// Within a scan a byte `FF` of data is followed by `00`, so both markers are found by their bytes.
fn is_cut_off(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    bytes.starts_with(&[0xff, 0xd8]) && last(0xda).is_some_and(|scan| last(0xd9) < Some(scan))
}
