//! RMSProp.

use super::guard;
use crate::error::Result;
use crate::optim::group::{fraction, not_negative};
use crate::optim::pass::{self, Outcome, Pass};
use crate::optim::{Entry, Number, Rule, Step};
use candle_core::Tensor;

/// RMSProp (Hinton 2012), PyTorch's form: s = α s + (1-α) g²; d = g / (sqrt(s) + eps);
/// with momentum b = μ b + d; θ = θ - η b. L2 decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    /// α, the decay of the mean of squares.
    pub alpha: f64,
    /// Added to the denominator; 0 counts as the smallest normal number of f32.
    pub eps: f64,
    /// μ.
    pub momentum: f64,
}

impl Default for RmsProp {
    fn default() -> Self {
        Self {
            alpha: 0.99,
            eps: 1e-8,
            momentum: 0.0,
        }
    }
}

impl Rule for RmsProp {
    const NAME: &'static str = "rmsprop";
    const SLOTS: &'static [&'static str] = &["mean_gradient_sq", "momentum"];
    const OPTIONAL_SLOTS: usize = 1;
    type Scalars = ();

    fn slots(&self) -> &'static [&'static str] {
        match self.momentum == 0.0 {
            true => &Self::SLOTS[..1],
            false => Self::SLOTS,
        }
    }

    fn check(&self) -> Result<()> {
        fraction("alpha", self.alpha)?;
        fraction("momentum", self.momentum)?;
        not_negative("eps", self.eps)
    }

    fn scalars(&self, _: &Step) {}

    #[inline(always)]
    fn update<N: Number>(&self, step: &Step, _: (), x: Entry<'_, N>) -> N {
        let gradient = step.l2(x.gradient, &x.value);
        let (alpha, square) = (self.alpha, gradient.clone().square());
        let mean = x.slots[0].blend(alpha, square, 1.0 - alpha);
        let mut direction = gradient / (mean.sqrt() + guard(self.eps));
        if let Some(buffer) = x.slots.get_mut(1) {
            direction = buffer.blend(self.momentum, direction, 1.0);
        }
        x.value - direction * step.lr
    }

    fn in_place(&self, pass: &Pass<'_>, slots: &[Tensor]) -> Result<Option<Outcome>> {
        pass::in_place(self, pass, slots)
    }
}
