//! Rearrangements of images: exact, since they are linear.

use crate::nn::index::repeat_rows;
use crate::nn::wrong;
use candle_core::{Result, Tensor};

fn check(x: &Tensor, what: &'static str, fits: impl Fn(&[usize]) -> bool) -> Result<()> {
    match x.rank() == 4 && fits(x.dims()) {
        true => Ok(()),
        false => wrong(
            what,
            "[N, C, H, W] whose sizes the factor divides",
            x.dims(),
        ),
    }
}

/// Channels to pixels: [N, C f², H, W] to [N, C, H f, W f] (Shi et al. 2016).
///
/// # Errors
/// [`crate::Error::Setting`] for channels that f² does not divide.
pub fn pixel_shuffle(x: &Tensor, upscale_factor: usize) -> Result<Tensor> {
    let f = upscale_factor;
    check(x, "pixel_shuffle", |dims| {
        let square = f.checked_mul(f).filter(|square| *square > 0);
        square.is_some_and(|square| dims[1] % square == 0)
    })?;
    let (n, c, h, w) = x.dims4()?;
    let parts = x.reshape((n, c / (f * f), f, f, h, w))?;
    parts
        .permute((0, 1, 4, 2, 5, 3))?
        .reshape((n, c / (f * f), h * f, w * f))
}

/// Pixels to channels: [N, C, H f, W f] to [N, C f², H, W].
///
/// # Errors
/// [`crate::Error::Setting`] for a height or width that f does not divide.
pub fn pixel_unshuffle(x: &Tensor, downscale_factor: usize) -> Result<Tensor> {
    let f = downscale_factor;
    check(x, "pixel_unshuffle", |dims| {
        f > 0 && dims[2] % f == 0 && dims[3] % f == 0
    })?;
    let (n, c, h, w) = x.dims4()?;
    let parts = x.reshape((n, c, h / f, f, w / f, f))?;
    parts
        .permute((0, 1, 3, 5, 2, 4))?
        .reshape((n, c * f * f, h / f, w / f))
}

/// A border of `pad` pixels, each a copy of the nearest of the image; any width, where candle has 0 and 1.
/// [N, C, H, W] to [N, C, H + 2 pad, W + 2 pad].
///
/// # Errors
/// [`crate::Error::Setting`] for what is no image, or an empty one.
pub fn replication_pad2d(x: &Tensor, pad: usize) -> Result<Tensor> {
    check(x, "replication_pad2d", |dims| dims[2] > 0 && dims[3] > 0)?;
    if pad == 0 {
        return Ok(x.clone());
    }
    let nearest = |size: usize| {
        let all = 0..size + 2 * pad;
        all.map(move |i| i.saturating_sub(pad).min(size - 1))
    };
    let (_, _, h, w) = x.dims4()?;
    repeat_rows(&repeat_rows(x, 2, nearest(h))?, 3, nearest(w))
}
