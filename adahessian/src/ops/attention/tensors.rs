//! The attention of `cpu.rs` in candle's products and formulas, on tensors without a graph.

use super::Attention;
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers};
use crate::engine::{Kernel, Tensors};
use crate::error::Result;
use crate::numeric::formula::{Space, plus as plus_symbols};
use crate::numeric::traced::Symbol;
use crate::numeric::{SumOfProducts, hidden_score};
use candle_core::{D, Tensor};

/// q, k and v by heads, [B, heads, positions, d], and P, [B, heads, T, S].
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

/// s left rightᵀ of the last two dimensions.
fn across(scale: f64, left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let mut product = SumOfProducts::scaled(scale);
    product.add(left, &right.t()?)?;
    product.sum().ok_or_else(|| crate::Error::Engine {
        what: "a sum of one product is there".into(),
    })
}

/// Rows of weights P.
struct Rows {
    space: Space,
    weights: Symbol,
}

impl Rows {
    fn of(weights: &Tensor) -> Result<Self> {
        let space = Space::rows(weights.dims(), weights.dim(D::Minus1)?);
        let weights = space.entries(weights)?;
        Ok(Self { space, weights })
    }

    /// ⟨u, P⟩
    fn along(&self, u: &Symbol) -> Symbol {
        (&self.weights * u).sum()
    }

    /// J(P, u)
    fn jacobian(&self, u: &Symbol) -> Symbol {
        let weighted = &self.weights * u;
        let sum = weighted.sum();
        weighted - &self.weights * sum
    }
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

    /// m u, in a formula.
    fn masked(&self, space: &Space, u: &Symbol, like: &Tensor) -> Result<Symbol> {
        match &self.mask {
            Some(mask) => Ok(u * space.entries(&mask.factors(like)?)?),
            None => Ok(u.clone()),
        }
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
        let [q, k, v] = [0, 1, 2].map(|i| self.split(&inputs[i]));
        let (q, k, v) = (q?, k?, v?);
        let mut scores = across(self.scale(all), &q, &k)?;
        let visible = self.visible((batch, queries, keys), &scores)?;
        if let Some(visible) = &visible {
            let hidden = hidden_score(scores.dtype());
            scores = scores.broadcast_add(&visible.affine(-hidden, hidden)?)?;
        }
        let space = Space::rows(scores.dims(), keys);
        let powers = space.entries(&scores)?;
        let powers = (&powers - powers.largest()).exp();
        let weights = &powers / powers.sum();
        let (weights, dropped) = match (&visible, &self.key_mask) {
            (Some(visible), Some(_)) => {
                let [weights] = space.compute([weights])?;
                // A query that sees no key at all has no weights.
                let weights = weights.broadcast_mul(visible)?;
                let dropped = self.dropped(&weights)?;
                (weights, dropped)
            }
            _ => {
                let dropped = self
                    .mask
                    .as_ref()
                    .map(|_| self.masked(&space, &weights, &scores));
                let ([weights], [dropped]) =
                    space.compute_both([weights], [dropped.transpose()?])?;
                let dropped = dropped.unwrap_or_else(|| weights.clone());
                (weights, dropped)
            }
        };
        let y = self.join(&dropped.matmul(&v)?)?;
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
        let left = deferred.as_ref();
        let across = own.as_ref().map(|g| across(1.0, g, v)).transpose()?;
        let rows = Rows::of(weights)?;
        let of_weights = rows.space.some(across.as_ref())?;
        let of_weights = of_weights.map(|u| self.masked(&rows.space, &u, weights));
        let of_weights = of_weights.transpose()?;
        let from_left = rows
            .space
            .some(left.and_then(|left| left.weights.as_ref()))?;
        let total = plus_symbols(of_weights.clone(), from_left);
        let of_scores = total.map(|u| rows.jacobian(&u));
        // Without a mask it is there already.
        let masked = of_weights.filter(|_| self.mask.is_some());
        let [masked, of_scores] = rows.space.compute_some([masked, of_scores])?;
        let of_weights = masked.or(across);

        let mut gq = SumOfProducts::scaled(scale);
        let (mut gk, mut gv) = (SumOfProducts::scaled(scale), SumOfProducts::new());
        if let Some(s) = &of_scores {
            gq.add(s, k)?;
            gk.add(&s.t()?, q)?;
        }
        if let Some(g) = &own {
            gv.add(&self.dropped(weights)?.t()?, g)?;
        }
        if let Some(left) = left {
            if let Some(v_k) = &left.v_k {
                gq.add(&left.scores, v_k)?;
            }
            if let Some(v_q) = &left.v_q {
                gk.add(&left.scores.t()?, v_q)?;
            }
            if let Some(dropped) = &left.dropped {
                gv.add(&dropped.t()?, &left.gradient)?;
            }
        }
        let [gq, gk, gv] = [gq, gk, gv].map(SumOfProducts::sum);
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
        let mut ts = SumOfProducts::scaled(scale);
        if let Some(v_q) = &v_q {
            ts.add(v_q, &k.t()?)?;
        }
        if let Some(v_k) = &v_k {
            ts.add(q, &v_k.t()?)?;
        }
        let ts = ts.sum();
        let from_v = v_v.as_ref().map(|v_v| across(1.0, g, v_v)).transpose()?;
        let rows = Rows::of(weights)?;
        let space = &rows.space;
        let (mut of_weights, mut dropped) = (None, None);
        if let Some(ts) = space.some(ts.as_ref())? {
            // tS (gP - ⟨gP,P⟩) - ⟨tS,P⟩ gP
            let gp = space.entries(gp)?;
            let apart = &gp - rows.along(&gp);
            of_weights = Some(&ts * apart - gp * rows.along(&ts));
            dropped = Some(self.masked(space, &rows.jacobian(&ts), weights)?);
        }
        if let Some(from_v) = space.some(from_v.as_ref())? {
            of_weights = plus_symbols(of_weights, Some(self.masked(space, &from_v, weights)?));
        }
        let [of_weights, dropped] = rows.space.compute_some([of_weights, dropped])?;
        let mut tangent = SumOfProducts::new();
        if let Some(tp) = &dropped {
            tangent.add(tp, v)?;
        }
        if let Some(v_v) = &v_v {
            tangent.add(&self.dropped(weights)?, v_v)?;
        }
        let tangent = match tangent.sum() {
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
