//! Dropout, residual addition and layer norm as one operation.
//!
//! With n the width, s = 1/√(σ² + ε), x̂ = (z - μ)s, and B(u) = s(u - mean u - x̂ mean(u x̂)), which is
//! its own adjoint, row by row:
//! ```text
//! F:   z = m x + r;   y = γ x̂ + β
//! A:   h = g γ;   gz = B(h);   gγ = Σ g x̂;   gβ = Σ g;   gx = m gz;   gr = gz
//! ∂A:  v = m v_x + v_r;   ḡ = γ B(v) + v_γ x̂ + v_β;   γ̄_A = Σ g B(v)
//!      z̄_A = B(v_γ g) - s (x̂ ⟨v, B(h)⟩/n + mean(v x̂) B(h) + mean(h x̂) B(v))
//! ∂F:  z̄ = B(ȳ γ) + z̄_A;   γ̄ = Σ ȳ x̂ + γ̄_A;   β̄ = Σ ȳ;   x̄ = m z̄;   r̄ = z̄
//! ```

use super::Norm;
use super::rows::{Backward, Forward, Second};
use crate::engine::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use crate::engine::{Cpu, Kernel};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::simd;
use crate::numeric::{Buffer, Real, column_sums, in_order, rows_in_piece};

/// x̂, and s of every row.
pub(super) struct Saved<T: Real> {
    unit: Buffer<T>,
    scale: Buffer<T>,
}

/// z̄_A and γ̄_A.
pub(super) struct Left<T: Real> {
    sum: Buffer<T>,
    weight: Buffer<T>,
}

impl Norm {
    /// z̄ as the gradients of x and r.
    fn spread<T: Real>(&self, sum: Buffer<T>, x: bool, r: bool) -> [Option<Buffer<T>>; 2] {
        let masked = x.then(|| match &self.mask {
            Some(mask) => mask.drawn(sum.len()).of(&sum),
            None => Buffer::copy_of(if r { &sum } else { &[] }),
        });
        match (masked, &self.mask, r) {
            // Nothing was dropped and nobody else wants it.
            (Some(_), None, false) => [Some(sum), None],
            (masked, _, r) => [masked, r.then_some(sum)],
        }
    }
}

/// Pieces of an optional array: as many `None`s where there is none.
fn optional<T: Sync>(data: Option<&[T]>, length: usize, count: usize) -> Vec<Option<&[T]>> {
    match data {
        Some(data) => data.chunks(length).map(Some).collect(),
        None => vec![None; count],
    }
}

impl<T: Real> Kernel<Cpu<T>> for Norm {
    type Saved = Saved<T>;
    type Kept = ();
    type Deferred = Left<T>;

    /// Of all its inputs the weight: x̂ and s stand for x and the residual.
    fn reads(&self, input: usize) -> bool {
        input == 1
    }

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, Saved<T>)> {
        let (x, weight, bias) = (&inputs[0], &inputs[1], &inputs[2]);
        let width = weight.len();
        let rows = rows_in_piece(width);
        let mask = self.mask.as_ref().map(|mask| mask.drawn(x.len()));
        let mut y = Buffer::scratch(x.len());
        let mut unit = Buffer::scratch(x.len());
        let mut scale = Buffer::scratch(x.len() / width);
        let length = rows * width;
        let residual = optional(inputs.get(3), length, x.len().div_ceil(length));
        let results = unit.chunks_mut(length).zip(y.chunks_mut(length));
        let results = results.zip(scale.chunks_mut(rows)).zip(residual);
        parallel::each(results, |piece, (((unit, y), scale), residual)| {
            let start = piece * length;
            unit.copy_from_slice(&x[start..][..unit.len()]);
            if let Some(mask) = &mask {
                mask.apply(start, unit);
            }
            let task = Forward {
                eps: T::from_f64(self.eps),
                weight,
                bias,
                residual,
                unit,
                y,
                scale,
            };
            simd::run(task);
        });
        Ok((y.into(), Saved { unit, scale }))
    }

    fn adjoint(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        wanted: &[bool],
        _: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let weight = point.input(1)?;
        let (width, rows) = (weight.len(), rows_in_piece(weight.len()));
        let length = rows * width;
        let (left_sum, left_weight) = match deferred {
            Some(left) => (Some(left.sum), Some(left.weight)),
            None => (None, None),
        };
        let mut sum =
            left_sum.unwrap_or_else(|| Buffer::zeroed(point.lengths().next().unwrap_or(0)));
        let mut weights = Vec::new();
        if let Some(left) = left_weight {
            weights.push(left);
        }
        if let Some(g) = gradient {
            let saved = point.saved;
            let pieces = sum.chunks_mut(length).zip(g.chunks(length));
            let pieces = pieces.zip(saved.unit.chunks(length));
            let pieces = pieces.zip(saved.scale.chunks(rows));
            let parts = parallel::map(pieces, |_, (((sum, g), unit), scale)| {
                let mut sums = Buffer::zeroed(width);
                let task = Backward {
                    weight,
                    unit,
                    scale,
                    g,
                    sum,
                    weight_gradient: &mut sums,
                };
                simd::run(task);
                sums
            });
            weights.extend(parts);
        }
        let weight = wanted[1].then(|| in_order(weights, width));
        let bias = match (gradient, wanted[2]) {
            (Some(g), true) => Some(column_sums(g, width)),
            _ => None,
        };
        let residual = wanted.get(3).copied().unwrap_or(false);
        let [x, r] = self.spread(sum, wanted[0], residual);
        Ok((vec![x, weight, bias, r], ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Left<T>)> {
        let weight = point.input(1)?;
        let (width, rows) = (weight.len(), rows_in_piece(weight.len()));
        let length = rows * width;
        let (saved, gradient) = (point.saved, gradient.view()?);
        let views = cotangents.iter().map(|v| v.as_ref().map(Held::view));
        let views = views.map(Option::transpose).collect::<Result<Vec<_>>>()?;
        // v = m v_x + v_r, in the memory that becomes z̄_A.
        let mut v = match &views[0] {
            Some(v_x) => match &self.mask {
                Some(mask) => mask.drawn(v_x.len()).of(v_x),
                None => Buffer::copy_of(v_x),
            },
            None => Buffer::zeroed(gradient.len()),
        };
        if let Some(Some(v_r)) = views.get(3) {
            simd::add_assign(&mut v, v_r);
        }
        let zeros;
        let [v_weight, v_bias] = {
            zeros = Buffer::zeroed(width);
            [1, 2].map(|i| views[i].as_deref().unwrap_or(&zeros))
        };
        let mut tangent = Buffer::scratch(gradient.len());
        let pieces = tangent.chunks_mut(length).zip(v.chunks_mut(length));
        let pieces = pieces.zip(gradient.chunks(length));
        let pieces = pieces.zip(saved.unit.chunks(length));
        let pieces = pieces.zip(saved.scale.chunks(rows));
        let parts = parallel::map(pieces, |_, ((((tangent, v), g), unit), scale)| {
            let mut sums = Buffer::zeroed(width);
            let task = Second {
                weight,
                v_weight,
                v_bias,
                unit,
                scale,
                g,
                v,
                tangent,
                weight_gradient: &mut sums,
            };
            simd::run(task);
            sums
        });
        let left = Left {
            sum: v,
            weight: in_order(parts, width),
        };
        Ok((tangent.into(), left))
    }
}
