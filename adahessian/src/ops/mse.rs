//! Mean squared error for regression.

use super::wrong;
use crate::error::Result;
use candle_core::Tensor;

/// (1/N) Σᵢ (pᵢ - tᵢ)², for `prediction` and `target` of the same shape `[N]`. A scalar.
///
/// The shapes must be equal: `[N]` against [N, 1] would broadcast to [N, N] elsewhere.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that differ or no rows at all.
pub fn mse(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    check(prediction.dims(), target.dims())?;
    Ok((prediction - target.detach())?.sqr()?.mean_all()?)
}

pub(super) fn check(prediction: &[usize], target: &[usize]) -> Result<()> {
    match prediction == target && prediction.len() == 1 && prediction[0] > 0 {
        true => Ok(()),
        false => wrong(
            "prediction and target of a squared error",
            "the same shape [rows]",
            format!("{prediction:?} and {target:?}"),
        ),
    }
}
