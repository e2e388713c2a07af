//! The forward pass of a normalised convolution over one image: the image's own statistics, while the
//! convolution has just written it, and, when those of the batch are known, all that follows the
//! convolution in one pass. The batch's mean and variance are combined from the images', as Chan, Golub
//! and LeVeque do, so that no sum of squares of large numbers is subtracted from another:
//! ```text
//! m_i = mean of image i;   M_i = Σ (c - m_i)²
//! μ = mean of m_i;         n σ² = Σ_i M_i + positions · Σ_i (m_i - μ)²
//! ```

use super::{Slope, sums};
use crate::numeric::Real;
use crate::numeric::simd::{Task, Vector};
use std::marker::PhantomData;

/// Mean and summed squared deviation of each channel of one image.
pub(crate) struct Statistics<'a, T> {
    pub values: &'a [T],
    /// The two numbers of each channel.
    pub result: &'a mut [[f64; 2]],
}

impl<T: Real> Task<T> for Statistics<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let length = self.values.len() / self.result.len();
        for (row, result) in self.values.chunks_exact(length).zip(self.result) {
            let [sum] = sums(length, |i| [row[i]]);
            let centre = T::from_f64(sum / length as f64);
            let [squares, rest] = sums(length, |i| {
                let d = row[i] - centre;
                [d * d, d]
            });
            // `centre` is a rounded mean of a rounded sum: what is left of the deviations corrects for both.
            let rest = rest / length as f64;
            let squares = squares - rest * rest * length as f64;
            // Of equal entries it may be rounded to less than nothing; not-a-number stays.
            let squares = match squares < 0.0 {
                true => 0.0,
                false => squares,
            };
            *result = [centre.to_f64() + rest, squares];
        }
    }
}

/// x̂ = (c - μ) s in place of c; y = act(γ x̂ + β + r).
pub(crate) struct Normalise<'a, T, S> {
    /// c, and afterwards x̂.
    pub values: &'a mut [T],
    pub output: &'a mut [T],
    pub residual: Option<&'a [T]>,
    pub mean: &'a [T],
    pub scale: &'a [T],
    pub weight: &'a [T],
    pub bias: &'a [T],
    pub slope: PhantomData<S>,
}

impl<T: Real, S: Slope<T>> Task<T> for Normalise<'_, T, S> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let length = self.values.len() / self.mean.len();
        let rows = self.values.chunks_exact_mut(length);
        for (o, (values, output)) in rows.zip(self.output.chunks_exact_mut(length)).enumerate() {
            let (mean, scale) = (self.mean[o], self.scale[o]);
            let (weight, bias) = (self.weight[o], self.bias[o]);
            match self.residual {
                Some(residual) => {
                    let residual = &residual[o * length..][..length];
                    for ((x, y), &r) in values.iter_mut().zip(output).zip(residual) {
                        *x = (*x - mean) * scale;
                        *y = S::value(weight * *x + bias + r);
                    }
                }
                None => {
                    for (x, y) in values.iter_mut().zip(output) {
                        *x = (*x - mean) * scale;
                        *y = S::value(weight * *x + bias);
                    }
                }
            }
        }
    }
}
