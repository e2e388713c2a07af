//! The numbers of each channel: means of sums over the batch, and what they make of the gradients.
//!
//! Every gradient with respect to c is a linear combination of a few arrays (h, k, t, x̂ and 1), for a
//! mean that is subtracted is a multiple of 1, and a projection onto x̂ a multiple of x̂. So the means
//! turn into coefficients here, in f64, and the loops over entries only combine. In
//! the backward passes training and evaluation differ in nothing but these coefficients.

use super::{Deferred, Unit, Values};
use crate::numeric::Real;
use crate::ops::conv::kernels::batch::channel_sums;

impl Unit {
    /// 1 in training, 0 in evaluation: the factor of all that comes from the batch's statistics.
    fn batch_factor(&self) -> f64 {
        if self.fixed.is_some() { 0.0 } else { 1.0 }
    }

    /// Means over the batch from each image's sums.
    pub(super) fn means<const N: usize>(&self, parts: &[[f64; N]]) -> Vec<[f64; N]> {
        let count = self.count();
        let sums = channel_sums(parts, self.plan.out);
        sums.into_iter().map(|sum| sum.map(|x| x / count)).collect()
    }

    /// u = γ s (h - H - x̂ Hx) as coefficients of h, x̂ and 1.
    pub(super) fn u_coefficients<T: Real>(
        &self,
        gamma: &[T],
        scale: &[f64],
        h: &[[f64; 2]],
    ) -> Vec<[T; 3]> {
        let batch = self.batch_factor();
        let channels = gamma.iter().zip(scale).zip(h);
        channels
            .map(|((gamma, s), [mean, along])| {
                let f = gamma.to_f64() * s;
                [f, -batch * f * along, -batch * f * mean].map(T::from_f64)
            })
            .collect()
    }

    /// h̄ as coefficients of t, x̂ and 1.
    fn bar_coefficients<T: Real>(
        &self,
        gamma: &[T],
        scale: &[f64],
        t: &[[f64; 3]],
        v_scale: Option<&[T]>,
        v_shift: Option<&[T]>,
    ) -> Vec<[T; 3]> {
        let batch = self.batch_factor();
        let at = |v: Option<&[T]>, o: usize| v.map_or(0.0, |v| v[o].to_f64());
        (0..gamma.len())
            .map(|o| {
                let f = gamma[o].to_f64() * scale[o];
                let [mean, along, _] = t[o];
                let along = at(v_scale, o) - batch * f * along;
                let shift = at(v_shift, o) - batch * f * mean;
                [f, along, shift].map(T::from_f64)
            })
            .collect()
    }

    /// The same, of what the derivative of the first level left.
    pub(super) fn coefficients_of_bar<T: Real>(
        &self,
        point: &Values<T>,
        left: &Deferred<T>,
    ) -> Vec<[T; 3]> {
        let v_scale = left.v_scale.as_deref();
        let v_shift = left.v_shift.as_deref();
        self.bar_coefficients(
            point.inputs[2],
            &point.saved.scale,
            &left.t,
            v_scale,
            v_shift,
        )
    }

    /// TH - T H - Tx Hx, or TH in evaluation.
    pub(super) fn cross(&self, t: &[f64; 3], h: &[f64; 2]) -> f64 {
        t[2] - self.batch_factor() * (t[0] * h[0] + t[1] * h[1])
    }

    /// c̄ as coefficients of k, h, t, x̂ and 1.
    pub(super) fn c_coefficients<T: Real>(
        &self,
        gamma: &[T],
        scale: &[f64],
        k: &[[f64; 2]],
        left: &Deferred<T>,
    ) -> Vec<[T; 5]> {
        let batch = self.batch_factor();
        (0..gamma.len())
            .map(|o| {
                let (gamma, s) = (gamma[o].to_f64(), scale[o]);
                let (h, t) = (&left.h[o], &left.t[o]);
                let v = left.v_scale.as_ref().map_or(0.0, |v| v[o].to_f64());
                let with_k = gamma * s;
                let with_h = (v - batch * s * gamma * t[1]) * s;
                let with_t = -batch * s * s * gamma * h[1];
                let along = with_k * k[o][1]
                    + gamma * s * s * self.cross(t, h)
                    + with_h * h[1]
                    + with_t * t[1];
                let shift = with_k * k[o][0] + with_h * h[0] + with_t * t[0];
                [with_k, with_h, with_t, -batch * along, -batch * shift].map(T::from_f64)
            })
            .collect()
    }
}
