//! Maximum, average and global pooling.

mod planes;
mod subsample;

pub use subsample::subsample_channels;

use super::conv::composed::{pad, strided};
use super::wrong;
use crate::engine::{Handle, Operand, call};
use crate::error::Result;
use crate::numeric::{Real, lowest, widened};
use candle_core::Tensor;
use planes::{PlaneMap, Planes};

/// A square window that moves over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width of the window.
    pub kernel: usize,
    /// Pixels between two windows.
    pub stride: usize,
    /// Pixels added on every side: never the maximum, zero in an average.
    pub padding: usize,
}

impl Window {
    /// The height and width of the result: ⌊(size + 2·padding - kernel)/stride⌋ + 1.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a window that does not fit, a kernel or stride of 0, or a
    /// padding above half of the kernel.
    pub fn output_size(&self, (height, width): (usize, usize)) -> Result<(usize, usize)> {
        let room = |size: usize| {
            let padded = self.padding.checked_mul(2)?.checked_add(size)?;
            padded.checked_sub(self.kernel)
        };
        match (room(height), room(width)) {
            (Some(height), Some(width))
                if self.kernel > 0 && self.stride > 0 && 2 * self.padding <= self.kernel =>
            {
                Ok((height / self.stride + 1, width / self.stride + 1))
            }
            _ => wrong(
                "pooling",
                "kernel and stride at least 1, padding at most half of the kernel, and a window that fits",
                format!("{self:?} on {height}x{width}"),
            ),
        }
    }
}

fn image_dims(x: &dyn Operand) -> Result<[usize; 4]> {
    match *x.dims() {
        [n, c, h, w] => Ok([n, c, h, w]),
        ref got => wrong("image", "[N, C, H, W]", format!("{got:?}")),
    }
}

/// The largest value of each window; where several are equal, the first in row-major order gets the
/// gradient. [N, C, H, W] to [N, C, OH, OW].
///
/// candle's `max_pool2d` knows no padding, refuses a kernel that differs from the stride when
/// differentiated, and its gradient is too small by the window's area.
///
/// # Errors
/// [`crate::Error::Setting`] for a shape or window that does not fit.
pub fn max_pool2d<X: Operand>(x: &X, window: &Window) -> Result<X> {
    X::of(maximum(x, window)?)
}

fn maximum(x: &dyn Operand, window: &Window) -> Result<Handle> {
    on_windows(x, window, Maximum)
}

/// The mean of each window, the border counted as zeros (PyTorch's `count_include_pad`).
/// [N, C, H, W] to [N, C, OH, OW].
///
/// # Errors
/// [`crate::Error::Setting`] for a shape or window that does not fit.
pub fn avg_pool2d<X: Operand>(x: &X, window: &Window) -> Result<X> {
    X::of(mean(x, window)?)
}

fn mean(x: &dyn Operand, window: &Window) -> Result<Handle> {
    on_windows(x, window, Mean)
}

/// The mean of each channel over the whole image. [N, C, H, W] to [N, C].
///
/// # Errors
/// [`crate::Error::Setting`] for a shape that is no image, or an empty one.
pub fn global_avg_pool2d<X: Operand>(x: &X) -> Result<X> {
    X::of(whole(x)?)
}

fn whole(x: &dyn Operand) -> Result<Handle> {
    let [n, c, h, w] = image_dims(x)?;
    if h * w == 0 {
        return wrong("image", "at least one pixel", format!("{h}x{w}"));
    }
    call(planes(Whole, [n, c, h * w, 1], vec![n, c]), &[x])
}

fn planes<M>(map: M, [n, c, size, result]: [usize; 4], shape: Vec<usize>) -> Planes<M> {
    Planes {
        map,
        images: n,
        from: c,
        to: c,
        before: 0,
        size,
        result,
        shape,
    }
}

fn on_windows<M: PlaneMap>(
    x: &dyn Operand,
    window: &Window,
    map: impl FnOnce(Windows) -> M,
) -> Result<Handle> {
    let [n, c, h, w] = image_dims(x)?;
    let windows = Windows::new(window, (h, w))?;
    let (oh, ow) = (windows.oh, windows.ow);
    let planes = planes(map(windows), [n, c, h * w, oh * ow], vec![n, c, oh, ow]);
    call(planes, &[x])
}

/// The windows of a plane.
#[derive(Clone, Copy)]
struct Windows {
    pooling: Window,
    h: usize,
    w: usize,
    oh: usize,
    ow: usize,
}

impl Windows {
    fn new(pooling: &Window, (h, w): (usize, usize)) -> Result<Self> {
        let (oh, ow) = pooling.output_size((h, w))?;
        Ok(Self {
            pooling: *pooling,
            h,
            w,
            oh,
            ow,
        })
    }

    /// What `both` makes of the taps of every window with a border of `value`: within their rows, then of these, so that
    /// a window of any size is a short chain of operations.
    fn joined(
        &self,
        x: &Tensor,
        value: f64,
        both: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let Window {
            kernel,
            stride,
            padding,
        } = self.pooling;
        let mut all = pad(x, padding, value)?;
        for (dim, count) in [(3, self.ow), (2, self.oh)] {
            let taps = all;
            all = strided(&taps, dim, 0, stride, count)?;
            for first in 1..kernel {
                all = both(&all, &strided(&taps, dim, first, stride, count)?)?;
            }
        }
        Ok(all)
    }

    /// The pixels of a window along one direction.
    fn range(&self, i: usize, size: usize) -> std::ops::Range<usize> {
        let start = i * self.pooling.stride;
        let end = (start + self.pooling.kernel).saturating_sub(self.pooling.padding);
        start.saturating_sub(self.pooling.padding)..end.min(size)
    }

    /// Calls `work` with each window's number, rows and columns.
    fn each(&self, mut work: impl FnMut(usize, std::ops::Range<usize>, std::ops::Range<usize>)) {
        for y in 0..self.oh {
            for x in 0..self.ow {
                work(
                    y * self.ow + x,
                    self.range(y, self.h),
                    self.range(x, self.w),
                );
            }
        }
    }
}

/// The larger of two, the first of equals and the first not-a-number, as in the fused form. candle's own
/// `maximum` would share the gradient between equals, and swallows not-a-number on a GPU.
fn larger(best: &Tensor, tap: &Tensor) -> Result<Tensor> {
    let (b, t) = (best.detach(), tap.detach());
    // The first is false where either is not-a-number, the second true where the best is.
    let keep = (t.le(&b)? + b.ne(&b)?)?;
    Ok(keep.where_cond(best, tap)?)
}

struct Maximum(Windows);

impl PlaneMap for Maximum {
    const NAME: &'static str = "max_pool2d";

    /// The maximum over strided slices.
    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        self.0.joined(x, lowest(x.dtype()), larger)
    }

    fn forward<T: Real>(&self, x: &[T], y: &mut [T], picked: &mut [u32]) {
        let width = self.0.w;
        self.0.each(|window, rows, columns| {
            let mut best = rows.start * width + columns.start;
            for row in rows {
                for i in row * width + columns.start..row * width + columns.end {
                    // A NaN wins and stays, so that it is seen.
                    if x[i] > x[best] || (is_nan(x[i]) && !is_nan(x[best])) {
                        best = i;
                    }
                }
            }
            y[window] = x[best];
            picked[window] = best as u32;
        });
    }
    fn again<T: Real>(&self, v: &[T], y: &mut [T], picked: &[u32]) {
        y.iter_mut()
            .zip(picked)
            .for_each(|(y, &i)| *y = v[i as usize]);
    }
    fn transposed<T: Real>(&self, g: &[T], x: &mut [T], picked: &[u32]) {
        g.iter().zip(picked).for_each(|(&g, &i)| x[i as usize] += g);
    }
    fn picks(&self) -> bool {
        true
    }
}

/// NaN is the one number that is not equal to itself.
fn is_nan<T: Real>(x: T) -> bool {
    x.partial_cmp(&x).is_none()
}

struct Mean(Windows);

impl Mean {
    fn factor(&self) -> f64 {
        let kernel = self.0.pooling.kernel as f64;
        1.0 / (kernel * kernel)
    }
}

impl PlaneMap for Mean {
    const NAME: &'static str = "avg_pool2d";

    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        // Half precision has too few digits for the sum.
        let sum = self
            .0
            .joined(&widened(x)?, 0.0, |sum, tap| Ok((sum + tap)?))?;
        let mean = (sum / self.0.pooling.kernel.pow(2) as f64)?;
        Ok(mean.to_dtype(x.dtype())?)
    }

    fn forward<T: Real>(&self, x: &[T], y: &mut [T], _: &mut [u32]) {
        self.again(x, y, &[]);
    }
    fn again<T: Real>(&self, v: &[T], y: &mut [T], _: &[u32]) {
        let (width, factor) = (self.0.w, self.factor());
        self.0.each(|window, rows, columns| {
            let row = |row: usize| &v[row * width + columns.start..row * width + columns.end];
            let sum: f64 = rows.flat_map(|i| row(i).iter().map(|v| v.to_f64())).sum();
            y[window] = T::from_f64(sum * factor);
        });
    }
    fn transposed<T: Real>(&self, g: &[T], x: &mut [T], _: &[u32]) {
        let (width, factor) = (self.0.w, T::from_f64(self.factor()));
        self.0.each(|window, rows, columns| {
            let g = g[window] * factor;
            for row in rows {
                let pixels = &mut x[row * width + columns.start..row * width + columns.end];
                pixels.iter_mut().for_each(|x| *x += g);
            }
        });
    }
    fn picks(&self) -> bool {
        false
    }
}

/// The mean of a plane.
struct Whole;

impl PlaneMap for Whole {
    const NAME: &'static str = "global_avg_pool2d";

    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        // Half precision has too few digits for the sum.
        let mean = widened(x)?.flatten_from(2)?.mean(2)?;
        Ok(mean.to_dtype(x.dtype())?)
    }

    fn forward<T: Real>(&self, x: &[T], y: &mut [T], _: &mut [u32]) {
        self.again(x, y, &[]);
    }
    fn again<T: Real>(&self, v: &[T], y: &mut [T], _: &[u32]) {
        let sum: f64 = v.iter().map(|v| v.to_f64()).sum();
        y[0] = T::from_f64(sum / v.len() as f64);
    }
    fn transposed<T: Real>(&self, g: &[T], x: &mut [T], _: &[u32]) {
        let part = g[0] * T::from_f64(1.0 / x.len() as f64);
        x.fill(part);
    }
    fn picks(&self) -> bool {
        false
    }

    const OF_TENSORS: bool = true;

    fn transposed_tensor(&self, g: &Tensor, shape: &[usize]) -> Result<Tensor> {
        let pixels = shape[2] * shape[3];
        let part = (g / pixels as f64)?.reshape((shape[0], shape[1], 1, 1))?;
        Ok(part.broadcast_as(shape)?.contiguous()?)
    }
}
