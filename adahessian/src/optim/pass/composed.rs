//! A step of candle's operations, for types and devices that the pass over memory does not know.

use super::{Outcome, Pass};
use crate::error::Result;
use crate::numeric::{Totals, sum_f64};
use crate::optim::bound;
use crate::optim::number::Expr;
use crate::optim::rule::{Entry, Rule, Step};
use candle_core::Tensor;

/// What a step of candle's operations gives.
pub(crate) struct Composed {
    pub value: Tensor,
    pub bounded: usize,
    pub slots: Vec<Tensor>,
}

/// Sums of what candle's operations did, which wait on their device until all variables are done.
#[derive(Default)]
pub(crate) struct Later {
    totals: Totals,
    to: Vec<fn(&mut Outcome, f64)>,
    #[cfg(feature = "cuda")]
    reads: Vec<Read>,
}

/// What is done once everything has been asked for.
#[cfg(feature = "cuda")]
type Read = Box<dyn FnOnce(&mut Outcome) -> Result<()>>;

impl Later {
    /// Adds the sum of a tensor's entries, and where it goes.
    pub fn add(&mut self, tensor: &Tensor, to: fn(&mut Outcome, f64)) -> Result<()> {
        self.to.push(to);
        self.totals.add(tensor)
    }

    /// Waits for what kernels leave, after everything has been asked for.
    #[cfg(feature = "cuda")]
    pub fn read(&mut self, read: impl FnOnce(&mut Outcome) -> Result<()> + 'static) {
        self.reads.push(Box::new(read));
    }

    /// Adds all of them to an outcome.
    pub fn settle(self, outcome: &mut Outcome) -> Result<()> {
        #[cfg(feature = "cuda")]
        for read in self.reads {
            read(outcome)?;
        }
        let sums = self.totals.read()?;
        self.to
            .into_iter()
            .zip(sums)
            .for_each(|(to, sum)| to(outcome, sum));
        Ok(())
    }
}

/// The running quantities with D, which is averaged already.
pub(crate) fn observed<R: Rule>(rule: &R, slots: &[Tensor], d: &Tensor) -> Result<Vec<Tensor>> {
    let mut slots: Vec<_> = slots.iter().map(Expr::of).collect();
    rule.observe(Expr::of(d), &mut slots);
    slots.into_iter().map(Expr::tensor).collect()
}

/// The step of candle's operations, after D was observed. The shares below eps are a sum of their own:
/// computed on request.
pub(crate) fn composed<R: Rule>(
    rule: &R,
    pass: &Pass<'_>,
    slots: &[Tensor],
    below: bool,
    later: &mut Later,
) -> Result<Composed> {
    let scalars = rule.scalars(&pass.step);
    let mut slots: Vec<_> = slots.iter().map(Expr::of).collect();
    let x = Entry {
        value: Expr::of(pass.value),
        gradient: Expr::of(&pass.clipping.clip(pass.gradient)?),
        slots: &mut slots,
    };
    let mut value = rule.update(&pass.step, scalars, x).tensor()?;
    if R::TRUST {
        let norms = [pass.value, &value].map(|t| Ok(sum_f64(&t.sqr()?)?.sqrt()));
        let [of_value, of_direction]: [Result<f64>; 2] = norms;
        let rate = pass.step.lr * rule.trust(of_value?, of_direction?);
        value = (pass.value - (value * rate)?)?;
    }
    let (value, bounded) = bound::composed(pass.bound, pass.value, value)?;
    // A rule may leave the value as it is, or keep it: that is the variable's own memory, which the step writes to.
    let own = |tensor: Tensor| match tensor.id() == pass.value.id() {
        true => tensor.force_contiguous(),
        false => Ok(tensor),
    };
    let value = own(value)?;
    let below = match below {
        true => rule.below_eps(scalars, &slots),
        false => None,
    };
    if let Some(below) = below {
        later.add(&below.tensor()?, |to, sum| to.below_eps += sum)?;
    }
    Ok(Composed {
        value,
        bounded,
        slots: slots
            .into_iter()
            .map(|slot| Ok(own(slot.tensor()?)?))
            .collect::<Result<_>>()?,
    })
}

/// The curvature in force, where the rule keeps one.
pub(crate) fn curvature<R: Rule>(
    rule: &R,
    slots: &[Tensor],
    step: &Step,
) -> Result<Option<Tensor>> {
    let slots: Vec<_> = slots.iter().map(Expr::of).collect();
    let curvature = rule.curvature(rule.scalars(step), &slots);
    curvature.map(Expr::tensor).transpose()
}
