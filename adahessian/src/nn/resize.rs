//! Images and sequences of other sizes: methods of `Tensor` in candle, functions here.
//!
//! candle's nearest neighbours overwrite the gradient of an argument that is used elsewhere, too, and know
//! whole factors only; its bilinear ones have no gradient.

use super::index::{by_sides, repeat_rows};
use super::wrong;
use candle_core::{Result, Tensor};

/// `y[.., i] = x[.., ⌊i (L/target_size)⌋]`: [N, C, L] to [N, C, target_size]. As candle has it, with L/target_size rounded
/// to f64: where i L/target_size is a whole number, the entry before it may be the one.
///
/// # Errors
/// [`crate::Error::Setting`] for what is no sequence, or an empty one.
pub fn upsample_nearest1d(x: &Tensor, target_size: usize) -> Result<Tensor> {
    match *x.dims() {
        [_, _, size] if size > 0 => repeat_rows(x, 2, nearest(size, target_size)),
        ref got => wrong("upsampling", "[N, C, L], L at least 1", got),
    }
}

/// As [`upsample_nearest1d`] in both directions: [N, C, H, W] to [N, C, target_h, target_w].
///
/// # Errors
/// [`crate::Error::Setting`] for what is no image, or an empty one.
pub fn upsample_nearest2d(x: &Tensor, target_h: usize, target_w: usize) -> Result<Tensor> {
    let (h, w) = image(x, target_h, target_w)?;
    let rows = repeat_rows(x, 2, nearest(h, target_h))?;
    repeat_rows(&rows, 3, nearest(w, target_w))
}

/// Linear interpolation in both directions, by a product with a matrix for each side: [N, C, H, W] to
/// [N, C, target_h, target_w]. With `align_corners` the corner pixels' centres stay where they are, else the
/// image's corners.
///
/// # Errors
/// [`crate::Error::Setting`] for what is no image, or an empty one.
pub fn upsample_bilinear2d(
    x: &Tensor,
    target_h: usize,
    target_w: usize,
    align_corners: bool,
) -> Result<Tensor> {
    let (h, w) = image(x, target_h, target_w)?;
    let rows = between(h, target_h, align_corners);
    let columns = between(w, target_w, align_corners);
    by_sides(x, (&rows, target_h), (&columns, target_w))
}

fn image(x: &Tensor, target_h: usize, target_w: usize) -> Result<(usize, usize)> {
    match *x.dims() {
        [_, _, h, w] if h * w * target_h * target_w > 0 => Ok((h, w)),
        ref got => {
            let expected = "[N, C, H, W], no size of 0 before or after";
            wrong("upsampling", expected, (got, (target_h, target_w)))
        }
    }
}

/// The entry nearest to each of the target's.
fn nearest(from: usize, to: usize) -> impl Iterator<Item = usize> {
    let scale = from as f64 / to as f64;
    (0..to).map(move |i| ((i as f64 * scale) as usize).min(from - 1))
}

/// The matrix [to, from] of a linear interpolation.
fn between(from: usize, to: usize, align_corners: bool) -> Vec<f64> {
    let mut matrix = vec![0.0; from * to];
    for (i, row) in matrix.chunks_mut(from).enumerate() {
        let place = match align_corners {
            true if to > 1 => i as f64 * (from - 1) as f64 / (to - 1) as f64,
            true => 0.0,
            false => ((i as f64 + 0.5) * (from as f64 / to as f64) - 0.5).max(0.0),
        };
        let low = (place as usize).min(from - 1);
        let weight = (place - low as f64).clamp(0.0, 1.0);
        row[low] += 1.0 - weight;
        row[(low + 1).min(from - 1)] += weight;
    }
    matrix
}
