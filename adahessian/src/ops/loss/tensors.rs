//! The cross entropy as formulas, on tensors without a graph.

use super::cross_entropy::CrossEntropy;
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers};
use crate::engine::{Kernel, Tensors};
use crate::error::Result;
use crate::numeric::formula::{MOST_POSITIONS, Space, plus};
use crate::numeric::traced::{Symbol, Test};
use crate::ops::wrong;
use candle_core::{DType, Device, Tensor};

/// p of every row, w (0 where it is not counted), and its class (-1 where it is not).
pub(super) struct Saved {
    p: Tensor,
    weights: Tensor,
    classes: Tensor,
}

/// g, and v.
pub(super) struct Left {
    gradient: Tensor,
    v: Tensor,
}

impl CrossEntropy {
    /// w and the class of every row, sent over at once.
    pub(super) fn of_rows(&self, like: &Tensor) -> Result<[Tensor; 2]> {
        let all = &self.targets.classes;
        let weights = all.iter().map(|c| c.map_or(0.0, |_| self.targets.weight));
        let classes = all.iter().map(|c| c.map_or(-1.0, |c| c as f64));
        let both: Vec<f64> = weights.chain(classes).collect();
        let both = Tensor::from_vec(both, 2 * all.len(), &Device::Cpu)?;
        let both = both.to_dtype(like.dtype())?.to_device(like.device())?;
        Ok([
            both.narrow(0, 0, all.len())?,
            both.narrow(0, all.len(), all.len())?,
        ])
    }

    /// What q is of every class, and how much more of a row's own.
    fn shares(&self) -> (f64, f64) {
        let smoothing = self.targets.smoothing;
        (smoothing / self.classes as f64, 1.0 - smoothing)
    }

    /// e^(l - largest) of every entry with what its row sums up to. Whatever is in a row that is not counted, it is in no
    /// sum and no derivative.
    pub(super) fn powers(&self, space: &Space, logit: &Symbol, weight: &Symbol) -> Powers {
        let zero = space.constant(0.0);
        let logit = weight.choose(Test::Equal, &zero, &zero, logit);
        let rest = &logit - logit.largest();
        let all = rest.exp();
        // The sum of powers is at least 1, which would hide what is small beside it.
        let one = space.constant(1.0);
        let ties = rest.choose(Test::Equal, &zero, &one, &zero).sum();
        let beyond = rest.choose(Test::Equal, &zero, &zero, &all).sum();
        Powers {
            rest,
            all,
            ties,
            beyond,
        }
    }

    /// p of every row, and the loss, in f64.
    pub(super) fn probabilities(
        &self,
        space: Space,
        logit: &Symbol,
        weights: &Tensor,
        classes: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        if self.classes > MOST_POSITIONS {
            let expected = format!("at most {MOST_POSITIONS}");
            return wrong(
                "classes of a cross entropy",
                expected,
                self.classes.to_string(),
            );
        }
        let (weight, class) = (space.shared(weights)?, space.shared(classes)?);
        let powers = self.powers(&space, logit, &weight);
        let p = powers.shares();
        let Powers {
            rest, ties, beyond, ..
        } = powers;
        // Of a class that is ruled out, by a logit of -∞, 0 is taken, and not 0 · ∞.
        let (even, more) = self.shares();
        let other = match even == 0.0 {
            true => space.constant(0.0),
            false => &rest * even,
        };
        let own = &rest * (even + more);
        let along = space.position().choose(Test::Equal, &class, &own, &other);
        let [p, ties, beyond, along] = space.compute([p, ties, beyond, along.sum()])?;
        let exact = |x: &Tensor| x.to_dtype(DType::F64);
        let norms = (exact(&ties)? + exact(&beyond)?)?.log()?;
        // The largest logit is in neither term: a small loss keeps its digits.
        let terms = ((norms - exact(&along)?)? * exact(weights)?)?;
        Ok((p, terms.sum_all()?))
    }

    /// p - q of every entry; of a row's own class from the others' p, which a difference of two ones would lose.
    pub(super) fn slope(&self, space: &Space, p: &Symbol, classes: &Symbol) -> Symbol {
        let (even, _) = self.shares();
        let position = space.position();
        let zero = space.constant(0.0);
        let others = position.choose(Test::Equal, classes, &zero, p).sum();
        let own = -others + (self.targets.smoothing - even);
        position.choose(Test::Equal, classes, &own.spread(), &(p - even))
    }
}

/// Powers of a softmax.
pub(super) struct Powers {
    /// l - largest.
    rest: Symbol,
    /// e to that.
    all: Symbol,
    /// How many entries of the row are its largest.
    ties: Symbol,
    /// The sum of the others' powers.
    beyond: Symbol,
}

impl Powers {
    /// p.
    pub fn shares(&self) -> Symbol {
        &self.all / (&self.ties + &self.beyond)
    }
}

/// v less its mean in each row, of which no derivative is a function.
pub(super) fn centred(space: &Space, v: &Symbol) -> Symbol {
    v - space.mean(v)
}

/// One number times a number of every row.
pub(super) fn times(number: &Tensor, rows: &Tensor) -> Result<Tensor> {
    Ok(rows.broadcast_mul(&number.reshape(1)?)?)
}

impl Kernel<Tensors> for CrossEntropy {
    type Saved = Saved;
    type Kept = ();
    type Deferred = Option<Left>;

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &Inputs, _: bool) -> Result<(Output, Saved)> {
        let logits = &inputs[0];
        let [weights, classes] = self.of_rows(logits)?;
        let space = Space::rows(logits.dims(), self.classes);
        let logit = space.entries(logits)?;
        let (p, loss) = self.probabilities(space, &logit, &weights, &classes)?;
        let loss = loss.to_dtype(p.dtype())?;
        let saved = Saved {
            p,
            weights,
            classes,
        };
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
        let Saved {
            p,
            weights,
            classes,
        } = point.saved;
        let space = Space::rows(p.dims(), self.classes);
        let (p, class) = (space.entries(p)?, space.shared(classes)?);
        let mut all = None;
        if let Some(g) = gradient {
            let weight = space.shared(&times(g, weights)?)?;
            all = Some(self.slope(&space, &p, &class) * weight);
        }
        if let Some(Left { gradient, v }) = deferred.flatten() {
            // g w p (v - ⟨v, p⟩)
            let weight = space.shared(&times(&gradient, weights)?)?;
            let v = centred(&space, &space.entries(&v)?);
            let along = (&v * &p).sum();
            all = plus(all, Some((v - along) * p * weight));
        }
        let [all] = space.compute_some([all])?;
        Ok((vec![all.map(Into::into)], ()))
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
        let saved = point.saved;
        let space = Space::rows(saved.p.dims(), self.classes);
        let (p, class) = (space.entries(&saved.p)?, space.shared(&saved.classes)?);
        let along = (centred(&space, &space.entries(&v)?) * self.slope(&space, &p, &class)).sum();
        let [along] = space.compute([along])?;
        let tangent = (along * &saved.weights)?.sum_all()?;
        Ok((tangent.into(), Some(Left { gradient, v })))
    }
}
