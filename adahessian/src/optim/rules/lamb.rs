//! LAMB.

use super::{MOMENTS, adam_direction, check_moments, corrections, update_moments};
use crate::error::Result;
use crate::optim::group::positive;
use crate::optim::pass::{self, Outcome, Pass};
use crate::optim::{Entry, Number, Rule, Step};
use candle_core::Tensor;

/// LAMB (You et al. 2020): the direction of AdamW, r = m̂/(sqrt(v̂)+eps) + λθ, scaled for each
/// variable by the trust ratio ‖θ‖/‖r‖ (1 where either is zero).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lamb {
    /// (β1, β2).
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// The largest trust ratio.
    pub max_trust: f64,
}

impl Default for Lamb {
    fn default() -> Self {
        Self {
            betas: (0.9, 0.999),
            eps: 1e-6,
            max_trust: 10.0,
        }
    }
}

impl Lamb {
    #[inline(always)]
    fn decayed<N: Number>(&self, step: &Step, corrections: [f64; 2], value: N, slots: &[N]) -> N {
        adam_direction(corrections, self.eps, slots) + value * step.weight_decay
    }
}

impl Rule for Lamb {
    const NAME: &'static str = "lamb";
    const SLOTS: &'static [&'static str] = MOMENTS;
    const TRUST: bool = true;
    type Scalars = [f64; 2];

    fn check(&self) -> Result<()> {
        check_moments(self.betas, self.eps)?;
        positive("max_trust", self.max_trust)
    }

    fn scalars(&self, step: &Step) -> [f64; 2] {
        corrections(self.betas, step)
    }

    #[inline(always)]
    fn update<N: Number>(&self, step: &Step, corrections: [f64; 2], x: Entry<'_, N>) -> N {
        update_moments(self.betas, x.gradient, x.slots);
        self.decayed(step, corrections, x.value, x.slots)
    }

    #[inline(always)]
    fn direction<N: Number>(
        &self,
        step: &Step,
        corrections: [f64; 2],
        value: N,
        slots: &[N],
    ) -> Option<N> {
        Some(self.decayed(step, corrections, value, slots))
    }

    fn trust(&self, value_norm: f64, direction_norm: f64) -> f64 {
        match value_norm > 0.0 && direction_norm > 0.0 {
            true => (value_norm / direction_norm).min(self.max_trust),
            false => 1.0,
        }
    }

    fn in_place(&self, pass: &Pass<'_>, slots: &[Tensor]) -> Result<Option<Outcome>> {
        pass::in_place(self, pass, slots)
    }
}
