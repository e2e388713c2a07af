//! The second level over one image, in two passes as the first: the sums of k, and then the gradient
//! of c, together with the first level's u. k joins the cotangent of y with what the derivative of
//! the first level left, and is computed in both passes.

use super::{Bar, Image, Row, Slope, sums};
use crate::numeric::Real;
use crate::numeric::simd::{Task, Vector};
use std::marker::PhantomData;

/// What the second pass knows besides the cotangent of y: the first pass's gradient, and h̄.
#[derive(Clone, Copy)]
pub(crate) struct Second<'a, T> {
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
pub(crate) struct SecondSums<'a, T, S> {
    pub image: Image<'a, T>,
    pub cotangent: Option<&'a [T]>,
    pub second: Option<Second<'a, T>>,
    pub result: &'a mut [[f64; 2]],
    pub k: Option<&'a mut [T]>,
    pub slope: PhantomData<S>,
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
pub(crate) struct SecondInput<'a, T, S> {
    pub image: Image<'a, T>,
    pub cotangent: Option<&'a [T]>,
    pub second: Second<'a, T>,
    pub coefficients: &'a [[T; 5]],
    pub u_coefficients: &'a [[T; 3]],
    pub c: &'a mut [T],
    pub u: &'a mut [T],
    pub slope: PhantomData<S>,
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
