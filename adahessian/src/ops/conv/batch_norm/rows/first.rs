//! The first level over one image, and its derivative. Each takes two passes: sums, which all images
//! must have handed in before a gradient is known anywhere, and then the gradient. h = g act'(a) is
//! computed again in every pass. h̄ is not stored either: it is a combination of t, x̂ and 1, and [`Bar`]
//! gives it entry by entry, here and in the second level.

use super::{Image, Slope, sums};
use crate::numeric::Real;
use crate::numeric::simd::{Task, Vector};
use std::marker::PhantomData;

/// Σ h and Σ h x̂ with h = g act'(a).
pub(crate) struct GradientSums<'a, T, S> {
    pub image: Image<'a, T>,
    pub gradient: &'a [T],
    pub result: &'a mut [[f64; 2]],
    pub slope: PhantomData<S>,
}

impl<T: Real, S: Slope<T>> Task<T> for GradientSums<'_, T, S> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let length = self.gradient.len() / self.result.len();
        let gradients = self.gradient.chunks_exact(length);
        for (o, (g, result)) in gradients.zip(self.result).enumerate() {
            let row = self.image.row(o, length);
            *result = sums(length, |i| {
                let h = g[i] * row.first::<S>(i);
                [h, h * row.normal[i]]
            });
        }
    }
}

/// u = γ s (h - H - x̂ Hx) as `scale` · h + `along` · x̂ + `shift`, and h where it is wanted.
pub(crate) struct InputGradient<'a, T, S> {
    pub image: Image<'a, T>,
    pub gradient: &'a [T],
    /// (γ s, -γ s Hx, -γ s H) of each channel.
    pub coefficients: &'a [[T; 3]],
    pub u: &'a mut [T],
    pub h: Option<&'a mut [T]>,
    pub slope: PhantomData<S>,
}

impl<T: Real, S: Slope<T>> Task<T> for InputGradient<'_, T, S> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(mut self) {
        let length = self.u.len() / self.coefficients.len();
        for (o, &[scale, along, shift]) in self.coefficients.iter().enumerate() {
            let part = o * length..(o + 1) * length;
            let row = self.image.row(o, length);
            let g = &self.gradient[part.clone()];
            let u = &mut self.u[part.clone()];
            for i in 0..length {
                let h = g[i] * row.first::<S>(i);
                u[i] = scale * h + along * row.normal[i] + shift;
            }
            if let Some(h) = &mut self.h {
                let h = &mut h[part];
                for i in 0..length {
                    h[i] = g[i] * row.first::<S>(i);
                }
            }
        }
    }
}

/// Σ t, Σ t x̂, Σ t h.
pub(crate) struct TangentSums<'a, T, S> {
    pub image: Image<'a, T>,
    pub gradient: &'a [T],
    pub tangent: &'a [T],
    pub result: &'a mut [[f64; 3]],
    pub slope: PhantomData<S>,
}

impl<T: Real, S: Slope<T>> Task<T> for TangentSums<'_, T, S> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let length = self.gradient.len() / self.result.len();
        for (o, result) in self.result.iter_mut().enumerate() {
            let part = o * length..(o + 1) * length;
            let row = self.image.row(o, length);
            let (g, t) = (&self.gradient[part.clone()], &self.tangent[part]);
            *result = sums(length, |i| {
                let h = g[i] * row.first::<S>(i);
                [t[i], t[i] * row.normal[i], t[i] * h]
            });
        }
    }
}

/// h̄ = γ s (t - T - x̂ Tx) + v_γ x̂ + v_β + v_r, as coefficients of t, x̂ and 1.
#[derive(Clone, Copy)]
pub(crate) struct Bar<'a, T> {
    pub coefficients: &'a [[T; 3]],
    pub tangent: &'a [T],
    pub residual: Option<&'a [T]>,
}

impl<T: Real> Bar<'_, T> {
    #[inline(always)]
    pub(super) fn at(&self, o: usize, index: usize, normal: T) -> T {
        let [scale, along, shift] = self.coefficients[o];
        let bar = scale * self.tangent[index] + along * normal + shift;
        match self.residual {
            Some(residual) => bar + residual[index],
            None => bar,
        }
    }
}

/// ḡ = h̄ act'(a).
pub(crate) struct Cotangent<'a, T, S> {
    pub image: Image<'a, T>,
    pub bar: Bar<'a, T>,
    pub result: &'a mut [T],
    pub slope: PhantomData<S>,
}

impl<T: Real, S: Slope<T>> Task<T> for Cotangent<'_, T, S> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let length = self.result.len() / self.bar.coefficients.len();
        for (o, result) in self.result.chunks_exact_mut(length).enumerate() {
            let part = o * length..(o + 1) * length;
            let row = self.image.row(o, length);
            let bar = Bar {
                coefficients: &self.bar.coefficients[o..=o],
                tangent: &self.bar.tangent[part.clone()],
                residual: self.bar.residual.map(|r| &r[part]),
            };
            for (i, result) in result.iter_mut().enumerate() {
                *result = bar.at(0, i, row.normal[i]) * row.first::<S>(i);
            }
        }
    }
}
