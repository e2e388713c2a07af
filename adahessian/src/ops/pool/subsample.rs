//! The parameter-free shortcut of He et al. (2016), option A.

use super::image_dims;
use super::planes::{PlaneMap, Planes};
use crate::engine::{Handle, Operand, call};
use crate::error::Result;
use crate::numeric::Real;
use crate::ops::conv::composed::strided;
use crate::ops::wrong;
use candle_core::Tensor;

/// Zero channels before and after the `from` channels: as equal as they can be.
fn borders(from: usize, to: usize) -> (usize, usize) {
    let before = (to - from) / 2;
    (before, to - from - before)
}

/// Every `stride`-th row and column of every channel, with zero channels added on both sides until
/// there are `channels`. [N, C, H, W] to [N, channels, ⌈H/stride⌉, ⌈W/stride⌉].
///
/// # Errors
/// [`crate::Error::Setting`] for a shape that is no image, a stride of 0 or fewer channels than `x` has.
pub fn subsample_channels<X: Operand>(x: &X, stride: usize, channels: usize) -> Result<X> {
    X::of(on(x, stride, channels)?)
}

fn on(x: &dyn Operand, stride: usize, channels: usize) -> Result<Handle> {
    let [n, c, h, w] = image_dims(x)?;
    if stride == 0 || channels < c {
        return wrong(
            "parameter-free shortcut",
            format!("a stride of at least 1 and at least {c} channels"),
            format!("stride {stride} and {channels} channels"),
        );
    }
    let (oh, ow) = (h.div_ceil(stride), w.div_ceil(stride));
    let op = Planes {
        map: Every {
            stride,
            w,
            ow,
            channels,
        },
        images: n,
        from: c,
        to: channels,
        before: borders(c, channels).0,
        size: h * w,
        result: oh * ow,
        shape: vec![n, channels, oh, ow],
    };
    call(op, &[x])
}

/// Every `stride`-th pixel of every `stride`-th row.
struct Every {
    stride: usize,
    w: usize,
    ow: usize,
    /// Channels of the result.
    channels: usize,
}

impl Every {
    fn place(&self, i: usize) -> usize {
        (i / self.ow * self.w + i % self.ow) * self.stride
    }
}

impl PlaneMap for Every {
    const NAME: &'static str = "subsample_channels";

    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let (n, c, h, w) = x.dims4()?;
        let (stride, channels) = (self.stride, self.channels);
        let rows = strided(x, 2, 0, stride, h.div_ceil(stride))?;
        let y = strided(&rows, 3, 0, stride, w.div_ceil(stride))?;
        if channels == c {
            return Ok(y);
        }
        let (before, after) = borders(c, channels);
        let (_, _, oh, ow) = y.dims4()?;
        let zeros = |count: usize| Tensor::zeros((n, count, oh, ow), x.dtype(), x.device());
        Ok(Tensor::cat(&[&zeros(before)?, &y, &zeros(after)?], 1)?)
    }

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

    const OF_TENSORS: bool = true;

    fn transposed_tensor(&self, g: &Tensor, shape: &[usize]) -> Result<Tensor> {
        let &[n, c, h, w] = shape else {
            return wrong("image", "[N, C, H, W]", format!("{shape:?}"));
        };
        let (_, channels, oh, ow) = g.dims4()?;
        // Beyond the image there is one pixel of it, and memory for more would be asked for.
        let stride = self.stride.min(h.max(w).max(1));
        let g = g.narrow(1, borders(c, channels).0, c)?.contiguous()?;
        // Zeros behind every pixel and row.
        let apart = g.reshape((n, c * oh, 1, ow, 1))?;
        let apart = apart.pad_with_zeros(2, 0, stride - 1)?;
        let apart = apart.pad_with_zeros(4, 0, stride - 1)?;
        let whole = apart.reshape((n, c, oh * stride, ow * stride))?;
        Ok(whole.narrow(2, 0, h)?.narrow(3, 0, w)?.contiguous()?)
    }
}
