//! Antialiased bilinear resizing of a part of a picture.

use super::Image;
use std::ops::Range;

/// Bits after the binary point of a weight: 8 of the pixel and 2 of headroom stay within 32.
const PRECISION: u32 = 22;

/// A rectangle of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

/// The input pixels that make up one output pixel.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// The taps of the output pixels `wanted` along one axis of `from` pixels made `to` pixels.
///
/// Output pixel `i` lies at `c = (i + 1/2) s` of the input, `s = from / to`. Input pixel `k` has the
/// weight `max(0, 1 - |k + 1/2 - c| / max(s, 1))`, and the weights are divided by their sum: a
/// triangle that widens when the picture shrinks, so that no pixel is passed over.
fn taps(from: usize, to: usize, wanted: Range<usize>) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    let tap = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weights: Vec<f64> = (first..end)
            .map(|k| (1.0 - (k as f64 + 0.5 - center).abs() / support).max(0.0))
            .collect();
        let sum: f64 = weights.iter().sum();
        let one = f64::from(1u32 << PRECISION);
        Taps {
            first,
            weights: weights
                .iter()
                .map(|w| (w / sum * one).round() as i32)
                .collect(),
        }
    };
    wanted.map(tap).collect()
}

/// `sum` as a pixel, rounded.
fn to_pixel(sum: i32) -> u8 {
    ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
}

/// The region of the picture, resized to `height` x `width`; rows first shortened, then columns,
/// each rounded to eight bits, as Pillow's `BILINEAR` does it.
pub(crate) fn resize(image: &Image, region: Region, height: usize, width: usize) -> Image {
    resize_part(image, region, (height, width), (0..height, 0..width))
}

/// These rows and columns of what [`resize`] gives for the size `whole`. Nothing else of it is made: of a
/// picture of one row, the whole may be larger than any memory.
pub(crate) fn resize_part(
    image: &Image,
    region: Region,
    whole: (usize, usize),
    (rows, columns): (Range<usize>, Range<usize>),
) -> Image {
    let (height, width) = (rows.len(), columns.len());
    let columns = taps(region.width, whole.1, columns);
    let mut narrow = vec![0u8; region.height * width * 3];
    for (y, out) in narrow.chunks_exact_mut(width * 3).enumerate() {
        let start = ((region.top + y) * image.width + region.left) * 3;
        let row = &image.pixels[start..start + region.width * 3];
        for (tap, out) in columns.iter().zip(out.chunks_exact_mut(3)) {
            let mut sums = [0i32; 3];
            for (pixel, weight) in row[tap.first * 3..].chunks_exact(3).zip(&tap.weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            for (value, sum) in out.iter_mut().zip(sums) {
                *value = to_pixel(sum);
            }
        }
    }
    let mut pixels = vec![0u8; height * width * 3];
    let mut sums = vec![0i32; width * 3];
    for (tap, out) in taps(region.height, whole.0, rows)
        .iter()
        .zip(pixels.chunks_exact_mut(width * 3))
    {
        sums.fill(0);
        let rows = narrow[tap.first * width * 3..].chunks_exact(width * 3);
        for (row, weight) in rows.zip(&tap.weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        for (value, &sum) in out.iter_mut().zip(&sums) {
            *value = to_pixel(sum);
        }
    }
    Image {
        height,
        width,
        pixels,
    }
}
