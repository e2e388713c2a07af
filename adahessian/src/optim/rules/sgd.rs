//! Stochastic gradient descent.

use crate::error::{Error, Result};
use crate::optim::group::fraction;
use crate::optim::pass::{self, Outcome, Pass};
use crate::optim::{Entry, Number, Rule, Step};
use candle_core::Tensor;

/// Stochastic gradient descent with momentum μ and L2 decay, PyTorch's form:
/// b = μ b + g; θ = θ - η b, or θ - η (g + μ b) with Nesterov.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// μ; 0 for plain gradient descent.
    pub momentum: f64,
    /// Whether to look ahead.
    pub nesterov: bool,
}

impl Default for Sgd {
    fn default() -> Self {
        Self {
            momentum: 0.9,
            nesterov: false,
        }
    }
}

impl Rule for Sgd {
    const NAME: &'static str = "sgd";
    const SLOTS: &'static [&'static str] = &["momentum"];
    const OPTIONAL_SLOTS: usize = 1;
    type Scalars = ();

    fn slots(&self) -> &'static [&'static str] {
        match self.momentum == 0.0 {
            true => &[],
            false => Self::SLOTS,
        }
    }

    fn check(&self) -> Result<()> {
        fraction("momentum", self.momentum)?;
        match self.nesterov && self.momentum == 0.0 {
            true => Err(Error::Setting {
                what: "nesterov",
                expected: "a momentum above 0".into(),
                got: "0".into(),
            }),
            false => Ok(()),
        }
    }

    fn scalars(&self, _: &Step) {}

    #[inline(always)]
    fn update<N: Number>(&self, step: &Step, _: (), x: Entry<'_, N>) -> N {
        let gradient = step.l2(x.gradient, &x.value);
        let direction = match x.slots {
            [] => gradient,
            [buffer, ..] => {
                let momentum = buffer.blend(self.momentum, gradient.clone(), 1.0);
                match self.nesterov {
                    true => gradient + momentum * self.momentum,
                    false => momentum,
                }
            }
        };
        x.value - direction * step.lr
    }

    fn in_place(&self, pass: &Pass<'_>, slots: &[Tensor]) -> Result<Option<Outcome>> {
        pass::in_place(self, pass, slots)
    }
}
