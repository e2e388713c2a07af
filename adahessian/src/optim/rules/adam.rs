//! Adam.

use super::{MOMENTS, adam_direction, check_moments, corrections, update_moments};
use crate::error::Result;
use crate::optim::pass::{self, Outcome, Pass};
use crate::optim::{Entry, Number, Rule, Step};
use candle_core::Tensor;

/// Adam (Kingma and Ba 2015) with L2 decay: θ = θ - η m̂ / (sqrt(v̂) + eps).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// (β1, β2).
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Self {
            betas: (0.9, 0.999),
            eps: 1e-8,
        }
    }
}

impl Rule for Adam {
    const NAME: &'static str = "adam";
    const SLOTS: &'static [&'static str] = MOMENTS;
    type Scalars = [f64; 2];

    fn check(&self) -> Result<()> {
        check_moments(self.betas, self.eps)
    }

    fn scalars(&self, step: &Step) -> [f64; 2] {
        corrections(self.betas, step)
    }

    #[inline(always)]
    fn update<N: Number>(&self, step: &Step, corrections: [f64; 2], x: Entry<'_, N>) -> N {
        let gradient = step.l2(x.gradient, &x.value);
        update_moments(self.betas, gradient, x.slots);
        x.value - adam_direction(corrections, self.eps, x.slots) * step.lr
    }

    fn in_place(&self, pass: &Pass<'_>, slots: &[Tensor]) -> Result<Option<Outcome>> {
        pass::in_place(self, pass, slots)
    }
}
