//! Pooling of images: methods of `Tensor` in candle, functions and layers here.
//!
//! candle's `max_pool2d` has a gradient that is too small by the window's area, and its pools fail where
//! kernel and stride differ or the window does not divide the image. Square windows are one fused
//! operation on the CPU, others are composed: the rows of a window, then its columns.

use super::{index, wrong};
use crate::numeric::widened;
use crate::ops::Window;
use candle_core::{Module, Result, Tensor, ToUsize2};

/// The largest value of each window of this size, side by side: [N, C, H, W] to [N, C, OH, OW]. Of equal
/// ones the first gets the gradient.
///
/// # Errors
/// [`crate::Error::Setting`] for a shape or window that does not fit.
pub fn max_pool2d<T: ToUsize2>(x: &Tensor, kernel_size: T) -> Result<Tensor> {
    let kernel = kernel_size.to_usize2();
    max_pool2d_with_stride(x, kernel, kernel)
}

/// As [`max_pool2d`], with this many pixels between two windows.
///
/// # Errors
/// As [`max_pool2d`].
pub fn max_pool2d_with_stride<T: ToUsize2>(
    x: &Tensor,
    kernel_size: T,
    stride: T,
) -> Result<Tensor> {
    let (kernel, stride) = (kernel_size.to_usize2(), stride.to_usize2());
    match square(kernel, stride) {
        Some(pooling) => Ok(crate::ops::max_pool2d(x, &pooling)?),
        None => sides(x, kernel, stride, |best, tap| {
            // Not-a-number stays, as in the fused form; of equals the first does.
            let (b, t) = (best.detach(), tap.detach());
            (t.le(&b)? + b.ne(&b)?)?.where_cond(best, tap)
        }),
    }
}

/// The mean of each window of this size, side by side: [N, C, H, W] to [N, C, OH, OW].
///
/// # Errors
/// [`crate::Error::Setting`] for a shape or window that does not fit.
pub fn avg_pool2d<T: ToUsize2>(x: &Tensor, kernel_size: T) -> Result<Tensor> {
    let kernel = kernel_size.to_usize2();
    avg_pool2d_with_stride(x, kernel, kernel)
}

/// As [`avg_pool2d`], with this many pixels between two windows.
///
/// # Errors
/// As [`avg_pool2d`].
pub fn avg_pool2d_with_stride<T: ToUsize2>(
    x: &Tensor,
    kernel_size: T,
    stride: T,
) -> Result<Tensor> {
    let (kernel, stride) = (kernel_size.to_usize2(), stride.to_usize2());
    match square(kernel, stride) {
        Some(pooling) => Ok(crate::ops::avg_pool2d(x, &pooling)?),
        None => {
            // Half precision has too few digits for the sum.
            let sum = sides(&widened(x)?, kernel, stride, |sum, tap| sum + tap)?;
            (sum * (1.0 / (kernel.0 * kernel.1) as f64))?.to_dtype(x.dtype())
        }
    }
}

/// The mean of each channel: [N, C, H, W] to [N, C].
///
/// # Errors
/// [`crate::Error::Setting`] for a shape that is no image, or an empty one.
pub fn global_avg_pool2d(x: &Tensor) -> Result<Tensor> {
    Ok(crate::ops::global_avg_pool2d(x)?)
}

/// Means over windows that divide the image into `size` = (OH, OW) as evenly as can be, row i of them being
/// rows ⌊i H/OH⌋ to ⌈(i + 1) H/OH⌉ of the image: [N, C, H, W] to [N, C, OH, OW].
///
/// Where OH and OW divide the image, these are pools; else a product with a matrix of means for each side.
///
/// # Errors
/// [`crate::Error::Setting`] for a shape that is no image, or a size of 0.
pub fn adaptive_avg_pool2d<T: ToUsize2>(x: &Tensor, size: T) -> Result<Tensor> {
    let (oh, ow) = size.to_usize2();
    let &[_, _, h, w] = x.dims() else {
        return wrong("image", "[N, C, H, W]", x.dims());
    };
    if [oh, ow, h, w].contains(&0) {
        let expected = "an image and a result of at least one pixel";
        return wrong("adaptive pooling", expected, (x.dims(), (oh, ow)));
    }
    if h.is_multiple_of(oh) && w.is_multiple_of(ow) {
        return avg_pool2d(x, (h / oh, w / ow));
    }
    index::by_sides(x, (&means(h, oh), oh), (&means(w, ow), ow))
}

/// The matrix [to, from] of the means that adaptive pooling takes.
fn means(from: usize, to: usize) -> Vec<f64> {
    let mut matrix = vec![0.0; from * to];
    for (i, row) in matrix.chunks_mut(from).enumerate() {
        let (start, end) = (i * from / to, ((i + 1) * from).div_ceil(to));
        row[start..end].fill(1.0 / (end - start) as f64);
    }
    matrix
}

fn square(kernel: (usize, usize), stride: (usize, usize)) -> Option<Window> {
    (kernel.0 == kernel.1 && stride.0 == stride.1).then_some(Window {
        kernel: kernel.0,
        stride: stride.0,
        padding: 0,
    })
}

/// Joins the taps of each window: within its rows, then these.
fn sides(
    x: &Tensor,
    kernel: (usize, usize),
    stride: (usize, usize),
    join: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let steps = [kernel.0, kernel.1, stride.0, stride.1];
    let fits = matches!(x.dims(), &[_, _, h, w] if h >= kernel.0 && w >= kernel.1);
    if !fits || steps.contains(&0) {
        let expected =
            "an image [N, C, H, W], kernel and stride at least 1, and a window that fits";
        return wrong("pooling", expected, (x.dims(), kernel, stride));
    }
    let mut x = x.clone();
    for (dim, kernel, stride) in [(3, kernel.1, stride.1), (2, kernel.0, stride.0)] {
        let count = (x.dims()[dim] - kernel) / stride + 1;
        let tap =
            |first: usize| index::repeat_rows(&x, dim, (0..count).map(move |i| first + i * stride));
        let mut joined = tap(0)?;
        for first in 1..kernel {
            joined = join(&joined, &tap(first)?)?;
        }
        x = joined;
    }
    Ok(x)
}

/// [`max_pool2d`] as a layer, with any stride and a border that is never the maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool2d(Window);

impl MaxPool2d {
    /// Windows of kernel x kernel pixels, `stride` pixels apart, on an image with `padding` more on every side.
    pub fn new(kernel: usize, stride: usize, padding: usize) -> Self {
        Self(Window {
            kernel,
            stride,
            padding,
        })
    }
}

impl Module for MaxPool2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(crate::ops::max_pool2d(x, &self.0)?)
    }
}

/// [`avg_pool2d`] as a layer, with any stride and a border of zeros, which count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvgPool2d(Window);

impl AvgPool2d {
    /// Windows of kernel x kernel pixels, `stride` pixels apart, on an image with `padding` more on every side.
    pub fn new(kernel: usize, stride: usize, padding: usize) -> Self {
        Self(Window {
            kernel,
            stride,
            padding,
        })
    }
}

impl Module for AvgPool2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(crate::ops::avg_pool2d(x, &self.0)?)
    }
}

/// [`adaptive_avg_pool2d`] as a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveAvgPool2d {
    /// Height and width of the result.
    pub size: (usize, usize),
}

impl Module for AdaptiveAvgPool2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        adaptive_avg_pool2d(x, self.size)
    }
}

/// [`global_avg_pool2d`] as a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalAvgPool2d;

impl Module for GlobalAvgPool2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        global_avg_pool2d(x)
    }
}
