//! The rules, one a file.

mod adagrad;
mod adahessian;
mod adam;
mod adamw;
mod lamb;
mod rmsprop;
mod sgd;
mod sophia;
#[cfg(test)]
mod tests;

pub use adagrad::Adagrad;
pub use adahessian::{AdaHessian, Unseen};
pub use adam::Adam;
pub use adamw::AdamW;
pub use lamb::Lamb;
pub use rmsprop::RmsProp;
pub use sgd::Sgd;
pub use sophia::SophiaH;

use super::group::{fraction, positive};
use super::number::Number;
use super::rule::{Step, correction};
use crate::error::Result;

/// ε of a denominator that may be zero: 0 counts as the smallest normal number of f32, so that 0 / (0 + ε) is
/// 0 and no variable becomes not-a-number where it has neither gradient nor curvature.
#[inline(always)]
pub(crate) fn guard(eps: f64) -> f64 {
    eps.max(f64::from(f32::MIN_POSITIVE))
}

/// The running means of g and g² of Adam and its kin.
const MOMENTS: &[&str] = &["exp_avg", "exp_avg_sq"];

fn check_moments(betas: (f64, f64), eps: f64) -> Result<()> {
    fraction("beta1", betas.0)?;
    fraction("beta2", betas.1)?;
    positive("eps", eps)
}

/// The corrections of their biases.
fn corrections(betas: (f64, f64), step: &Step) -> [f64; 2] {
    [
        correction(betas.0, step.count),
        correction(betas.1, step.count),
    ]
}

/// Takes g into both.
#[inline(always)]
fn update_moments<N: Number>((beta1, beta2): (f64, f64), gradient: N, slots: &mut [N]) {
    slots[0].blend(beta1, gradient.clone(), 1.0 - beta1);
    slots[1].blend(beta2, gradient.square(), 1.0 - beta2);
}

/// m̂ / (sqrt(v̂) + eps).
#[inline(always)]
fn adam_direction<N: Number>([of_mean, of_square]: [f64; 2], eps: f64, slots: &[N]) -> N {
    let root = (slots[1].clone() * of_square).sqrt();
    slots[0].clone() * of_mean / (root + eps)
}
