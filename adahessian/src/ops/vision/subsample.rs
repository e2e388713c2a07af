//! The parameter-free shortcut of He et al. (2016), option A.

use super::super::engine::{Fused, Handle, Inner, Real, apply};
use super::super::wrong;
use super::composed;
use super::linear_maps::{PlaneMap, Planes};
use super::pooling::image_dims;
use crate::error::Result;

/// Zero channels before and after the `from` channels: as equal as they can be.
pub(super) fn borders(from: usize, to: usize) -> (usize, usize) {
    let before = (to - from) / 2;
    (before, to - from - before)
}

/// Every `stride`-th row and column of every channel, with zero channels added on both sides until
/// there are `channels`. [N, C, H, W] to [N, channels, ⌈H/stride⌉, ⌈W/stride⌉].
///
/// # Errors
/// [`crate::Error::Setting`] for a shape that is no image, a stride of 0 or fewer channels than `x` has.
pub fn subsample_channels(x: &Handle, stride: usize, channels: usize) -> Result<Handle> {
    let [_, c, _, _] = image_dims(x)?;
    if stride == 0 || channels < c {
        return wrong(
            "parameter-free shortcut",
            format!("a stride of at least 1 and at least {c} channels"),
            format!("stride {stride} and {channels} channels"),
        );
    }
    match x.inner() {
        Inner::Composed(x) => Ok(Handle::composed(&composed::subsample_channels(
            x, stride, channels,
        )?)),
        Inner::F32(x) => Ok(fused(x, stride, channels)?.into()),
        Inner::F64(x) => Ok(fused(x, stride, channels)?.into()),
    }
}

fn fused<T: Real>(x: &Fused<T>, stride: usize, channels: usize) -> Result<Fused<T>> {
    let shape = &x.slot.shape;
    let (n, c, h, w) = (shape[0], shape[1], shape[2], shape[3]);
    let (oh, ow) = (h.div_ceil(stride), w.div_ceil(stride));
    let op = Planes {
        name: "subsample_channels",
        map: Every { stride, w, ow },
        images: n,
        from: c,
        to: channels,
        before: borders(c, channels).0,
        size: h * w,
        result: oh * ow,
    };
    apply(op, &[x], &[n, channels, oh, ow])
}

/// Every `stride`-th pixel of every `stride`-th row.
struct Every {
    stride: usize,
    w: usize,
    ow: usize,
}

impl Every {
    fn place(&self, i: usize) -> usize {
        (i / self.ow * self.w + i % self.ow) * self.stride
    }
}

impl PlaneMap for Every {
    fn forward<T: Real>(&self, x: &[T], y: &mut [T], _: &mut [u32]) {
        self.again(x, y, &[]);
    }
    fn again<T: Real>(&self, v: &[T], y: &mut [T], _: &[u32]) {
        y.iter_mut()
            .enumerate()
            .for_each(|(i, y)| *y = v[self.place(i)]);
    }
    fn transposed<T: Real>(&self, g: &[T], x: &mut [T], _: &[u32]) {
        g.iter()
            .enumerate()
            .for_each(|(i, &g)| x[self.place(i)] = g);
    }
    fn picks(&self) -> bool {
        false
    }
}
