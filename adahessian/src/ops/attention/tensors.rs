//! The attention of `cpu.rs` in candle's operations, on tensors without a graph.

use super::Attention;
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers, plus};
use crate::engine::{Kernel, Tensors};
use crate::error::Result;
use crate::numeric::hidden_score;
use candle_core::{D, Tensor};

/// α q, k and v by heads, [B, heads, positions, d], and P, [B, heads, T, S].
pub(super) struct Saved {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Tensor,
}

/// What the second level leaves: P̄_A, m tP, and by heads g, gS and the cotangents of gq and gk.
pub(super) struct Left {
    weights: Option<Tensor>,
    dropped: Option<Tensor>,
    gradient: Tensor,
    scores: Tensor,
    v_q: Option<Tensor>,
    v_k: Option<Tensor>,
}

/// What the adjoint keeps: g by heads, gP and gS.
pub(super) struct Kept {
    gradient: Tensor,
    of_weights: Tensor,
    of_scores: Tensor,
}

/// left rightᵀ of the last two dimensions.
fn across(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    Ok(left.matmul(&right.t()?)?)
}

/// leftᵀ right.
fn down(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    Ok(left.t()?.matmul(right)?)
}

/// ⟨u, P⟩ of every row.
fn along(p: &Tensor, u: &Tensor) -> Result<Tensor> {
    Ok((p * u)?.sum_keepdim(D::Minus1)?)
}

/// J(P, u).
fn jacobian(p: &Tensor, u: &Tensor) -> Result<Tensor> {
    let weighted = (p * u)?;
    let sums = weighted.sum_keepdim(D::Minus1)?;
    Ok((weighted - p.broadcast_mul(&sums)?)?)
}

impl Attention {
    /// α
    fn scale(&self, width: usize) -> f64 {
        1.0 / ((width / self.heads) as f64).sqrt()
    }

    /// [B, heads, positions, d] of [B, positions, D].
    fn split(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, positions, width) = x.dims3()?;
        let x = x
            .contiguous()?
            .reshape((batch, positions, self.heads, width / self.heads))?;
        Ok(x.transpose(1, 2)?.contiguous()?)
    }

    /// Back again.
    fn join(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, heads, positions, width) = x.dims4()?;
        let x = x.transpose(1, 2)?.contiguous()?;
        Ok(x.reshape((batch, positions, heads * width))?)
    }

    /// m u
    fn dropped(&self, u: &Tensor) -> Result<Tensor> {
        match &self.mask {
            Some(mask) => mask.composed(u),
            None => Ok(u.clone()),
        }
    }
}

impl Kernel<Tensors> for Attention {
    type Saved = Saved;
    type Kept = Option<Kept>;
    type Deferred = Left;

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &Inputs, _: bool) -> Result<(Output, Saved)> {
        let (batch, queries, all) = inputs[0].dims3()?;
        let keys = inputs[1].dim(1)?;
        let q = (self.split(&inputs[0])? * self.scale(all))?;
        let (k, v) = (self.split(&inputs[1])?, self.split(&inputs[2])?);
        let mut scores = across(&q, &k)?;
        let visible = self.visible((batch, queries, keys), &scores)?;
        if let Some(visible) = &visible {
            let hidden = hidden_score(scores.dtype());
            scores = scores.broadcast_add(&visible.affine(-hidden, hidden)?)?;
        }
        // It cuts the graph; there is none here, and its derivative is written out below.
        let mut weights = candle_nn::ops::softmax_last_dim(&scores)?;
        if let (Some(visible), Some(_)) = (&visible, &self.key_mask) {
            // A query that sees no key at all has no weights.
            weights = weights.broadcast_mul(visible)?;
        }
        let y = self.join(&self.dropped(&weights)?.matmul(&v)?)?;
        let saved = Saved { q, k, v, weights };
        Ok((y.into(), saved))
    }

    fn adjoint(
        &self,
        point: &Point<Saved>,
        gradient: Option<&Tensor>,
        deferred: Option<Left>,
        _: &[bool],
        _: &mut Gradients,
    ) -> Result<(Gradients, Option<Kept>)> {
        let Saved { q, k, v, weights } = point.saved;
        let scale = self.scale(point.shape(0)[2]);
        let own = gradient.map(|g| self.split(g)).transpose()?;
        let from_value = |g: &Tensor| self.dropped(&across(g, v)?);
        let of_weights = own.as_ref().map(from_value).transpose()?;
        let left = deferred.as_ref();
        let total = plus(of_weights.clone(), left.and_then(|l| l.weights.clone()))?;
        let of_scores = total.as_ref().map(|u| jacobian(weights, u)).transpose()?;

        let (mut gq, mut gk, mut gv) = (None, None, None);
        if let Some(s) = &of_scores {
            gq = Some(s.matmul(k)?);
            // q holds α already.
            gk = Some(down(s, q)?);
        }
        if let Some(g) = &own {
            gv = Some(down(&self.dropped(weights)?, g)?);
        }
        if let Some(left) = left {
            if let Some(v_k) = &left.v_k {
                gq = plus(gq, Some(left.scores.matmul(v_k)?))?;
            }
            if let Some(v_q) = &left.v_q {
                gk = plus(gk, Some((down(&left.scores, v_q)? * scale)?))?;
            }
            if let Some(dropped) = &left.dropped {
                gv = plus(gv, Some(down(dropped, &left.gradient)?))?;
            }
        }
        let gq = gq.map(|gq| gq * scale).transpose()?;
        let mut all = Gradients::with_capacity(3);
        for gradient in [gq, gk, gv] {
            all.push(gradient.map(|g| self.join(&g)).transpose()?.map(Into::into));
        }
        let kept = match (own, of_weights, of_scores) {
            (Some(gradient), Some(of_weights), Some(of_scores)) => Some(Kept {
                gradient,
                of_weights,
                of_scores,
            }),
            _ => None,
        };
        Ok((all, kept))
    }

    fn second_adjoint(
        &self,
        point: &Point<Saved>,
        gradient: &Array,
        kept: &Option<Kept>,
        cotangents: &[Option<Held>],
    ) -> Result<(Output, Left)> {
        let Saved { q, k, v, weights } = point.saved;
        let scale = self.scale(point.shape(0)[2]);
        let Kept {
            gradient: g,
            of_weights: gp,
            of_scores: gs,
        } = match kept {
            Some(kept) => kept,
            None => {
                return Err(crate::Error::Engine {
                    what: "the attention's first pass has kept nothing".into(),
                });
            }
        };
        let split = |i: usize| -> Result<Option<Tensor>> {
            let v = numbers(cotangents.get(i))?;
            v.map(|v| self.split(&v)).transpose()
        };
        let (v_q, v_k, v_v) = (split(0)?, split(1)?, split(2)?);
        let from_q = match &v_q {
            Some(v_q) => Some((across(v_q, k)? * scale)?),
            None => None,
        };
        let from_k = v_k.as_ref().map(|v_k| across(q, v_k)).transpose()?;
        let (mut tangent, mut of_weights, mut dropped) = (None, None, None);
        if let Some(ts) = plus(from_q, from_k)? {
            // tS (gP - ⟨gP,P⟩) - ⟨tS,P⟩ gP
            let apart = gp.broadcast_sub(&along(weights, gp)?)?;
            let both = ((&ts * apart)? - gp.broadcast_mul(&along(weights, &ts)?)?)?;
            of_weights = Some(both);
            let tp = self.dropped(&jacobian(weights, &ts)?)?;
            tangent = Some(tp.matmul(v)?);
            dropped = Some(tp);
        }
        if let Some(v_v) = &v_v {
            let through = self.dropped(&across(g, v_v)?)?;
            of_weights = plus(of_weights, Some(through))?;
            tangent = plus(tangent, Some(self.dropped(weights)?.matmul(v_v)?))?;
        }
        let tangent = match tangent {
            Some(tangent) => self.join(&tangent)?,
            None => gradient.view()?.zeros_like()?,
        };
        let left = Left {
            weights: of_weights,
            dropped,
            gradient: g.clone(),
            scores: gs.clone(),
            v_q,
            v_k,
        };
        Ok((tangent.into(), left))
    }
}
