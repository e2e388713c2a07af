//! Maximum, average and global pooling.

use super::super::engine::{Fused, Handle, Inner, Real, apply};
use super::super::wrong;
use super::composed;
use super::linear_maps::{PlaneMap, Planes};
use crate::error::Result;

/// A square window that moves over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// Height and width of the window.
    pub kernel: usize,
    /// Pixels between two windows.
    pub stride: usize,
    /// Pixels added on every side: never the maximum, zero in an average.
    pub padding: usize,
}

impl Pooling {
    /// The height and width of the result: ⌊(size + 2·padding - kernel)/stride⌋ + 1.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a window that does not fit, a kernel or stride of 0, or a
    /// padding above half of the kernel.
    pub fn output_size(&self, (height, width): (usize, usize)) -> Result<(usize, usize)> {
        let room = |size: usize| (size + 2 * self.padding).checked_sub(self.kernel);
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

pub(super) fn image_dims(x: &Handle) -> Result<[usize; 4]> {
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
pub fn max_pool2d(x: &Handle, pooling: &Pooling) -> Result<Handle> {
    let [_, _, h, w] = image_dims(x)?;
    let windows = Windows::new(pooling, (h, w))?;
    match x.inner() {
        Inner::Composed(x) => Ok(Handle::composed(&composed::max_pool2d(x, pooling)?)),
        Inner::F32(x) => Ok(fused(x, "max_pool2d", Maximum(windows))?.into()),
        Inner::F64(x) => Ok(fused(x, "max_pool2d", Maximum(windows))?.into()),
    }
}

/// The mean of each window, the border counted as zeros (PyTorch's `count_include_pad`).
/// [N, C, H, W] to [N, C, OH, OW].
///
/// # Errors
/// [`crate::Error::Setting`] for a shape or window that does not fit.
pub fn avg_pool2d(x: &Handle, pooling: &Pooling) -> Result<Handle> {
    let [_, _, h, w] = image_dims(x)?;
    let windows = Windows::new(pooling, (h, w))?;
    match x.inner() {
        Inner::Composed(x) => Ok(Handle::composed(&composed::avg_pool2d(x, pooling)?)),
        Inner::F32(x) => Ok(fused(x, "avg_pool2d", Mean(windows))?.into()),
        Inner::F64(x) => Ok(fused(x, "avg_pool2d", Mean(windows))?.into()),
    }
}

/// The mean of each channel over the whole image. [N, C, H, W] to [N, C].
///
/// # Errors
/// [`crate::Error::Setting`] for a shape that is no image, or an empty one.
pub fn global_avg_pool2d(x: &Handle) -> Result<Handle> {
    let [n, c, h, w] = image_dims(x)?;
    if h * w == 0 {
        return wrong("image", "at least one pixel", format!("{h}x{w}"));
    }
    fn all<T: Real>(x: &Fused<T>, [n, c, h, w]: [usize; 4]) -> Result<Fused<T>> {
        apply(
            planes("global_avg_pool2d", Whole, [n, c, h * w, 1]),
            &[x],
            &[n, c],
        )
    }
    match x.inner() {
        Inner::Composed(x) => Ok(Handle::composed(&x.flatten_from(2)?.mean(2)?)),
        Inner::F32(x) => Ok(all(x, [n, c, h, w])?.into()),
        Inner::F64(x) => Ok(all(x, [n, c, h, w])?.into()),
    }
}

fn planes<M>(name: &'static str, map: M, [n, c, size, result]: [usize; 4]) -> Planes<M> {
    Planes {
        name,
        map,
        images: n,
        from: c,
        to: c,
        before: 0,
        size,
        result,
    }
}

trait OnWindows: PlaneMap {
    fn windows(&self) -> &Windows;
}

fn fused<T: Real, M: OnWindows>(x: &Fused<T>, name: &'static str, map: M) -> Result<Fused<T>> {
    let (n, c) = (x.slot.shape[0], x.slot.shape[1]);
    let windows = map.windows();
    let (h, w, oh, ow) = (windows.h, windows.w, windows.oh, windows.ow);
    apply(
        planes(name, map, [n, c, h * w, oh * ow]),
        &[x],
        &[n, c, oh, ow],
    )
}

/// The windows of a plane.
#[derive(Clone, Copy)]
struct Windows {
    pooling: Pooling,
    h: usize,
    w: usize,
    oh: usize,
    ow: usize,
}

impl Windows {
    fn new(pooling: &Pooling, (h, w): (usize, usize)) -> Result<Self> {
        let (oh, ow) = pooling.output_size((h, w))?;
        Ok(Self {
            pooling: *pooling,
            h,
            w,
            oh,
            ow,
        })
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

struct Maximum(Windows);

impl OnWindows for Maximum {
    fn windows(&self) -> &Windows {
        &self.0
    }
}

impl PlaneMap for Maximum {
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

impl OnWindows for Mean {
    fn windows(&self) -> &Windows {
        &self.0
    }
}

impl Mean {
    fn factor<T: Real>(&self) -> T {
        let kernel = self.0.pooling.kernel as f64;
        T::from_f64(1.0 / (kernel * kernel))
    }
}

impl PlaneMap for Mean {
    fn forward<T: Real>(&self, x: &[T], y: &mut [T], _: &mut [u32]) {
        self.again(x, y, &[]);
    }
    fn again<T: Real>(&self, v: &[T], y: &mut [T], _: &[u32]) {
        let (width, factor) = (self.0.w, self.factor::<T>());
        self.0.each(|window, rows, columns| {
            let row = |row: usize| &v[row * width + columns.start..row * width + columns.end];
            let sum: T = rows.flat_map(|i| row(i).iter().copied()).sum();
            y[window] = sum * factor;
        });
    }
    fn transposed<T: Real>(&self, g: &[T], x: &mut [T], _: &[u32]) {
        let (width, factor) = (self.0.w, self.factor::<T>());
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
}
