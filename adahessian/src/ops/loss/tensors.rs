//! The cross entropy in candle's operations, on tensors without a graph.

use super::cross_entropy::CrossEntropy;
use super::targets::distribution;
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers, plus};
use crate::engine::{Kernel, Tensors};
use crate::error::Result;
use candle_core::{D, Tensor};

/// w p, w (p - q) and p of every row.
pub(super) struct Saved {
    weighted: Tensor,
    slope: Tensor,
    p: Tensor,
}

/// g, and v.
pub(super) struct Left {
    gradient: Tensor,
    v: Tensor,
}

/// One number times all entries.
fn times(number: &Tensor, x: &Tensor) -> Result<Tensor> {
    Ok(x.broadcast_mul(&number.reshape((1, 1))?)?)
}

impl Kernel<Tensors> for CrossEntropy {
    type Saved = Saved;
    type Kept = ();
    type Deferred = Option<Left>;

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &Inputs, _: bool) -> Result<(Output, Saved)> {
        let logits = &self.targets.counted(&inputs[0])?;
        let [q, weights] = distribution(&self.targets, logits)?;
        let largest = logits.max_keepdim(D::Minus1)?;
        let rest = logits.broadcast_sub(&largest)?;
        let powers = rest.exp()?;
        let sums = powers.sum_keepdim(D::Minus1)?; // [N, 1]
        let products = (&rest * &q)?;
        // Of a class that is ruled out, by a logit of -∞, 0 is taken, and not 0 · ∞.
        let products = q.eq(0.0)?.where_cond(&products.zeros_like()?, &products)?;
        let norms = (sums.log()? * &weights)?;
        let loss = (norms.sum_all()? - products.sum_all()?)?;
        let p = powers.broadcast_div(&sums)?;
        let weighted = p.broadcast_mul(&weights)?;
        let slope = (&weighted - q)?;
        let saved = Saved { weighted, slope, p };
        Ok((loss.into(), saved))
    }

    fn adjoint(
        &self,
        point: &Point<Saved>,
        gradient: Option<&Tensor>,
        deferred: Option<Option<Left>>,
        _: &[bool],
        _: &mut Gradients,
    ) -> Result<(Gradients, ())> {
        let Saved { weighted, slope, p } = point.saved;
        let first = gradient.map(|g| times(g, slope)).transpose()?;
        let second = match deferred.flatten() {
            Some(Left { gradient, v }) => {
                // g w p (v - ⟨v, p⟩)
                let along = (&v * p)?.sum_keepdim(D::Minus1)?;
                Some(times(&gradient, &(weighted * v.broadcast_sub(&along)?)?)?)
            }
            None => None,
        };
        Ok((vec![plus(first, second)?.map(Into::into)], ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<Saved>,
        gradient: &Array,
        _: &(),
        cotangents: &[Option<Held>],
    ) -> Result<(Output, Option<Left>)> {
        let gradient = gradient.view()?.into_tensor();
        let Some(v) = numbers(cotangents.first())? else {
            return Ok((gradient.zeros_like()?.into(), None));
        };
        let tangent = (&v * &point.saved.slope)?.sum_all()?;
        Ok((tangent.into(), Some(Left { gradient, v })))
    }
}
