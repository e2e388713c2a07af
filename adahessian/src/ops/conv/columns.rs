//! The three products of a convolution as products of matrices over columns, where a device has kernels that make
//! them: two calls each where candle's operations take seven and more.
//!
//! ```text
//! F:   y = W columns(x)
//! BI:  images(Wᵀ u)
//! BW:  Σ over images of u columns(x)ᵀ
//! ```

use super::tensors::Products;
use crate::engine::Pairs;
use crate::error::Result;
use crate::numeric::SumOfProducts;
use crate::numeric::columns::{columns, has_kernels, images};
use crate::numeric::formula::Space;
use candle_core::Tensor;

/// Entries of columns, or of the images' gradients of a kernel, that are made at a time.
const AT_ONCE: usize = 1 << 26;

/// The results of images in turn, in portions of which each has at most so many entries, as one.
fn in_portions(
    count: usize,
    entries_of_one: usize,
    of: impl Fn(usize, usize) -> Result<Option<Tensor>>,
) -> Result<Option<Vec<Tensor>>> {
    let portion = (AT_ONCE / entries_of_one.max(1)).clamp(1, count.max(1));
    let mut all = Vec::with_capacity(count.div_ceil(portion));
    for start in (0..count).step_by(portion) {
        match of(start, portion.min(count - start))? {
            Some(part) => all.push(part),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

fn joined(parts: Option<Vec<Tensor>>) -> Result<Option<Tensor>> {
    Ok(match parts {
        Some(parts) if parts.len() > 1 => Some(Tensor::cat(&parts, 0)?),
        Some(mut parts) => parts.pop(),
        None => None,
    })
}

impl Products {
    /// W as [out, C·KH·KW].
    fn matrix(&self, w: &Tensor) -> Result<Tensor> {
        Ok(w.contiguous()?.reshape((w.dim(0)?, ()))?)
    }

    /// Σ F(x, w)
    pub(super) fn forward_of_columns(&self, pairs: Pairs) -> Result<Option<Tensor>> {
        let (Some(taps), Some((x, w))) = (self.taps(), pairs.first()) else {
            return Ok(None);
        };
        let (out, rows) = self.matrix(w)?.dims2()?;
        let parts = in_portions(x.dim(0)?, rows * taps.positions(), |start, count| {
            let mut sum = SumOfProducts::new();
            for (x, w) in pairs {
                let Some(columns) = columns(&x.narrow(0, start, count)?, &taps)? else {
                    return Ok(None);
                };
                sum.add(&self.matrix(w)?.broadcast_left(count)?, &columns)?;
            }
            let shape = (count, out, taps.output.0, taps.output.1);
            Ok(sum.sum().map(|y| y.reshape(shape)).transpose()?)
        });
        joined(parts?)
    }

    /// Σ BI(u, w)
    pub(super) fn input_gradient_of_columns(&self, pairs: Pairs) -> Result<Option<Tensor>> {
        let (Some(taps), Some((u, w))) = (self.taps(), pairs.first()) else {
            return Ok(None);
        };
        if !has_kernels(u) {
            return Ok(None);
        }
        let (out, rows) = self.matrix(w)?.dims2()?;
        let parts = in_portions(u.dim(0)?, rows * taps.positions(), |start, count| {
            let mut sum = SumOfProducts::new();
            for (u, w) in pairs {
                let w = self.matrix(w)?.t()?.broadcast_left(count)?;
                let u = u.contiguous()?.reshape(((), out, taps.positions()))?;
                sum.add(&w, &u.narrow(0, start, count)?)?;
            }
            match sum.sum() {
                Some(columns) => images(&columns, &taps),
                None => Ok(None),
            }
        });
        joined(parts?)
    }

    /// Σ BW(x, u)
    pub(super) fn weight_gradient_of_columns(&self, pairs: Pairs) -> Result<Option<Tensor>> {
        let (Some(taps), Some((x, u))) = (self.taps(), pairs.first()) else {
            return Ok(None);
        };
        let (n, channels, ..) = x.dims4()?;
        let (out, rows) = (u.dim(1)?, channels * taps.count());
        let most = rows * taps.positions().max(out);
        let parts = in_portions(n, most, |start, count| {
            let mut sum = SumOfProducts::new();
            for (x, u) in pairs {
                let Some(columns) = columns(&x.narrow(0, start, count)?, &taps)? else {
                    return Ok(None);
                };
                let u = u.contiguous()?.reshape((n, out, taps.positions()))?;
                sum.add(&u.narrow(0, start, count)?, &columns.t()?)?;
            }
            let Some(of_images) = sum.sum() else {
                return Ok(None);
            };
            let space = Space::columns(of_images.dims(), out * rows);
            let sum = space.entries(&of_images)?.sum();
            let [sum] = space.compute([sum])?;
            Ok(Some(sum))
        });
        let Some(parts) = parts? else {
            return Ok(None);
        };
        let mut parts = parts.into_iter();
        let Some(mut sum) = parts.next() else {
            return Ok(None);
        };
        for part in parts {
            sum = (sum + part)?;
        }
        let shape = (out, channels, taps.kernel.0, taps.kernel.1);
        Ok(Some(sum.reshape(shape)?))
    }
}
