//! Sums of gradients: of micro-batches, and their mean.

use super::{Entry, update};
use crate::error::Result;
use crate::numeric::{ByType, Real, by_type};
use candle_core::Tensor;

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

struct AddTo<'a>(&'a Tensor, &'a Tensor, f64);

impl ByType for AddTo<'_> {
    type Output = [f64; 2];

    fn run<T: Real>(self) -> Result<Option<[f64; 2]>> {
        update([self.0], [self.1], AddScaled(T::from_f64(self.2)))
    }
}

struct DivideBy<'a>(&'a Tensor, f64);

impl ByType for DivideBy<'_> {
    type Output = [f64; 2];

    fn run<T: Real>(self) -> Result<Option<[f64; 2]>> {
        update([self.0], [], Divide(T::from_f64(self.1)))
    }
}

/// Adds factor · y to x, whose memory must be nobody else's. `false`, and nothing done, where it takes
/// candle's operations.
pub(crate) fn add_scaled(x: &Tensor, y: &Tensor, factor: f64) -> Result<bool> {
    if x.dims() != y.dims() || x.dtype() != y.dtype() {
        return Ok(false);
    }
    Ok(by_type(x.dtype(), AddTo(x, y, factor))?.is_some())
}

/// Divides x, whose memory must be nobody else's. `false`, and nothing done, as above.
pub(crate) fn divide(x: &Tensor, divisor: f64) -> Result<bool> {
    Ok(by_type(x.dtype(), DivideBy(x, divisor))?.is_some())
}
