//! What an optimizer keeps of one variable, and its step.

use super::bound::StepBound;
use super::builder::{Average, Curvature, Delay};
use super::group::Resolved;
use super::pass::{self, Diagonal, Later, Outcome, Pass};
use super::pending::Clipping;
use super::rule::{Rule, Step};
use crate::block::Block;
use crate::error::Result;
use crate::numeric::{wide, widened};
use crate::optim::State;
use crate::second_order::versions;
use candle_core::{Tensor, TensorId, Var};

/// The running quantities of one variable.
#[derive(Clone)]
pub(super) struct Slots {
    block: Block,
    tensors: Vec<Tensor>,
    /// The last D, averaged, kept for [`Delay::Stale`] only.
    last: Option<Tensor>,
    /// Updates of θ.
    count: u64,
    /// How many times D was taken.
    diagonal_count: u64,
    /// Whether it had a gradient and has no D yet.
    pub(super) waits: bool,
}

/// How a step is computed.
struct How<'a> {
    /// In one pass over memory, where that can be done.
    fuses: bool,
    later: &'a mut Later,
}

/// What the step of a variable needs beyond its slots and settings.
#[derive(Clone, Copy)]
pub(super) struct Rates {
    /// η of this variable.
    pub lr: f64,
    /// λ.
    pub weight_decay: f64,
    /// What is done to the gradient first.
    pub clipping: Clipping,
    /// How far the variable may move.
    pub bound: Option<StepBound>,
}

impl Slots {
    pub fn new<R: Rule>(
        rule: &R,
        curvature: &Curvature,
        name: &str,
        var: &Var,
        settings: &Resolved,
    ) -> Result<Self> {
        let block = match settings.block {
            _ if !R::SECOND_ORDER => Block::Single,
            Some(block) => {
                block.check(name, var.dims())?;
                block
            }
            None => curvature.blocks.resolve(name, var.dims())?,
        };
        // Memory of their own, for they are changed in place; in f32 where the variable is in half
        // precision.
        let zeros = || Tensor::zeros(var.shape(), wide(var.dtype()), var.device());
        let keeps = R::SECOND_ORDER && curvature.delay == Delay::Stale;
        let tensors = rule.slots().iter().map(|_| zeros());
        Ok(Self {
            block,
            tensors: tensors.collect::<candle_core::Result<_>>()?,
            last: keeps.then(zeros).transpose()?,
            count: 0,
            diagonal_count: 0,
            waits: false,
        })
    }

    /// Takes D, where this step has one, and a step with the gradient. A variable that is first reached
    /// between two computations of D is left alone till the next step's.
    pub fn step<R: Rule>(
        &mut self,
        rule: &R,
        curvature: &Curvature,
        var: &Var,
        (gradient, diagonal): (Option<&Tensor>, Option<&Tensor>),
        rates: &Rates,
        later: &mut Later,
    ) -> Result<Outcome> {
        let how = How { fuses: true, later };
        self.advance(rule, curvature, var, (gradient, diagonal), rates, how)
    }

    /// As [`Slots::step`], always with candle's operations.
    #[cfg(test)]
    pub fn step_composed<R: Rule>(
        &mut self,
        rule: &R,
        curvature: &Curvature,
        var: &Var,
        (gradient, diagonal): (Option<&Tensor>, Option<&Tensor>),
        rates: &Rates,
        later: &mut Later,
    ) -> Result<Outcome> {
        let fuses = false;
        let how = How { fuses, later };
        self.advance(rule, curvature, var, (gradient, diagonal), rates, how)
    }

    /// Whether a gradient makes a step: not before there was a D, where the rule takes one.
    pub fn steps<R: Rule>(&self, fresh: bool) -> bool {
        !R::SECOND_ORDER || fresh || self.diagonal_count > 0
    }

    /// Whether there are no more than the rule's quantities.
    pub fn is_plain(&self) -> bool {
        self.last.is_none()
    }

    /// Counts a step that is taken elsewhere; its numbers.
    pub fn begin(&mut self, curvature: &Curvature, fresh: bool, rates: &Rates) -> Step {
        self.diagonal_count += u64::from(fresh);
        self.count += 1;
        self.numbers(curvature.delay, rates)
    }

    /// D with what is averaged in it.
    pub fn blocked(&self, curvature: &Curvature, new: &Tensor) -> Diagonal {
        Diagonal {
            tensor: new.clone(),
            block: self.block,
            average: curvature.average,
            floor: curvature.floor,
        }
    }

    /// The rule's quantities.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// What tells them from others.
    pub fn ids(&self) -> impl Iterator<Item = TensorId> {
        self.tensors.iter().map(Tensor::id)
    }

    /// Takes over quantities that were computed elsewhere.
    pub fn set_tensors(&mut self, tensors: Vec<Tensor>) {
        self.tensors = tensors;
    }

    fn advance<R: Rule>(
        &mut self,
        rule: &R,
        curvature: &Curvature,
        var: &Var,
        (gradient, diagonal): (Option<&Tensor>, Option<&Tensor>),
        rates: &Rates,
        How { fuses, later }: How<'_>,
    ) -> Result<Outcome> {
        let fresh = diagonal.is_some();
        let repeats = self.last.is_some() && gradient.is_some() && self.diagonal_count > 0;
        let gradient = gradient.filter(|_| self.steps::<R>(fresh));
        self.diagonal_count += u64::from(fresh || repeats);
        self.count += u64::from(gradient.is_some());
        let diagonal = self.diagonal(curvature, diagonal, repeats)?;
        let diagonal = diagonal.as_ref();
        let step = self.numbers(curvature.delay, rates);
        // In half precision: computed with a copy in f32, and rounded once.
        let value = widened(&var.as_detached_tensor())?;
        let pass = gradient.map(|gradient| Pass {
            value: &value,
            gradient,
            clipping: rates.clipping,
            diagonal,
            step,
            bound: rates.bound,
        });
        if let (Some(pass), true) = (&pass, fuses) {
            versions::changed(var);
            if let Some(mut outcome) = rule.in_place(pass, &self.tensors)? {
                if value.dtype() != var.dtype() {
                    outcome.change_squared = 0.0;
                    replace(var, &value, later)?;
                }
                outcome.updated = value.elem_count();
                return Ok(match fresh {
                    true => outcome,
                    false => outcome.without_diagonal(),
                });
            }
        }
        let mut outcome = Outcome::default();
        if let Some(diagonal) = diagonal {
            let averaged = diagonal.averaged()?;
            self.tensors = pass::observed(rule, &self.tensors, &averaged)?;
            if fresh {
                outcome = Outcome::of_diagonal(&averaged, later)?;
            }
        }
        if let Some(pass) = &pass {
            let done = pass::composed(rule, pass, &self.tensors, fresh, later)?;
            self.tensors = done.slots;
            outcome.bounded = done.bounded;
            replace(var, &done.value, later)?;
            if fresh {
                outcome.count_updated(value.elem_count());
            }
        }
        Ok(outcome)
    }

    /// The D that this step takes: the new one, or the last once more.
    fn diagonal(
        &mut self,
        curvature: &Curvature,
        new: Option<&Tensor>,
        repeats: bool,
    ) -> Result<Option<Diagonal>> {
        let new = new.map(|new| self.blocked(curvature, new));
        let Some(last) = &mut self.last else {
            return Ok(new);
        };
        let is_new = new.is_some();
        if let Some(new) = new {
            *last = new.averaged()?;
        }
        Ok((is_new || repeats).then(|| Diagonal {
            tensor: last.clone(),
            block: Block::Single,
            average: Average::Signed, // as it is
            floor: 0.0,
        }))
    }

    fn numbers(&self, delay: Delay, rates: &Rates) -> Step {
        Step {
            lr: rates.lr,
            weight_decay: rates.weight_decay,
            count: self.count,
            diagonal_count: match delay {
                // A D may come before the first gradient, and has gone into the mean as often as it came.
                Delay::HoldTotalCount => self.count.max(self.diagonal_count),
                _ => self.diagonal_count,
            },
        }
    }

    /// The curvature in force, in memory of its own; zero where there was no D yet.
    pub fn curvature<R: Rule>(&self, rule: &R, delay: Delay) -> Result<Option<Tensor>> {
        let rates = Rates {
            lr: 0.0,
            weight_decay: 0.0,
            clipping: Clipping::default(),
            bound: None,
        };
        let curvature = pass::curvature(rule, &self.tensors, &self.numbers(delay, &rates))?;
        Ok(match (curvature, self.diagonal_count) {
            (Some(like), 0) => Some(like.zeros_like()?),
            // A rule may hand out what the next step changes in place.
            (Some(curvature), _) => Some(curvature.copy()?),
            (None, _) => None,
        })
    }

    fn named<'a>(
        &'a self,
        names: &'static [&'static str],
    ) -> impl Iterator<Item = (&'static str, &'a Tensor)> {
        let last = self.last.iter().map(|last| ("last_diagonal", last));
        names.iter().copied().zip(&self.tensors).chain(last)
    }

    /// Adds them to a state.
    pub fn save<R: Rule>(&self, rule: &R, name: &str, state: &mut State) -> Result<()> {
        state.put(&format!("count.{name}"), self.count);
        if R::SECOND_ORDER {
            state.put(&format!("hessian_count.{name}"), self.diagonal_count);
        }
        if self.waits {
            state.put(&format!("waits.{name}"), true);
        }
        for (key, tensor) in self.named(rule.slots()) {
            // A copy: the next step changes it in place. Of its own numbers, where it is a part of others.
            let tensor = tensor.force_contiguous()?;
            state.tensors.insert(format!("{key}.{name}"), tensor);
        }
        Ok(())
    }

    /// What a state calls its tensors.
    pub fn names<R: Rule>(&self, rule: &R, name: &str) -> Vec<String> {
        let named = self.named(rule.slots());
        named.map(|(key, _)| format!("{key}.{name}")).collect()
    }

    /// This variable's slots with the quantities that a state holds for it.
    pub fn restored<R: Rule>(&self, rule: &R, name: &str, state: &State) -> Result<Self> {
        let tensors = self
            .named(rule.slots())
            .map(|(key, like)| state.tensor_like(&format!("{key}.{name}"), like));
        let mut tensors = tensors.collect::<Result<Vec<_>>>()?;
        let last = tensors.split_off(self.tensors.len()).pop();
        Ok(Self {
            block: self.block,
            tensors,
            last,
            count: state.value(&format!("count.{name}"))?,
            diagonal_count: match R::SECOND_ORDER {
                true => state.value(&format!("hessian_count.{name}"))?,
                false => 0,
            },
            waits: state.meta.contains_key(&format!("waits.{name}")),
        })
    }
}

/// Sets the variable, rounding to its type; adds the squared norm of its change.
fn replace(var: &Var, new: &Tensor, later: &mut Later) -> Result<()> {
    let new = new.to_dtype(var.dtype())?;
    let old = widened(&var.as_detached_tensor())?;
    let change = (widened(&new)? - old)?.sqr()?;
    later.add(&change, |to, sum| to.change_squared += sum)?;
    versions::set(var, &new)?;
    Ok(())
}
