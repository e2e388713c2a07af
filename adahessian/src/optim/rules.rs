//! The update rules of first order: what the paper compares AdaHessian with.

use crate::error::Result;
use crate::optim::group::{fraction, positive};
use crate::optim::pending::Clipping;
use crate::optim::rules_in_place as fused;
pub use crate::optim::squares::{Adagrad, RmsProp};
use crate::vars::sum_f64;
use candle_core::Tensor;

/// What a rule sees of one variable in one step.
pub struct Update<'a> {
    /// The variable's value θ.
    pub value: &'a Tensor,
    /// Its gradient g, clipped.
    pub gradient: &'a Tensor,
    /// The rule's running quantities for it, in the order of [`Rule::slots`]; replaced in place.
    pub slots: &'a mut [Tensor],
    /// How many updates the variable has had, this one included.
    pub count: u64,
    /// The learning rate η.
    pub lr: f64,
    /// The weight decay λ.
    pub weight_decay: f64,
}

/// What an update in place sees of one variable in one step.
#[doc(hidden)]
pub struct InPlace<'a> {
    pub(crate) value: &'a Tensor,
    /// Not clipped yet.
    pub(crate) gradient: &'a Tensor,
    pub(crate) clipping: Clipping,
    pub(crate) slots: &'a [Tensor],
    pub(crate) count: u64,
    pub(crate) lr: f64,
    pub(crate) weight_decay: f64,
}

/// One first-order rule: a plain function of a variable's gradient and running quantities.
pub trait Rule: Send {
    /// The optimizer's name.
    fn name(&self) -> &'static str;

    /// The names of the running quantities, each of the variable's shape and zero at the start.
    fn slots(&self) -> Vec<&'static str>;

    /// Checks the settings.
    ///
    /// # Errors
    /// [`crate::Error::Setting`].
    fn check(&self) -> Result<()>;

    /// The variable's new value.
    ///
    /// # Errors
    /// If candle fails.
    fn update(&self, u: Update<'_>) -> Result<Tensor>;

    /// The same update, done in place in one pass over memory: the squared norm of the change, or
    /// `None`, and nothing done, for the rule or where it cannot be done.
    ///
    /// # Errors
    /// If candle fails.
    #[doc(hidden)]
    fn update_in_place(&self, _: &InPlace<'_>) -> Result<Option<f64>> {
        Ok(None)
    }
}

/// `a·x + b·y`.
pub(super) fn blend(x: &Tensor, a: f64, y: &Tensor, b: f64) -> Result<Tensor> {
    Ok(((x * a)? + (y * b)?)?)
}

/// g + λθ, the L2 form of weight decay.
pub(super) fn with_l2(u: &Update<'_>) -> Result<Tensor> {
    match u.weight_decay == 0.0 {
        true => Ok(u.gradient.clone()),
        false => Ok((u.gradient + (u.value * u.weight_decay)?)?),
    }
}

/// Stochastic gradient descent with momentum μ and L2 decay, PyTorch's form:
/// b = μ b + g; θ = θ - η b, or θ - η (g + μ b) with Nesterov.
#[derive(Clone, Debug, PartialEq)]
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
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn slots(&self) -> Vec<&'static str> {
        match self.momentum == 0.0 {
            true => vec![],
            false => vec!["momentum"],
        }
    }

    fn check(&self) -> Result<()> {
        fraction("momentum", self.momentum)
    }

    fn update(&self, u: Update<'_>) -> Result<Tensor> {
        let gradient = with_l2(&u)?;
        let direction = match u.slots {
            [] => gradient,
            [buffer, ..] => {
                *buffer = ((&*buffer * self.momentum)? + &gradient)?;
                match self.nesterov {
                    true => (gradient + (&*buffer * self.momentum)?)?,
                    false => buffer.clone(),
                }
            }
        };
        Ok((u.value - (direction * u.lr)?)?)
    }

    fn update_in_place(&self, u: &InPlace<'_>) -> Result<Option<f64>> {
        fused::sgd(self, u)
    }
}

/// The direction of Adam: m̂ / (sqrt(v̂) + eps) with bias-corrected running means.
fn adam_direction(
    betas: (f64, f64),
    eps: f64,
    gradient: &Tensor,
    slots: &mut [Tensor],
    count: u64,
) -> Result<Tensor> {
    let (beta1, beta2) = betas;
    slots[0] = blend(&slots[0], beta1, gradient, 1.0 - beta1)?;
    slots[1] = blend(&slots[1], beta2, &gradient.sqr()?, 1.0 - beta2)?;
    let mean = (&slots[0] / (1.0 - beta1.powi(count as i32)))?;
    let square = (&slots[1] / (1.0 - beta2.powi(count as i32)))?;
    Ok((mean / (square.sqrt()? + eps)?)?)
}

fn check_adam(betas: (f64, f64), eps: f64) -> Result<()> {
    fraction("beta1", betas.0)?;
    fraction("beta2", betas.1)?;
    positive("eps", eps)
}

const ADAM_SLOTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// Adam (Kingma and Ba 2015) with L2 decay.
#[derive(Clone, Debug, PartialEq)]
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
    fn name(&self) -> &'static str {
        "adam"
    }

    fn slots(&self) -> Vec<&'static str> {
        ADAM_SLOTS.into()
    }

    fn check(&self) -> Result<()> {
        check_adam(self.betas, self.eps)
    }

    fn update(&self, u: Update<'_>) -> Result<Tensor> {
        let gradient = with_l2(&u)?;
        let direction = adam_direction(self.betas, self.eps, &gradient, u.slots, u.count)?;
        Ok((u.value - (direction * u.lr)?)?)
    }

    fn update_in_place(&self, u: &InPlace<'_>) -> Result<Option<f64>> {
        fused::adam(self.betas, self.eps, fused::Decay::L2, u)
    }
}

/// AdamW (Loshchilov and Hutter 2019): Adam with decoupled decay, θ = θ - η λ θ - η m̂/(sqrt(v̂)+eps).
#[derive(Clone, Debug, PartialEq)]
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
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn slots(&self) -> Vec<&'static str> {
        ADAM_SLOTS.into()
    }

    fn check(&self) -> Result<()> {
        check_adam(self.betas, self.eps)
    }

    fn update(&self, u: Update<'_>) -> Result<Tensor> {
        let direction = adam_direction(self.betas, self.eps, u.gradient, u.slots, u.count)?;
        blend(u.value, 1.0 - u.lr * u.weight_decay, &direction, -u.lr)
    }

    fn update_in_place(&self, u: &InPlace<'_>) -> Result<Option<f64>> {
        fused::adam(self.betas, self.eps, fused::Decay::Decoupled, u)
    }
}

/// LAMB (You et al. 2020): the direction of AdamW, r = m̂/(sqrt(v̂)+eps) + λθ, scaled for each
/// variable by the trust ratio ‖θ‖/‖r‖ (1 where either is zero).
#[derive(Clone, Debug, PartialEq)]
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
    /// ‖θ‖ / ‖r‖, limited.
    pub(crate) fn trust(&self, value_norm: f64, direction_norm: f64) -> f64 {
        match value_norm > 0.0 && direction_norm > 0.0 {
            true => (value_norm / direction_norm).min(self.max_trust),
            false => 1.0,
        }
    }
}

impl Rule for Lamb {
    fn name(&self) -> &'static str {
        "lamb"
    }

    fn slots(&self) -> Vec<&'static str> {
        ADAM_SLOTS.into()
    }

    fn check(&self) -> Result<()> {
        check_adam(self.betas, self.eps)?;
        positive("max_trust", self.max_trust)
    }

    fn update(&self, u: Update<'_>) -> Result<Tensor> {
        let adam = adam_direction(self.betas, self.eps, u.gradient, u.slots, u.count)?;
        let direction = (adam + (u.value * u.weight_decay)?)?;
        let value_norm = sum_f64(&u.value.sqr()?)?.sqrt();
        let direction_norm = sum_f64(&direction.sqr()?)?.sqrt();
        let rate = u.lr * self.trust(value_norm, direction_norm);
        Ok((u.value - (direction * rate)?)?)
    }

    fn update_in_place(&self, u: &InPlace<'_>) -> Result<Option<f64>> {
        fused::lamb(self, u)
    }
}
