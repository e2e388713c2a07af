//! AdamW.

use super::{MOMENTS, adam_direction, check_moments, corrections, update_moments};
use crate::error::Result;
use crate::optim::pass::{self, Outcome, Pass};
use crate::optim::{Entry, Number, Rule, Step};
use candle_core::Tensor;

/// AdamW (Loshchilov and Hutter 2019): Adam with decoupled decay, θ = θ(1 - ηλ) - η m̂ / (sqrt(v̂) + eps).
///
/// As for every rule of first order here η is 1e-3 and λ is 0 unless they are set; candle's and PyTorch's AdamW have a λ of 0.01:
/// `AdamW::default().lr(1e-3).weight_decay(0.01)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// (β1, β2).
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            betas: (0.9, 0.999),
            eps: 1e-8,
        }
    }
}

impl Rule for AdamW {
    const NAME: &'static str = "adamw";
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
        update_moments(self.betas, x.gradient, x.slots);
        step.decay(x.value) - adam_direction(corrections, self.eps, x.slots) * step.lr
    }

    fn in_place(&self, pass: &Pass<'_>, slots: &[Tensor]) -> Result<Option<Outcome>> {
        pass::in_place(self, pass, slots)
    }
}
