//! The loops of a normalised convolution over one image: everything that is done entry by entry.
//!
//! Arrays of an image are [channels][positions]; x̂ is `normal`, y is `output`. All coefficients are
//! one number a channel. Sums are added up in sixteen lanes, whatever the processor, and handed on
//! in f64.

use crate::ops::engine::Real;
use crate::ops::simd::{Task, Vector};

/// An activation and its derivatives.
pub(super) trait Slope<T: Real>: Copy + Send + Sync {
    /// Whether a is needed, and the second derivative is not zero.
    const CURVED: bool;
    fn value(a: T) -> T;
    /// At a; where the activation is not curved, y has the same derivative and will do.
    fn first(a: T) -> T;
    fn second(a: T) -> T;
}

#[derive(Clone, Copy)]
pub(super) struct Identity;
#[derive(Clone, Copy)]
pub(super) struct Relu;
#[derive(Clone, Copy)]
pub(super) struct Silu;

impl<T: Real> Slope<T> for Identity {
    const CURVED: bool = false;
    #[inline(always)]
    fn value(a: T) -> T {
        a
    }
    #[inline(always)]
    fn first(_: T) -> T {
        T::ONE
    }
    #[inline(always)]
    fn second(_: T) -> T {
        T::ZERO
    }
}

impl<T: Real> Slope<T> for Relu {
    const CURVED: bool = false;
    #[inline(always)]
    fn value(a: T) -> T {
        // A NaN stays one.
        if a < T::ZERO { T::ZERO } else { a }
    }
    #[inline(always)]
    fn first(a: T) -> T {
        if a > T::ZERO { T::ONE } else { T::ZERO }
    }
    #[inline(always)]
    fn second(_: T) -> T {
        T::ZERO
    }
}

/// act = a σ, act' = σ (1 + a (1 - σ)), act'' = σ (1 - σ) (2 + a (1 - 2σ)).
impl<T: Real> Slope<T> for Silu {
    const CURVED: bool = true;
    #[inline(always)]
    fn value(a: T) -> T {
        a * sigmoid(a)
    }
    #[inline(always)]
    fn first(a: T) -> T {
        let s = sigmoid(a);
        s * (T::ONE + a * (T::ONE - s))
    }
    #[inline(always)]
    fn second(a: T) -> T {
        let (s, two) = (sigmoid(a), T::ONE + T::ONE);
        s * (T::ONE - s) * (two + a * (T::ONE - two * s))
    }
}

#[inline(always)]
fn sigmoid<T: Real>(a: T) -> T {
    T::ONE / (T::ONE + (-a).exp())
}

/// Calls `$work` with the type that stands for an activation.
macro_rules! with_slope {
    ($activation:expr, $slope:ident => $work:expr) => {
        match $activation {
            VisionActivation::Identity => {
                type $slope = super::rows::Identity;
                $work
            }
            VisionActivation::Relu => {
                type $slope = super::rows::Relu;
                $work
            }
            VisionActivation::Silu => {
                type $slope = super::rows::Silu;
                $work
            }
        }
    };
}
pub(super) use with_slope;

const LANES: usize = 16;

/// Σ over entries of N terms at once.
#[inline(always)]
fn sums<T: Real, const N: usize>(length: usize, term: impl Fn(usize) -> [T; N]) -> [f64; N] {
    let mut lanes = [[T::ZERO; LANES]; N];
    let whole = length / LANES * LANES;
    let mut start = 0;
    while start < whole {
        for lane in 0..LANES {
            let terms = term(start + lane);
            for (sum, term) in lanes.iter_mut().zip(terms) {
                sum[lane] += term;
            }
        }
        start += LANES;
    }
    let mut totals = lanes.map(|sum| sum.iter().map(|x| x.to_f64()).sum::<f64>());
    for i in whole..length {
        for (total, term) in totals.iter_mut().zip(term(i)) {
            *total += term.to_f64();
        }
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
        let part = channel * length..(channel + 1) * length;
        Row {
            normal: &self.normal[part.clone()],
            output: &self.output[part.clone()],
            residual: self.residual.map(|r| &r[part]),
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

/// Mean and summed squared deviation of each channel of one image.
pub(super) struct Statistics<'a, T> {
    pub values: &'a [T],
    pub result: &'a mut [[f64; 2]],
}

impl<T: Real> Task<T> for Statistics<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let length = self.values.len() / self.result.len();
        for (row, result) in self.values.chunks_exact(length).zip(self.result) {
            let [sum] = sums(length, |i| [row[i]]);
            let mean = sum / length as f64;
            let centre = T::from_f64(mean);
            let [squares, rest] = sums(length, |i| {
                let d = row[i] - centre;
                [d * d, d]
            });
            // `centre` is a rounded mean: what is left of the deviations corrects for it.
            *result = [mean, squares - rest * rest / length as f64];
        }
    }
}

/// x̂ = (c - μ) s in place of c; y = act(γ x̂ + β + r).
pub(super) struct Normalise<'a, T, S> {
    pub values: &'a mut [T],
    pub output: &'a mut [T],
    pub residual: Option<&'a [T]>,
    pub mean: &'a [T],
    pub scale: &'a [T],
    pub weight: &'a [T],
    pub bias: &'a [T],
    pub slope: std::marker::PhantomData<S>,
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

/// Σ h and Σ h x̂ with h = g act'(a).
pub(super) struct GradientSums<'a, T, S> {
    pub image: Image<'a, T>,
    pub gradient: &'a [T],
    pub result: &'a mut [[f64; 2]],
    pub slope: std::marker::PhantomData<S>,
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

/// u = γ s (h - H - x̂ Hx) as `scale` · h + `slope_x` · x̂ + `shift`, and h where it is wanted.
pub(super) struct InputGradient<'a, T, S> {
    pub image: Image<'a, T>,
    pub gradient: &'a [T],
    /// (γ s, -γ s Hx, -γ s H) of each channel.
    pub coefficients: &'a [[T; 3]],
    pub u: &'a mut [T],
    pub h: Option<&'a mut [T]>,
    pub slope: std::marker::PhantomData<S>,
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
pub(super) struct TangentSums<'a, T, S> {
    pub image: Image<'a, T>,
    pub gradient: &'a [T],
    pub tangent: &'a [T],
    pub result: &'a mut [[f64; 3]],
    pub slope: std::marker::PhantomData<S>,
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
pub(super) struct Bar<'a, T> {
    pub coefficients: &'a [[T; 3]],
    pub tangent: &'a [T],
    pub residual: Option<&'a [T]>,
}

impl<T: Real> Bar<'_, T> {
    #[inline(always)]
    fn at(&self, o: usize, index: usize, normal: T) -> T {
        let [scale, along, shift] = self.coefficients[o];
        let bar = scale * self.tangent[index] + along * normal + shift;
        match self.residual {
            Some(residual) => bar + residual[index],
            None => bar,
        }
    }
}

/// ḡ = h̄ act'(a).
pub(super) struct Cotangent<'a, T, S> {
    pub image: Image<'a, T>,
    pub bar: Bar<'a, T>,
    pub result: &'a mut [T],
    pub slope: std::marker::PhantomData<S>,
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

/// What the second pass knows besides the cotangent of y: the first pass's gradient, and h̄.
#[derive(Clone, Copy)]
pub(super) struct Second<'a, T> {
    pub gradient: &'a [T],
    pub bar: Bar<'a, T>,
}

/// k = ȳ act'(a) + h̄ g act''(a).
#[inline(always)]
fn k<T: Real, S: Slope<T>>(
    row: &Row<T>,
    cotangent: Option<&[T]>,
    second: Option<(&Second<T>, usize, usize)>,
    i: usize,
) -> T {
    let k = match cotangent {
        Some(cotangent) => cotangent[i] * row.first::<S>(i),
        None => T::ZERO,
    };
    match second {
        Some((second, o, start)) if S::CURVED => {
            let bar = second.bar.at(o, start + i, row.normal[i]);
            k + bar * second.gradient[start + i] * S::second(row.a(i))
        }
        _ => k,
    }
}

/// Σ k and Σ k x̂; k itself where it is wanted.
pub(super) struct SecondSums<'a, T, S> {
    pub image: Image<'a, T>,
    pub cotangent: Option<&'a [T]>,
    pub second: Option<Second<'a, T>>,
    pub result: &'a mut [[f64; 2]],
    pub k: Option<&'a mut [T]>,
    pub slope: std::marker::PhantomData<S>,
}

impl<T: Real, S: Slope<T>> Task<T> for SecondSums<'_, T, S> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(mut self) {
        let length = self.image.normal.len() / self.result.len();
        for (o, result) in self.result.iter_mut().enumerate() {
            let part = o * length..(o + 1) * length;
            let row = self.image.row(o, length);
            let cotangent = self.cotangent.map(|c| &c[part.clone()]);
            let second = self.second.as_ref().map(|s| (s, o, o * length));
            *result = sums(length, |i| {
                let k = k::<T, S>(&row, cotangent, second, i);
                [k, k * row.normal[i]]
            });
            if let Some(all) = &mut self.k {
                for (i, to) in all[part].iter_mut().enumerate() {
                    *to = k::<T, S>(&row, cotangent, second, i);
                }
            }
        }
    }
}

/// c̄ as coefficients of k, h, t, x̂ and 1, and u as those of h, x̂ and 1.
pub(super) struct SecondInput<'a, T, S> {
    pub image: Image<'a, T>,
    pub cotangent: Option<&'a [T]>,
    pub second: Second<'a, T>,
    pub coefficients: &'a [[T; 5]],
    pub u_coefficients: &'a [[T; 3]],
    pub c: &'a mut [T],
    pub u: &'a mut [T],
    pub slope: std::marker::PhantomData<S>,
}

impl<T: Real, S: Slope<T>> Task<T> for SecondInput<'_, T, S> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let length = self.c.len() / self.coefficients.len();
        for (o, &[with_k, with_h, with_t, along, shift]) in self.coefficients.iter().enumerate() {
            let part = o * length..(o + 1) * length;
            let row = self.image.row(o, length);
            let cotangent = self.cotangent.map(|c| &c[part.clone()]);
            let (g, t) = (
                &self.second.gradient[part.clone()],
                &self.second.bar.tangent[part.clone()],
            );
            let (c, u) = (&mut self.c[part.clone()], &mut self.u[part]);
            let [u_h, u_along, u_shift] = self.u_coefficients[o];
            for i in 0..length {
                let x = row.normal[i];
                let k = k::<T, S>(&row, cotangent, Some((&self.second, o, o * length)), i);
                let h = g[i] * row.first::<S>(i);
                c[i] = with_k * k + with_h * h + with_t * t[i] + along * x + shift;
                u[i] = u_h * h + u_along * x + u_shift;
            }
        }
    }
}
