//! Binary cross entropy of logits.

use super::wrong;
use crate::error::Result;
use candle_core::Tensor;

/// The mean over the rows of log(1 + e^l) - t l = -t log σ(l) - (1 - t) log(1 - σ(l)), for `logits`
/// and `targets` of one shape `[N]`; targets are probabilities, 0 or 1 as a rule. A scalar.
///
/// log(1 + e^l) is max(l, 0) + log(1 + e^-|l|), which neither overflows nor loses small values.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that differ or no rows at all; candle's errors.
pub fn binary_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    check(logits.dims(), targets.dims())?;
    let targets = targets.detach().to_dtype(logits.dtype())?;
    // |l| as max(l, -l) is twice differentiable away from 0, and at 0 the two halves' derivatives
    // cancel: relu(l) and log(1 + e^-|l|) bend against each other there.
    let soft = ((logits.abs()?.neg()?.exp()? + 1.0)?.log()? + logits.relu()?)?;
    Ok((soft - (logits * targets)?)?.mean_all()?)
}

pub(super) fn check(logits: &[usize], targets: &[usize]) -> Result<()> {
    match logits == targets && logits.len() == 1 && logits[0] > 0 {
        true => Ok(()),
        false => wrong(
            "logits and targets of a binary cross entropy",
            "the same shape [rows]",
            format!("{logits:?} and {targets:?}"),
        ),
    }
}
