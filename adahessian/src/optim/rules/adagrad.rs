//! Adagrad.

use super::guard;
use crate::error::Result;
use crate::optim::group::not_negative;
use crate::optim::pass::{self, Outcome, Pass};
use crate::optim::{Entry, Number, Rule, Step};
use candle_core::Tensor;

/// Adagrad (Duchi et al. 2011): s = s + g²; θ = θ - η g / (sqrt(s) + eps), L2 decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adagrad {
    /// Added to the denominator; 0 counts as the smallest normal number of f32.
    pub eps: f64,
}

impl Default for Adagrad {
    fn default() -> Self {
        Self { eps: 1e-10 }
    }
}

impl Rule for Adagrad {
    const NAME: &'static str = "adagrad";
    const SLOTS: &'static [&'static str] = &["sum_gradient_sq"];
    type Scalars = ();

    fn check(&self) -> Result<()> {
        not_negative("eps", self.eps)
    }

    fn scalars(&self, _: &Step) {}

    #[inline(always)]
    fn update<N: Number>(&self, step: &Step, _: (), x: Entry<'_, N>) -> N {
        let gradient = step.l2(x.gradient, &x.value);
        let sum = x.slots[0].blend(1.0, gradient.clone().square(), 1.0);
        x.value - gradient / (sum.sqrt() + guard(self.eps)) * step.lr
    }

    fn in_place(&self, pass: &Pass<'_>, slots: &[Tensor]) -> Result<Option<Outcome>> {
        pass::in_place(self, pass, slots)
    }
}
