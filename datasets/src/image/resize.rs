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
/// picture of one row, or of one column, the whole may be larger than any memory.
pub(crate) fn resize_part(
    image: &Image,
    region: Region,
    whole: (usize, usize),
    (rows, columns): (Range<usize>, Range<usize>),
) -> Image {
    let (height, width) = (rows.len(), columns.len());
    let columns = taps(region.width, whole.1, columns);
    let rows = taps(region.height, whole.0, rows);
    // The rows of the picture that any of them reads.
    let first = rows.first().map_or(0, |tap| tap.first);
    let end = rows.last().map_or(0, |tap| tap.first + tap.weights.len());
    let mut narrow = vec![0u8; (end - first) * width * 3];
    for (y, out) in narrow.chunks_exact_mut(width * 3).enumerate() {
        let start = ((region.top + first + y) * image.width + region.left) * 3;
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
    for (tap, out) in rows.iter().zip(pixels.chunks_exact_mut(width * 3)) {
        sums.fill(0);
        let rows = narrow[(tap.first - first) * width * 3..].chunks_exact(width * 3);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(height: usize, width: usize) -> Image {
        let pixel = |i: usize| (i * 37 % 251) as u8;
        Image {
            height,
            width,
            pixels: (0..height * width * 3).map(pixel).collect(),
        }
    }

    #[test]
    fn a_part_is_that_of_the_whole() {
        let image = picture(23, 17);
        let region = Region {
            top: 2,
            left: 3,
            height: 20,
            width: 13,
        };
        for (height, width) in [(9, 31), (40, 5), (20, 13)] {
            let whole = resize(&image, region, height, width);
            let (rows, columns) = (height / 4..height - 1, 1..width / 2);
            let part = resize_part(
                &image,
                region,
                (height, width),
                (rows.clone(), columns.clone()),
            );
            assert_eq!((part.height, part.width), (rows.len(), columns.len()));
            for (y, row) in rows.enumerate() {
                let from = (row * width + columns.start) * 3;
                let expected = &whole.pixels[from..from + columns.len() * 3];
                let got = &part.pixels[y * columns.len() * 3..][..columns.len() * 3];
                assert_eq!(got, expected, "row {row} of {height} x {width}");
            }
        }
    }

    /// All of it, 224 wide, would be 11 GB.
    #[test]
    fn the_middle_of_a_single_column_needs_no_more_than_itself() {
        let image = picture(1 << 24, 1);
        let whole = Region {
            top: 0,
            left: 0,
            height: 1 << 24,
            width: 1,
        };
        // 256 of these lie in a row of the picture, and this one is nearest to the centre of row 2^23.
        let (nearest, before) = ((1 << 31) + 127, 100);
        let rows = nearest - before..nearest - before + 224;
        let part = resize_part(&image, whole, (1 << 32, 256), (rows, 16..240));
        assert_eq!((part.height, part.width), (224, 224));
        let (row, got) = ((1 << 23) * 3, before * 224 * 3);
        for channel in 0..3 {
            let (got, expected) = (part.pixels[got + channel], image.pixels[row + channel]);
            assert!(got.abs_diff(expected) <= 1, "{got}, {expected}");
        }
    }
}
