//! Sums of gradients: of micro-batches, and their mean.

use super::{Entry, update};
use crate::error::Result;
use crate::numeric::Real;
use candle_core::{DType, Tensor};

/// x + factor · y.
#[derive(Clone, Copy)]
struct AddScaled<T>(T);

impl<T: Real> Entry<T, 1, 1> for AddScaled<T> {
    #[inline(always)]
    fn entry(&self, [x]: [T; 1], [y]: [T; 1]) -> ([T; 1], [T; 2]) {
        ([x + y * self.0], [T::ZERO; 2])
    }
}

/// x / divisor.
#[derive(Clone, Copy)]
struct Divide<T>(T);

impl<T: Real> Entry<T, 1, 0> for Divide<T> {
    #[inline(always)]
    fn entry(&self, [x]: [T; 1], _: [T; 0]) -> ([T; 1], [T; 2]) {
        ([x / self.0], [T::ZERO; 2])
    }
}

/// Adds factor · y to x, whose memory must be nobody else's. `false`, and nothing done, where it takes
/// candle's operations.
pub(crate) fn add_scaled(x: &Tensor, y: &Tensor, factor: f64) -> Result<bool> {
    if x.dims() != y.dims() || x.dtype() != y.dtype() {
        return Ok(false);
    }
    let done = match x.dtype() {
        DType::F32 => update([x], [y], AddScaled(factor as f32))?,
        DType::F64 => update([x], [y], AddScaled(factor))?,
        _ => None,
    };
    Ok(done.is_some())
}

/// Divides x, whose memory must be nobody else's. `false`, and nothing done, as above.
pub(crate) fn divide(x: &Tensor, divisor: f64) -> Result<bool> {
    let done = match x.dtype() {
        DType::F32 => update([x], [], Divide(divisor as f32))?,
        DType::F64 => update([x], [], Divide(divisor))?,
        _ => None,
    };
    Ok(done.is_some())
}
