//! Augmentation and normalisation: a pure function of the picture and `(seed, epoch, index)`.

use super::Image;
use super::resize::{Region, resize, resize_part};
use crate::error::{Error, Result};
use crate::limits::LONGEST_SIDE;
use crate::random::Random;

/// Which part of a picture a model sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Crop {
    /// All of it; the pictures of a batch must have one size.
    Whole,
    /// A random square of `size` pixels from the picture with `padding` black pixels around it.
    Padded {
        /// Height and width of the result.
        size: usize,
        /// Black pixels on each side.
        padding: usize,
    },
    /// A random rectangle with 8 to 100 % of the area and an aspect ratio of 3/4 to 4/3, resized to
    /// `size` x `size`. After ten rectangles that do not fit, the largest one in the middle.
    RandomResized {
        /// Height and width of the result.
        size: usize,
    },
    /// The shorter side resized to `resize` pixels, then the square of `size` in the middle.
    Center {
        /// The shorter side before cropping.
        resize: usize,
        /// Height and width of the result.
        size: usize,
    },
}

/// From a picture to the numbers a model sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augment {
    /// Which part.
    pub crop: Crop,
    /// Whether to mirror half of the pictures left to right.
    pub flip: bool,
    /// Subtracted from red, green and blue, which lie in 0..=1.
    pub mean: [f32; 3],
    /// Divides what is left.
    pub std: [f32; 3],
}

/// Share of the area of a random rectangle.
const SCALE: (f64, f64) = (0.08, 1.0);
/// Width over height of a random rectangle.
const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// Rectangles tried.
const TRIES: usize = 10;

impl Augment {
    /// Training on CIFAR-10 (He et al., 2016): random 32 x 32 crop with padding 4, flip.
    pub fn cifar_train() -> Self {
        Self {
            crop: Crop::Padded {
                size: 32,
                padding: 4,
            },
            flip: true,
            ..Self::cifar_test()
        }
    }

    /// Evaluation on CIFAR-10: normalisation only.
    pub fn cifar_test() -> Self {
        Self {
            crop: Crop::Whole,
            flip: false,
            mean: [0.4914, 0.4822, 0.4465],
            std: [0.2023, 0.1994, 0.2010],
        }
    }

    /// Training on ImageNet: random resized crop to `size` x `size` (224), flip.
    pub fn imagenet_train(size: usize) -> Self {
        Self {
            crop: Crop::RandomResized { size },
            flip: true,
            ..Self::imagenet_test(size)
        }
    }

    /// Evaluation on ImageNet: shorter side to `size * 256 / 224`, then the middle.
    pub fn imagenet_test(size: usize) -> Self {
        Self {
            crop: Crop::Center {
                resize: size.saturating_mul(256) / 224,
                size,
            },
            flip: false,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }

    /// Height and width of what [`Augment::apply`] gives; `None` if they are the picture's own.
    pub fn size(&self) -> Option<usize> {
        match self.crop {
            Crop::Whole => None,
            Crop::Padded { size, .. }
            | Crop::RandomResized { size }
            | Crop::Center { size, .. } => Some(size),
        }
    }

    /// Crops and flips: a function of the picture and these three numbers alone.
    ///
    /// # Errors
    /// If a size is 0 or a crop does not fit into the picture.
    pub fn apply(&self, image: &Image, seed: u64, epoch: usize, index: usize) -> Result<Image> {
        let mut random = Random::of_example(seed, epoch as u64, index as u64);
        let mut out = self.cropped(image, &mut random)?;
        if self.flip && random.below(2) == 1 {
            flip(&mut out);
        }
        Ok(out)
    }

    /// Writes `(value / 255 - mean) / std` as planes: `3 * height * width` numbers, all of red,
    /// then green, then blue.
    ///
    /// # Errors
    /// If `out` has another length.
    pub fn normalise(&self, image: &Image, out: &mut [f32]) -> Result<()> {
        let plane = image.height * image.width;
        if out.len() != 3 * plane || image.pixels.len() != 3 * plane {
            return Err(Error::Batch {
                reason: format!(
                    "{} values of a picture of {} x {} go into {} places, expected {} of both; \
                     are the pictures of one size? choose a Crop that makes them so",
                    image.pixels.len(),
                    image.height,
                    image.width,
                    out.len(),
                    3 * plane
                ),
            });
        }
        for (channel, out) in out.chunks_exact_mut(plane.max(1)).enumerate() {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            // 256 divisions instead of one a pixel.
            let table: [f32; 256] =
                std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
            for (out, pixel) in out.iter_mut().zip(image.pixels.chunks_exact(3)) {
                *out = table[usize::from(pixel[channel])];
            }
        }
        Ok(())
    }

    /// The largest number of pixels a side that [`Crop`] speaks of.
    fn longest(&self) -> usize {
        match self.crop {
            Crop::Whole => 0,
            Crop::Padded { size, padding } => size.max(padding),
            Crop::RandomResized { size } => size,
            Crop::Center { resize, size } => resize.max(size),
        }
    }

    fn cropped(&self, image: &Image, random: &mut Random) -> Result<Image> {
        let (height, width) = (image.height, image.width);
        let fails = |reason: &str| Error::Batch {
            reason: format!(
                "{:?} of a picture of {height} x {width}: {reason}",
                self.crop
            ),
        };
        if self.size() == Some(0) || height == 0 || width == 0 {
            return Err(fails("both need at least one pixel"));
        }
        if image.pixels.len() != 3 * height * width {
            return Err(fails(&format!(
                "it has {} values, not three a pixel",
                image.pixels.len()
            )));
        }
        if self.longest() > LONGEST_SIDE {
            return Err(fails(&format!(
                "at most {LONGEST_SIDE} pixels a side can be made"
            )));
        }
        match self.crop {
            Crop::Whole => Ok(image.clone()),
            Crop::Padded { size, padding } => {
                let room = |side: usize| (side + 2 * padding).checked_sub(size);
                let (Some(down), Some(right)) = (room(height), room(width)) else {
                    return Err(fails("too small; take larger pictures or more padding"));
                };
                let (top, left) = (random.below(down + 1), random.below(right + 1));
                Ok(padded(image, padding, top, left, size))
            }
            Crop::RandomResized { size } => {
                Ok(resize(image, rectangle(height, width, random), size, size))
            }
            Crop::Center { resize, size } if resize < size => {
                Err(fails("resize must be at least size"))
            }
            Crop::Center {
                resize: short,
                size,
            } => Ok(center(image, short, size)),
        }
    }
}

/// The square of `size` pixels at `(top, left)` of the picture with `padding` black pixels around.
fn padded(image: &Image, padding: usize, top: usize, left: usize, size: usize) -> Image {
    let mut pixels = vec![0u8; size * size * 3];
    // Columns of the result that lie in the picture.
    let start = padding.saturating_sub(left).min(size);
    let end = (padding + image.width).saturating_sub(left).min(size);
    for (y, out) in pixels.chunks_exact_mut(size * 3).enumerate() {
        let inside = (top + y).checked_sub(padding).filter(|&y| y < image.height);
        if let Some(y) = inside.filter(|_| start < end) {
            let from = (y * image.width + left + start - padding) * 3;
            let count = (end - start) * 3;
            out[start * 3..end * 3].copy_from_slice(&image.pixels[from..from + count]);
        }
    }
    Image {
        height: size,
        width: size,
        pixels,
    }
}

/// A rectangle with a uniform share of the area and a log-uniform aspect ratio (Szegedy et al.,
/// 2015), somewhere in the picture.
fn rectangle(height: usize, width: usize, random: &mut Random) -> Region {
    let area = (height * width) as f64;
    for _ in 0..TRIES {
        let target = area * random.uniform(SCALE.0, SCALE.1);
        let ratio = random.uniform(RATIO.0.ln(), RATIO.1.ln()).exp();
        let w = (target * ratio).sqrt().round_ties_even() as usize;
        let h = (target / ratio).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            return Region {
                top: random.below(height - h + 1),
                left: random.below(width - w + 1),
                height: h,
                width: w,
            };
        }
    }
    let ratio = width as f64 / height as f64;
    let (h, w) = if ratio < RATIO.0 {
        ((width as f64 / RATIO.0).round_ties_even() as usize, width)
    } else if ratio > RATIO.1 {
        (height, (height as f64 * RATIO.1).round_ties_even() as usize)
    } else {
        (height, width)
    };
    let (h, w) = (h.clamp(1, height), w.clamp(1, width));
    Region {
        top: (height - h) / 2,
        left: (width - w) / 2,
        height: h,
        width: w,
    }
}

/// The shorter side made `short` pixels, then the square of `size` in the middle.
fn center(image: &Image, short: usize, size: usize) -> Image {
    let whole = Region {
        top: 0,
        left: 0,
        height: image.height,
        width: image.width,
    };
    let side = image.height.min(image.width);
    let (height, width) = (image.height * short / side, image.width * short / side);
    let middle = |side: usize| {
        let first = ((side - size) as f64 / 2.0).round_ties_even() as usize;
        first..first + size
    };
    let part = (middle(height), middle(width));
    resize_part(image, whole, (height, width), part)
}

/// Mirrors left to right.
fn flip(image: &mut Image) {
    for row in image.pixels.chunks_exact_mut(image.width * 3) {
        row.reverse();
        // Reversing the bytes has turned each pixel's channels round, too.
        for pixel in row.chunks_exact_mut(3) {
            pixel.swap(0, 2);
        }
    }
}
