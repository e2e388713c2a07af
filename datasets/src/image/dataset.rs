//! Pictures with classes, in memory or on disk, and batches of them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{Augment, Image, ImageBatch, Shard};
use crate::error::{Error, Place, Result};
use crate::limits::LONGEST_SIDE;

/// Pictures in a row that may be broken: a search through all of them, for each of them, would not end.
const MOST_BROKEN: usize = 256;

/// What to do about data that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnCorrupt {
    /// An error with the file's path.
    #[default]
    Fail,
    /// In place of a picture that cannot be decoded, the next one of the data set that can, with
    /// its own label; [`ImageBatch::replaced`] counts them. So batches keep their size, and what is
    /// in a batch stays a function of `(seed, epoch)`. Empty class folders keep their class number
    /// and are listed in [`ImageDataset::empty_classes`].
    SkipAndCount,
}

/// Where the pictures are.
pub(crate) enum Source {
    /// In memory, all of one size, one after the other.
    Decoded {
        height: usize,
        width: usize,
        pixels: Vec<u8>,
    },
    /// One file each.
    Files(Vec<PathBuf>),
    /// Rows of parquet files, with the first row of each file.
    Shards(Vec<(usize, Shard)>),
}

/// Pictures with classes: one split of a data set. Cheap to clone: the pictures are shared.
#[derive(Clone)]
pub struct ImageDataset {
    classes: Arc<Vec<String>>,
    source: Arc<Source>,
    /// The class of each picture of the source.
    labels: Arc<Vec<u32>>,
    /// Which pictures of the source, in which order.
    items: Vec<usize>,
    on_corrupt: OnCorrupt,
    empty_classes: Vec<String>,
    left_out: usize,
}

impl ImageDataset {
    pub(crate) fn new(classes: Vec<String>, source: Source, labels: Vec<u32>) -> Self {
        Self {
            classes: Arc::new(classes),
            source: Arc::new(source),
            items: (0..labels.len()).collect(),
            labels: Arc::new(labels),
            on_corrupt: OnCorrupt::Fail,
            empty_classes: Vec::new(),
            left_out: 0,
        }
    }

    /// Pictures of one size in memory, `pixels` as in [`Image`], one after the other.
    ///
    /// # Errors
    /// If the numbers of pixels and labels do not agree, or a label has no class.
    pub fn from_pixels(
        classes: Vec<String>,
        (height, width): (usize, usize),
        pixels: Vec<u8>,
        labels: Vec<u32>,
    ) -> Result<Self> {
        check_labels(&classes, &labels)?;
        let sides = height.checked_mul(width).and_then(|n| n.checked_mul(3));
        let expected = sides.and_then(|n| n.checked_mul(labels.len()));
        if Some(pixels.len()) != expected {
            let expected = expected.map_or("more".to_string(), |n| n.to_string());
            return Err(Error::Batch {
                reason: format!(
                    "{} bytes for {} pictures of {height} x {width} x 3, expected {expected}",
                    pixels.len(),
                    labels.len()
                ),
            });
        }
        let source = Source::Decoded {
            height,
            width,
            pixels,
        };
        Ok(Self::new(classes, source, labels))
    }

    /// Picture files with their classes, decoded when a batch wants them.
    ///
    /// # Errors
    /// If a label has no class.
    pub fn from_files(
        classes: Vec<String>,
        files: Vec<(PathBuf, u32)>,
        on_corrupt: OnCorrupt,
    ) -> Result<Self> {
        let (paths, labels): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        check_labels(&classes, &labels)?;
        Ok(Self::new(classes, Source::Files(paths), labels).on_corrupt(on_corrupt))
    }

    /// What to do about pictures that cannot be decoded.
    pub fn on_corrupt(mut self, on_corrupt: OnCorrupt) -> Self {
        self.on_corrupt = on_corrupt;
        self
    }

    pub(crate) fn with_empty_classes(mut self, classes: Vec<String>) -> Self {
        self.empty_classes = classes;
        self
    }

    pub(crate) fn with_left_out(mut self, count: usize) -> Self {
        self.left_out = count;
        self
    }

    /// The number of pictures.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no pictures.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The names of the classes, by class number.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The classes whose folders were empty and were skipped, see [`OnCorrupt::SkipAndCount`].
    pub fn empty_classes(&self) -> &[String] {
        &self.empty_classes
    }

    /// What lies in the folders of the classes and was left out: pictures in formats that are not read, and folders.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The class of picture `index`, below [`ImageDataset::len`].
    ///
    /// # Errors
    /// If there is no such picture.
    pub fn label(&self, index: usize) -> Result<u32> {
        Ok(self.labels[self.item(index)?])
    }

    /// How many pictures each class has.
    pub fn histogram(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for &item in &self.items {
            counts[self.labels[item] as usize] += 1;
        }
        counts
    }

    /// A one for each picture, as [`Batcher::order`](crate::Batcher::order) wants it.
    pub fn lengths(&self) -> Vec<usize> {
        vec![1; self.len()]
    }

    /// Keeps the first `n` pictures at most. In a data set from class folders these are of the
    /// first classes only: see [`ImageDataset::balanced`].
    pub fn limit(mut self, n: usize) -> Self {
        self.items.truncate(n);
        self
    }

    /// Keeps `n` pictures at most, of all classes alike: the first of each class, then the second
    /// of each class, and so on.
    pub fn balanced(mut self, n: usize) -> Self {
        let mut seen = vec![0usize; self.classes.len()];
        let mut ranked: Vec<(usize, u32, usize)> = Vec::with_capacity(self.len());
        for &item in &self.items {
            let label = self.labels[item];
            ranked.push((seen[label as usize], label, item));
            seen[label as usize] += 1;
        }
        ranked.sort();
        self.items = ranked
            .into_iter()
            .take(n)
            .map(|(_, _, item)| item)
            .collect();
        self
    }

    /// Two parts: all but `n` pictures, in their order, and `n` at most to choose settings by, of all classes alike: the
    /// last of each class, then the one before it of each class, and so on.
    pub fn hold_out(self, n: usize) -> (Self, Self) {
        let reversed = Self {
            items: self.items.iter().rev().copied().collect(),
            ..self.clone()
        };
        let held = reversed.balanced(n);
        let of_held: HashSet<usize> = held.items.iter().copied().collect();
        let rest = Self {
            items: (self.items.iter().copied())
                .filter(|item| !of_held.contains(item))
                .collect(),
            ..self
        };
        (rest, held)
    }

    /// Picture `index`, decoded.
    ///
    /// # Errors
    /// If there is no such picture, or it cannot be read or decoded: the error names its file.
    pub fn image(&self, index: usize) -> Result<Image> {
        let item = self.item(index)?;
        match &*self.source {
            Source::Decoded {
                height,
                width,
                pixels,
            } => {
                let size = height * width * 3;
                Ok(Image {
                    height: *height,
                    width: *width,
                    pixels: pixels[item * size..(item + 1) * size].to_vec(),
                })
            }
            Source::Files(paths) => Image::open(&paths[item]),
            Source::Shards(shards) => {
                let after = shards.partition_point(|(first, _)| *first <= item);
                let (first, shard) = &shards[after - 1];
                let row = item - first;
                Image::decode(&shard.bytes(row)?, &shard.path, Some(Place::Row(row + 1)))
            }
        }
    }

    /// The file of picture `index`, if it has one.
    pub fn path(&self, index: usize) -> Option<&Path> {
        match (&*self.source, self.items.get(index)) {
            (Source::Files(paths), Some(&item)) => Some(&paths[item]),
            _ => None,
        }
    }

    /// The pictures with these indices as tensors on `device`, augmented by `(seed, epoch, index)`;
    /// decoded and augmented on all threads of rayon's global pool.
    ///
    /// # Errors
    /// If there are no indices or one is out of range, a picture cannot be decoded, or the
    /// augmentation does not fit. Of several errors, that of the first picture.
    pub fn batch(
        &self,
        indices: &[usize],
        epoch: usize,
        seed: u64,
        augment: &Augment,
        device: &Device,
    ) -> Result<ImageBatch> {
        let Some(&first) = indices.first() else {
            return Err(Error::Batch {
                reason: "no pictures; give at least one index".to_string(),
            });
        };
        let (height, width) = match augment.size() {
            Some(size) if size > LONGEST_SIDE => {
                return Err(Error::Batch {
                    reason: format!(
                        "pictures of {size} x {size}; at most {LONGEST_SIDE} pixels a side can be made"
                    ),
                });
            }
            Some(size) => (size, size),
            None => self.size_of(first)?,
        };
        let size = 3 * height * width;
        if size == 0 {
            return Err(Error::Batch {
                reason: format!("pictures of {height} x {width}; both need at least one pixel"),
            });
        }
        let mut pixels = vec![0f32; indices.len() * size];
        let make = || -> Vec<Result<(u32, usize)>> {
            let pictures = pixels.par_chunks_mut(size).zip(indices);
            let made = pictures.map(|(out, &index)| {
                let (image, label, replaced) = self.readable(index)?;
                let made = augment.apply(&image, seed, epoch, index);
                let made = made.and_then(|image| augment.normalise(&image, out));
                // Of a replaced picture it is the one that was asked for.
                made.map_err(|error| self.about(index, error))?;
                Ok((label, replaced))
            });
            made.collect()
        };
        let made = on_threads(make)?;
        let made = made.into_iter().collect::<Result<Vec<_>>>()?;
        let labels: Vec<u32> = made.iter().map(|(label, _)| *label).collect();
        let count = indices.len();
        Ok(ImageBatch {
            pixels: Tensor::from_vec(pixels, (count, 3, height, width), device)?,
            labels: Tensor::from_vec(labels, count, device)?,
            replaced: made.iter().map(|(_, replaced)| replaced).sum(),
        })
    }

    /// The same error with the name of a picture.
    fn about(&self, index: usize, error: Error) -> Error {
        match (error, self.path(index)) {
            (Error::Batch { reason }, Some(path)) => Error::Batch {
                reason: format!("{}: {reason}", path.display()),
            },
            (Error::Batch { reason }, None) => Error::Batch {
                reason: format!("picture {index}: {reason}"),
            },
            (error, _) => error,
        }
    }

    fn size_of(&self, index: usize) -> Result<(usize, usize)> {
        if let Source::Decoded { height, width, .. } = &*self.source {
            return Ok((*height, *width));
        }
        let (image, _, _) = self.readable(index)?;
        Ok((image.height, image.width))
    }

    /// The picture and its label, or with [`OnCorrupt::SkipAndCount`] the next one's that can be
    /// decoded, and how many could not.
    fn readable(&self, index: usize) -> Result<(Image, u32, usize)> {
        for skipped in 0..self.len().clamp(1, MOST_BROKEN) {
            let at = (index + skipped) % self.len().max(1);
            let at = if skipped == 0 { index } else { at };
            match self.image(at) {
                Ok(image) => return Ok((image, self.label(at)?, skipped)),
                Err(Error::Image { .. }) if self.on_corrupt == OnCorrupt::SkipAndCount => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Batch {
            reason: format!(
                "none of {} pictures in a row, from {index} on, can be decoded; are the files whole?",
                self.len().clamp(1, MOST_BROKEN)
            ),
        })
    }

    fn item(&self, index: usize) -> Result<usize> {
        self.items.get(index).copied().ok_or_else(|| Error::Batch {
            reason: format!("index {index} in a data set of {} pictures", self.len()),
        })
    }
}

fn check_labels(classes: &[String], labels: &[u32]) -> Result<()> {
    match labels
        .iter()
        .position(|&label| label as usize >= classes.len())
    {
        None => Ok(()),
        Some(index) => Err(Error::Batch {
            reason: format!(
                "picture {index} has label {}, but there are {} classes",
                labels[index],
                classes.len()
            ),
        }),
    }
}

/// Where pictures are decoded: on the pool that the caller is of, else on one of their own. Threads of the global pool may
/// all be waiting for this very batch.
fn on_threads<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R> {
    static POOL: OnceLock<Option<rayon::ThreadPool>> = OnceLock::new();
    if rayon::current_thread_index().is_some() {
        return Ok(work());
    }
    let pool = POOL.get_or_init(|| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(rayon::current_num_threads());
        pool.thread_name(|index| format!("pictures-{index}"))
            .build()
            .ok()
    });
    match pool {
        Some(pool) => Ok(pool.install(work)),
        None => Err(Error::Batch {
            reason: "no threads can be started to decode pictures".to_string(),
        }),
    }
}
