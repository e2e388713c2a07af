//! Binary cross entropy of logits.

use crate::engine::{Handle, Operand, RowLoss, row_loss};
use crate::error::Result;
use crate::numeric::formula::Space;
use crate::numeric::log_1p;
use crate::numeric::traced::Test;
use candle_core::Tensor;

/// The mean over the rows of log(1 + e^l) - t l = -t log σ(l) - (1 - t) log(1 - σ(l)), for `logits`
/// and `targets` of one shape `[n]`; targets are probabilities, 0 or 1 as a rule. A scalar.
///
/// log(1 + e^l) is max(l, 0) + log(1 + e^-|l|), which neither overflows nor loses small values.
///
/// # Errors
/// As [`row_loss`].
pub fn binary_cross_entropy<X: Operand>(logits: &X, targets: &Tensor) -> Result<X> {
    X::of(on(logits, targets)?)
}

fn on(logits: &dyn Operand, targets: &Tensor) -> Result<Handle> {
    row_loss(LogLoss, logits, targets)
}

struct LogLoss;

impl RowLoss for LogLoss {
    fn name(&self) -> &'static str {
        "binary cross entropy"
    }

    fn composed(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        // |l| as max(l, -l) is twice differentiable away from 0, and at 0 the two halves' derivatives
        // cancel: relu(l) and log(1 + e^-|l|) bend against each other there.
        let soft = (log_1p(&logits.abs()?.neg()?.exp()?)? + logits.relu()?)?;
        Ok((soft - (logits * targets)?)?)
    }

    fn derivatives(&self, logit: f64, target: f64) -> [f64; 3] {
        let decay = (-logit.abs()).exp();
        // From the side on which the exponential is small. `max` would swallow not-a-number.
        let (positive, p) = match logit < 0.0 {
            true => (0.0, decay / (1.0 + decay)),
            false => (logit, 1.0 / (1.0 + decay)),
        };
        let loss = positive + decay.ln_1p() - target * logit;
        [loss, p - target, p * (1.0 - p)]
    }

    const OF_TENSORS: bool = true;

    fn derivatives_of_tensors(&self, logits: &Tensor, targets: &Tensor) -> Result<[Tensor; 3]> {
        let space = Space::whole(logits.dims());
        let (logit, target) = (space.entries(logits)?, space.entries(targets)?);
        let (zero, one) = (space.constant(0.0), space.constant(1.0));
        let decay = (-logit.abs()).exp();
        let denominator = &decay + 1.0;
        let above = logit.choose(Test::Below, &zero, &decay, &one);
        let p = &above / &denominator;
        // As in `derivatives`; of a logit that is not a number neither.
        let positive = logit.choose(Test::Below, &zero, &zero, &logit);
        let (rest, slope) = (positive - &target * &logit, &p - &target);
        let bend = &p * (one - &p);
        let [denominator, rest, slope, bend] = space.compute([denominator, rest, slope, bend])?;
        Ok([(denominator.log()? + rest)?, slope, bend])
    }
}
