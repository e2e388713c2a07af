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

use super::mask::Mask;
use super::norm_rows::{Backward, Forward, Second};
use super::rows::{column_sums, in_order, rows_in_piece};
use crate::error::Result;
use crate::ops::engine::{
    Array, Buffer, Fused, Gradients, Handle, Held, Inner, Inputs, Made, Op, Point, Real, apply,
};
use crate::ops::layer_norm::check_width;
use crate::ops::simd::{self, Width};
use crate::ops::{self, Dropout, wrong};
use candle_core::Tensor;
use rayon::prelude::*;

/// LayerNorm(dropout(x) + residual) over the last dimension: [`crate::ops::residual_layer_norm`] on
/// handles; without a residual and with [`Dropout::none`], a plain layer norm.
///
/// `x` and `residual` are [.., n], `weight` and `bias` `[n]`.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes or a probability that do not fit; candle's errors.
pub fn layer_norm(
    x: &Handle,
    residual: Option<&Handle>,
    dropout: &Dropout,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Handle> {
    check_width(x.dims(), weight, bias)?;
    if let Some(residual) = residual
        && residual.dims() != x.dims()
    {
        let expected = format!("{:?}, as the input", x.dims());
        return wrong(
            "residual of a layer norm",
            expected,
            format!("{:?}", residual.dims()),
        );
    }
    match x.inner() {
        Inner::Composed(x) => {
            let x = dropout.apply(x)?;
            let sum = match residual {
                Some(residual) => (x + residual.exit()?)?,
                None => x,
            };
            Ok(Handle::composed(&ops::layer_norm(&sum, weight, bias, eps)?))
        }
        Inner::F32(x) => Ok(fused(x, residual, dropout, weight, bias, eps)?.into()),
        Inner::F64(x) => Ok(fused(x, residual, dropout, weight, bias, eps)?.into()),
    }
}

fn fused<T: Real>(
    x: &Fused<T>,
    residual: Option<&Handle>,
    dropout: &Dropout,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Fused<T>> {
    let op = Norm {
        width: weight.elem_count(),
        eps,
        mask: Mask::new(dropout, x.slot.length())?,
    };
    let (weight, bias) = (Fused::enter(weight)?, Fused::enter(bias)?);
    let residual = residual.map(Fused::of).transpose()?;
    let mut inputs = vec![x, &weight, &bias];
    inputs.extend(&residual);
    apply(op, &inputs, &x.slot.shape)
}

struct Norm {
    width: usize,
    eps: f64,
    mask: Option<Mask>,
}

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
    fn piece(&self) -> usize {
        rows_in_piece(self.width)
    }

    /// z̄ as the gradients of x and r.
    fn spread<T: Real>(&self, sum: Buffer<T>, x: bool, r: bool) -> [Option<Buffer<T>>; 2] {
        let masked = x.then(|| match &self.mask {
            Some(mask) => mask.of(&sum),
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

impl<T: Real> Op<T> for Norm {
    type Saved = Saved<T>;
    type Kept = ();
    type Deferred = Left<T>;

    fn name(&self) -> &'static str {
        "layer norm"
    }

    /// Of all its inputs the weight: x̂ and s stand for x and the residual.
    fn reads(&self, input: usize) -> bool {
        input == 1
    }

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> (Made<T>, Saved<T>) {
        let (x, weight, bias) = (&inputs[0], &inputs[1], &inputs[2]);
        let (width, rows) = (self.width, self.piece());
        let mut y = Buffer::scratch(x.len());
        let mut unit = Buffer::scratch(x.len());
        let mut scale = Buffer::scratch(x.len() / width);
        let length = rows * width;
        let residual = optional(
            inputs.get(3).map(|r| &**r),
            length,
            x.len().div_ceil(length),
        );
        let results = unit.par_chunks_mut(length).zip(y.par_chunks_mut(length));
        let results = results.zip(scale.par_chunks_mut(rows)).zip(residual);
        results
            .enumerate()
            .for_each(|(piece, (((unit, y), scale), residual))| {
                let start = piece * length;
                unit.copy_from_slice(&x[start..][..unit.len()]);
                if let Some(mask) = &self.mask {
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
                simd::run(Width::Widest, task);
            });
        (y.into(), Saved { unit, scale })
    }

    fn adjoint(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        wanted: &[bool],
        _: &mut Gradients<T>,
    ) -> (Gradients<T>, ()) {
        let (width, rows) = (self.width, self.piece());
        let length = rows * width;
        let (left_sum, left_weight) = match deferred {
            Some(left) => (Some(left.sum), Some(left.weight)),
            None => (None, None),
        };
        let mut sum = left_sum.unwrap_or_else(|| Buffer::zeroed(point.lengths[0]));
        let mut weights = Vec::new();
        if let Some(left) = left_weight {
            weights.push(left);
        }
        if let Some(g) = gradient {
            let saved = point.saved;
            let pieces = sum.par_chunks_mut(length).zip(g.par_chunks(length));
            let pieces = pieces.zip(saved.unit.par_chunks(length));
            let pieces = pieces.zip(saved.scale.par_chunks(rows));
            let parts: Vec<Buffer<T>> = pieces
                .map(|(((sum, g), unit), scale)| {
                    let mut weight = Buffer::zeroed(width);
                    let task = Backward {
                        weight: &point.inputs[1],
                        unit,
                        scale,
                        g,
                        sum,
                        weight_gradient: &mut weight,
                    };
                    simd::run(Width::Widest, task);
                    weight
                })
                .collect();
            weights.extend(parts);
        }
        let weight = wanted[1].then(|| in_order(weights, width));
        let bias = match (gradient, wanted[2]) {
            (Some(g), true) => Some(column_sums(g, width)),
            _ => None,
        };
        let residual = wanted.get(3).copied().unwrap_or(false);
        let [x, r] = self.spread(sum, wanted[0], residual);
        (vec![x, weight, bias, r], ())
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> (Made<T>, Left<T>) {
        let (width, rows) = (self.width, self.piece());
        let length = rows * width;
        let (saved, gradient) = (point.saved, gradient.view());
        let views: Vec<_> = cotangents
            .iter()
            .map(|v| v.as_ref().map(Held::view))
            .collect();
        // v = m v_x + v_r, in the memory that becomes z̄_A.
        let mut v = match &views[0] {
            Some(v_x) => match &self.mask {
                Some(mask) => mask.of(v_x),
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
        let pieces = tangent.par_chunks_mut(length).zip(v.par_chunks_mut(length));
        let pieces = pieces.zip(gradient.par_chunks(length));
        let pieces = pieces.zip(saved.unit.par_chunks(length));
        let pieces = pieces.zip(saved.scale.par_chunks(rows));
        let parts: Vec<Buffer<T>> = pieces
            .map(|((((tangent, v), g), unit), scale)| {
                let mut weight = Buffer::zeroed(width);
                let task = Second {
                    weight: &point.inputs[1],
                    v_weight,
                    v_bias,
                    unit,
                    scale,
                    g,
                    v,
                    tangent,
                    weight_gradient: &mut weight,
                };
                simd::run(Width::Widest, task);
                weight
            })
            .collect();
        let left = Left {
            sum: v,
            weight: in_order(parts, width),
        };
        (tangent.into(), left)
    }
}
