//! Dropout, residual addition and layer norm of `cpu.rs` in candle's operations, on tensors without a graph.

use super::Norm;
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers, plus};
use crate::engine::{Kernel, Tensors};
use crate::error::Result;
use candle_core::{D, Tensor};

/// x̂ and s of every row, [rows, n] and [rows, 1], and γ.
pub(super) struct Saved {
    unit: Tensor,
    scale: Tensor,
    weight: Tensor,
}

/// z̄_A and γ̄_A.
pub(super) struct Left {
    sum: Tensor,
    weight: Tensor,
}

fn mean(x: &Tensor) -> Result<Tensor> {
    Ok(x.mean_keepdim(D::Minus1)?)
}

impl Saved {
    /// [rows, n].
    fn rows(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.contiguous()?.reshape(self.unit.shape())?)
    }

    /// B(u), with mean(u x̂).
    fn centred(&self, u: &Tensor) -> Result<(Tensor, Tensor)> {
        let along = mean(&(u * &self.unit)?)?;
        let rest = u.broadcast_sub(&mean(u)?)?;
        let rest = (rest - self.unit.broadcast_mul(&along)?)?;
        Ok((rest.broadcast_mul(&self.scale)?, along))
    }
}

impl Norm {
    fn masked(&self, x: &Tensor) -> Result<Tensor> {
        match &self.mask {
            Some(mask) => mask.composed(x),
            None => Ok(x.clone()),
        }
    }
}

impl Kernel<Tensors> for Norm {
    type Saved = Saved;
    type Kept = ();
    type Deferred = Left;

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &Inputs, _: bool) -> Result<(Output, Saved)> {
        let (x, weight, bias) = (&inputs[0], &inputs[1], &inputs[2]);
        let mut z = self.masked(x)?;
        if let Some(residual) = inputs.get(3) {
            z = (z + residual)?;
        }
        let z = z.contiguous()?.reshape(((), weight.elem_count()))?;
        let centred = z.broadcast_sub(&mean(&z)?)?;
        let variance = mean(&centred.sqr()?)?;
        let scale = (variance + self.eps)?.sqrt()?.recip()?;
        let unit = centred.broadcast_mul(&scale)?;
        let y = unit.broadcast_mul(weight)?.broadcast_add(bias)?;
        let weight = weight.clone();
        let saved = Saved {
            unit,
            scale,
            weight,
        };
        Ok((y.into(), saved))
    }

    fn adjoint(
        &self,
        point: &Point<Saved>,
        gradient: Option<&Tensor>,
        deferred: Option<Left>,
        wanted: &[bool],
        _: &mut Gradients,
    ) -> Result<(Gradients, ())> {
        let saved = point.saved;
        let (left_sum, left_weight) = deferred.map(|left| (left.sum, left.weight)).unzip();
        let (mut sum, mut weight, mut bias) = (left_sum, left_weight, None);
        if let Some(g) = gradient {
            let g = saved.rows(g)?;
            let h = g.broadcast_mul(&saved.weight)?;
            sum = plus(Some(saved.centred(&h)?.0), sum)?;
            if wanted[1] {
                weight = plus(Some((&g * &saved.unit)?.sum(0)?), weight)?;
            }
            bias = wanted[2].then(|| g.sum(0)).transpose()?;
        }
        let (mut x, mut residual) = (None, None);
        if let Some(sum) = sum {
            let sum = sum.reshape(point.shape(0))?;
            x = wanted[0].then(|| self.masked(&sum)).transpose()?;
            residual = wanted.get(3).copied().unwrap_or(false).then_some(sum);
        }
        let all = [x, weight, bias, residual].map(|gradient| gradient.map(Into::into));
        Ok((all.into_iter().take(wanted.len()).collect(), ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<Saved>,
        gradient: &Array,
        _: &(),
        cotangents: &[Option<Held>],
    ) -> Result<(Output, Left)> {
        let (saved, gradient) = (point.saved, gradient.view()?);
        let Saved {
            unit,
            scale,
            weight,
        } = saved;
        let g = saved.rows(&gradient)?;
        let n = weight.elem_count() as f64;
        let v_x = numbers(cotangents.first())?;
        let v_x = v_x.map(|v| self.masked(&v)).transpose()?;
        let v = plus(v_x, numbers(cotangents.get(3))?)?;
        let v = v.map(|v| saved.rows(&v)).transpose()?;
        let v_weight = numbers(cotangents.get(1))?;
        let v_bias = numbers(cotangents.get(2))?;

        let (mut tangent, mut sum, mut of_weight) = (None, None, None);
        if let Some(v) = v {
            let (bv, v_along) = saved.centred(&v)?;
            let (bh, h_along) = saved.centred(&g.broadcast_mul(weight)?)?;
            let common = ((&v * &bh)?.sum_keepdim(D::Minus1)? / n)?;
            let bent = unit.broadcast_mul(&common)?;
            let bent = ((bent + bh.broadcast_mul(&v_along)?)? + bv.broadcast_mul(&h_along)?)?;
            sum = Some(bent.broadcast_mul(&scale.neg()?)?);
            of_weight = Some((&g * &bv)?.sum(0)?);
            tangent = Some(bv.broadcast_mul(weight)?);
        }
        if let Some(v_weight) = v_weight {
            let slope = g.broadcast_mul(&v_weight)?;
            sum = plus(Some(saved.centred(&slope)?.0), sum)?;
            tangent = plus(Some(unit.broadcast_mul(&v_weight)?), tangent)?;
        }
        if let Some(v_bias) = v_bias {
            tangent = Some(match tangent {
                Some(tangent) => tangent.broadcast_add(&v_bias)?,
                None => v_bias.broadcast_as(g.shape())?.contiguous()?,
            });
        }
        let zeros = |like: &Tensor| like.zeros_like();
        let left = Left {
            sum: sum.map_or_else(|| zeros(&g), Ok)?,
            weight: of_weight.map_or_else(|| zeros(weight), Ok)?,
        };
        let tangent = tangent.map_or_else(|| zeros(&g), Ok)?;
        Ok((tangent.into(), left))
    }
}
