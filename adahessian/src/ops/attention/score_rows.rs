//! The rows of attention scores, vectorised.

use crate::numeric::simd::{Task, Vector};
use crate::numeric::{Real, dot, largest, sums};

/// Scores → P: the softmax over the keys that a query sees, 0 for the others.
pub(super) struct Softmax<'a, T> {
    pub scores: &'a mut [T],
    pub width: usize,
    pub visible: &'a [bool],
    pub causal: bool,
}

impl<T: Real> Task<T> for Softmax<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let hidden = T::from_f64(f64::NEG_INFINITY);
        for (query, row) in self.scores.chunks_exact_mut(self.width.max(1)).enumerate() {
            let end = match self.causal {
                true => (query + 1).min(row.len()),
                false => row.len(),
            };
            // Not by the scores: where all are not-a-number, so must the weights be.
            if !self.visible[..end].contains(&true) {
                row.fill(T::ZERO);
                continue;
            }
            row[end..].fill(hidden);
            let keys = row.iter_mut().zip(self.visible);
            keys.for_each(|(x, &visible)| {
                *x = match visible {
                    true => *x,
                    false => hidden,
                };
            });
            let largest = largest(row);
            row.iter_mut().for_each(|x| *x = (*x - largest).exp());
            let [sum] = sums([&*row], |[x]| [x]);
            let share = T::ONE / sum;
            row.iter_mut().for_each(|x| *x = *x * share);
        }
    }
}

/// u ← J(P, u) = P (u - ⟨u, P⟩)
pub(super) struct Jacobian<'a, T> {
    pub width: usize,
    pub p: &'a [T],
    pub u: &'a mut [T],
}

#[inline(always)]
fn jacobian<T: Real>(p: &[T], u: &mut [T], along: T) {
    let entries = u.iter_mut().zip(p);
    entries.for_each(|(u, &p)| *u = p * (*u - along));
}

impl<T: Real> Task<T> for Jacobian<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let width = self.width.max(1);
        let rows = self
            .u
            .chunks_exact_mut(width)
            .zip(self.p.chunks_exact(width));
        for (u, p) in rows {
            let along = dot(u, p);
            jacobian(p, u, along);
        }
    }
}

/// From P, gP, tS and m (Ō vᵀ + g v_vᵀ): gS, tP and S̄, each in its own place.
pub(super) struct SecondRows<'a, T> {
    pub width: usize,
    pub p: &'a [T],
    pub gp: &'a mut [T],
    pub ts: &'a mut [T],
    pub s: &'a mut [T],
}

impl<T: Real> Task<T> for SecondRows<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        let width = self.width.max(1);
        let rows = self
            .gp
            .chunks_exact_mut(width)
            .zip(self.ts.chunks_exact_mut(width));
        let rows = rows
            .zip(self.s.chunks_exact_mut(width))
            .zip(self.p.chunks_exact(width));
        for (((gp, ts), s), p) in rows {
            let [r, tau] = sums([&*gp, &*ts, p], |[gp, ts, p]| [gp * p, ts * p]);
            let read = gp.iter().zip(ts.iter());
            let entries = s.iter_mut().zip(read);
            entries.for_each(|(s, (&gp, &ts))| *s = *s + ts * (gp - r) - tau * gp);
            let along = dot(s, p);
            jacobian(p, s, along);
            jacobian(p, gp, r);
            jacobian(p, ts, tau);
        }
    }
}
