//! The loops of a normalised convolution over one image: everything that is done entry by entry.
//!
//! Arrays of an image are [channels][positions]; x̂ is `normal`, y is `output`. All coefficients are
//! one number a channel. Sums are added up in sixteen lanes, whatever the processor, and handed on
//! in f64.
//!
//! Here is what all the loops share: an image, a channel of it, and the sums. [`forward`] holds the
//! loops of F, [`first`] those of A and ∂A, and [`second`] those of ∂F, in the words of
//! [`normalised`](super::normalised). [`slope`] has the activations.

mod first;
mod forward;
mod second;
mod slope;

pub(in crate::ops::conv) use first::{Bar, Cotangent, GradientSums, InputGradient, TangentSums};
pub(in crate::ops::conv) use forward::{Normalise, Statistics};
pub(in crate::ops::conv) use second::{Second, SecondInput, SecondSums};
pub(in crate::ops::conv) use slope::{Fused, Identity, Relu, Silu, Slope, with_slope};

use crate::numeric::Real;

const LANES: usize = 16;

/// Σ over entries of N terms at once.
#[inline(always)]
fn sums<T: Real, const N: usize>(length: usize, term: impl Fn(usize) -> [T; N]) -> [f64; N] {
    let mut lanes = [[T::ZERO; LANES]; N];
    let whole = length / LANES * LANES;
    let mut start = 0;
    while start < whole {
        for lane in 0..LANES {
            // SAFETY: `whole` is a multiple of `LANES` and at most `length`. Said to the compiler,
            // which else checks the terms' indices one by one and uses no vectors for half of them.
            unsafe { std::hint::assert_unchecked(start + lane < length) };
            let terms = term(start + lane);
            for (sum, term) in lanes.iter_mut().zip(terms) {
                sum[lane] += term;
            }
        }
        start += LANES;
    }
    let mut totals = totals(&lanes);
    for i in whole..length {
        for (total, term) in totals.iter_mut().zip(term(i)) {
            *total += term.to_f64();
        }
    }
    totals
}

/// A function of its own, not a closure that is another one for every term.
#[inline(always)]
fn totals<T: Real, const N: usize>(lanes: &[[T; LANES]; N]) -> [f64; N] {
    let mut totals = [0.0; N];
    for (total, lanes) in totals.iter_mut().zip(lanes) {
        *total = lanes.iter().map(|x| x.to_f64()).sum();
    }
    totals
}

/// One image at the point of differentiation.
#[derive(Clone, Copy)]
pub(super) struct Image<'a, T> {
    pub normal: &'a [T],
    pub output: &'a [T],
    pub residual: Option<&'a [T]>,
    /// γ and β.
    pub weight: &'a [T],
    pub bias: &'a [T],
}

/// One channel of it.
#[derive(Clone, Copy)]
struct Row<'a, T> {
    normal: &'a [T],
    output: &'a [T],
    residual: Option<&'a [T]>,
    weight: T,
    bias: T,
}

impl<'a, T: Real> Image<'a, T> {
    #[inline(always)]
    fn row(&self, channel: usize, length: usize) -> Row<'a, T> {
        let start = channel * length;
        Row {
            normal: &self.normal[start..][..length],
            output: &self.output[start..][..length],
            residual: self.residual.map(|r| &r[start..][..length]),
            weight: self.weight[channel],
            bias: self.bias[channel],
        }
    }
}

impl<T: Real> Row<'_, T> {
    /// a = γ x̂ + β + r.
    #[inline(always)]
    fn a(&self, i: usize) -> T {
        let a = self.weight * self.normal[i] + self.bias;
        match self.residual {
            Some(residual) => a + residual[i],
            None => a,
        }
    }

    /// act'(a). Without a residual a is γ x̂ + β, rounded as in the forward pass, and y need not be read.
    #[inline(always)]
    fn first<S: Slope<T>>(&self, i: usize) -> T {
        match self.residual {
            None => S::first(self.a(i)),
            Some(_) if S::CURVED => S::first(self.a(i)),
            Some(_) => S::first(self.output[i]),
        }
    }
}
