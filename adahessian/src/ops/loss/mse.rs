//! The mean squared error, for regression.

use crate::engine::{Handle, Operand, RowLoss, row_loss};
use crate::error::Result;
use crate::numeric::formula::Space;
use candle_core::Tensor;

/// (1/n) Σᵢ (pᵢ - tᵢ)², for `prediction` and `target` of the same shape `[n]`. A scalar.
///
/// # Errors
/// As [`row_loss`].
pub fn mse<X: Operand>(prediction: &X, target: &Tensor) -> Result<X> {
    X::of(on(prediction, target)?)
}

fn on(prediction: &dyn Operand, target: &Tensor) -> Result<Handle> {
    row_loss(SquaredError, prediction, target)
}

struct SquaredError;

impl RowLoss for SquaredError {
    fn name(&self) -> &'static str {
        "squared error"
    }

    fn composed(&self, prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
        Ok((prediction - target)?.sqr()?)
    }

    fn derivatives(&self, prediction: f64, target: f64) -> [f64; 3] {
        let error = prediction - target;
        [error * error, 2.0 * error, 2.0]
    }

    const OF_TENSORS: bool = true;

    fn derivatives_of_tensors(&self, prediction: &Tensor, target: &Tensor) -> Result<[Tensor; 3]> {
        let space = Space::whole(prediction.dims());
        let error = space.entries(prediction)? - space.entries(target)?;
        let bend = space.constant(2.0).spread();
        space.compute([error.square(), &error * 2.0, bend])
    }
}
