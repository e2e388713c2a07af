//! The rows of a layer norm, vectorised: see [`super::cpu`] for the equations.

use crate::numeric::simd::{Task, Vector};
use crate::numeric::{Buffer, Real, dot, sums};

/// z → x̂ and y.
pub(super) struct Forward<'a, T> {
    pub eps: T,
    pub weight: &'a [T],
    pub bias: &'a [T],
    pub residual: Option<&'a [T]>,
    /// m x on the way in, x̂ on the way out.
    pub unit: &'a mut [T],
    pub y: &'a mut [T],
    pub scale: &'a mut [T],
}

impl<T: Real> Task<T> for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let width = self.weight.len();
        let share = T::from_f64(1.0 / width as f64);
        if let Some(residual) = self.residual {
            let pairs = self.unit.iter_mut().zip(residual);
            pairs.for_each(|(x, &r)| *x += r);
        }
        let rows = self
            .unit
            .chunks_exact_mut(width)
            .zip(self.y.chunks_exact_mut(width));
        for ((z, y), scale) in rows.zip(self.scale) {
            let [sum] = sums([z], |[z]| [z]);
            let rounded = sum * share;
            let [squares, rest] = sums([z], |[z]| {
                let d = z - rounded;
                [d * d, d]
            });
            // A sum of many large numbers is rounded: what is left of the deviations corrects for it.
            let rest = rest * share;
            let mean = rounded + rest;
            let variance = squares * share - rest * rest;
            // Of equal entries it may be rounded to less than nothing; not-a-number stays.
            let variance = match variance < T::ZERO {
                true => T::ZERO,
                false => variance,
            };
            let s = T::ONE / (variance + self.eps).sqrt();
            *scale = s;
            let affine = self.weight.iter().zip(self.bias);
            for ((z, y), (&weight, &bias)) in z.iter_mut().zip(y).zip(affine) {
                let unit = (*z - mean) * s;
                *z = unit;
                *y = unit * weight + bias;
            }
        }
    }
}

/// g → gz, added to `sum`, and gγ, added to `weight_gradient`.
pub(super) struct Backward<'a, T> {
    pub weight: &'a [T],
    pub unit: &'a [T],
    pub scale: &'a [T],
    pub g: &'a [T],
    pub sum: &'a mut [T],
    pub weight_gradient: &'a mut [T],
}

impl<T: Real> Task<T> for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let width = self.weight.len();
        let share = T::from_f64(1.0 / width as f64);
        let rows = self
            .g
            .chunks_exact(width)
            .zip(self.unit.chunks_exact(width));
        let rows = rows.zip(self.sum.chunks_exact_mut(width)).zip(self.scale);
        for (((g, unit), sum), &s) in rows {
            let [mean, along] = sums([g, self.weight, unit], |[g, weight, unit]| {
                let h = g * weight;
                [h, h * unit]
            });
            let (mean, along) = (mean * share, along * share);
            let read = g.iter().zip(self.weight).zip(unit);
            for ((sum, to), ((&g, &weight), &unit)) in
                sum.iter_mut().zip(&mut *self.weight_gradient).zip(read)
            {
                *sum += s * (g * weight - mean - unit * along);
                *to += g * unit;
            }
        }
    }
}

/// g and the cotangents → ḡ, z̄_A (in place of v) and γ̄_A (added to `weight_gradient`).
pub(super) struct Second<'a, T> {
    pub weight: &'a [T],
    pub v_weight: &'a [T],
    pub v_bias: &'a [T],
    pub unit: &'a [T],
    pub scale: &'a [T],
    pub g: &'a [T],
    /// v on the way in, z̄_A on the way out.
    pub v: &'a mut [T],
    pub tangent: &'a mut [T],
    pub weight_gradient: &'a mut [T],
}

/// B(u) in place; mean(u x̂).
#[inline(always)]
fn project<T: Real>(u: &mut [T], unit: &[T], s: T, share: T) -> T {
    let [mean, along] = sums([u, unit], |[u, unit]| [u, u * unit]);
    let (mean, along) = (mean * share, along * share);
    let entries = u.iter_mut().zip(unit);
    entries.for_each(|(u, &unit)| *u = s * (*u - mean - unit * along));
    along
}

#[inline(always)]
fn product<T: Real>(a: &[T], b: &[T], to: &mut [T]) {
    let entries = to.iter_mut().zip(a).zip(b);
    entries.for_each(|((to, &a), &b)| *to = a * b);
}

impl<T: Real> Task<T> for Second<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let width = self.weight.len();
        let share = T::from_f64(1.0 / width as f64);
        let (mut bh, mut bv) = (Buffer::scratch(width), Buffer::scratch(width));
        let mut third = Buffer::scratch(width);
        let rows = self
            .g
            .chunks_exact(width)
            .zip(self.unit.chunks_exact(width));
        let results = self
            .v
            .chunks_exact_mut(width)
            .zip(self.tangent.chunks_exact_mut(width));
        for (((g, unit), (v, tangent)), &s) in rows.zip(results).zip(self.scale) {
            product(g, self.weight, &mut bh);
            let h_along = project(&mut bh, unit, s, share);
            bv.copy_from_slice(v);
            let v_along = project(&mut bv, unit, s, share);
            let both = dot(v, &bh) * share;
            product(g, self.v_weight, &mut third);
            project(&mut third, unit, s, share);
            let entries = v
                .iter_mut()
                .zip(unit)
                .zip(bh.iter().zip(bv.iter()).zip(third.iter()));
            for ((v, &unit), ((&bh, &bv), &third)) in entries {
                *v = third - s * (unit * both + v_along * bh + h_along * bv);
            }
            let constants = self.weight.iter().zip(self.v_weight).zip(self.v_bias);
            let entries = tangent
                .iter_mut()
                .zip(constants)
                .zip(unit.iter().zip(bv.iter()));
            for ((tangent, ((&weight, &v_weight), &v_bias)), (&unit, &bv)) in entries {
                *tangent = weight * bv + v_weight * unit + v_bias;
            }
            let entries = self.weight_gradient.iter_mut().zip(g).zip(bv.iter());
            entries.for_each(|((to, &g), &bv)| *to += g * bv);
        }
    }
}
