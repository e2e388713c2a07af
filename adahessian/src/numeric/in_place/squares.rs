//! The sum of squares of a gradient or a diagonal.

use super::entries::{sum, update_slices};
use super::{Entry, PIECE, pieces, with_slices};
use crate::error::Result;
use crate::numeric::{ByType, Real, by_type, sum_f64, widened};
use candle_core::Tensor;

#[derive(Clone, Copy)]
struct Square;

impl<T: Real> Entry<T, 0, 1> for Square {
    #[inline(always)]
    fn entry(&self, _: [T; 0], [x]: [T; 1]) -> ([T; 0], [T; 2]) {
        ([], [x * x, T::ZERO])
    }
}

/// The sum of the squares of all entries; not finite where an entry is not.
pub(crate) fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    match by_type(tensor.dtype(), Squares(tensor))? {
        Some(squares) => Ok(squares),
        None => sum_f64(&widened(tensor)?.sqr()?),
    }
}

struct Squares<'a>(&'a Tensor);

impl ByType for Squares<'_> {
    type Output = f64;

    fn run<T: Real>(self) -> Result<Option<f64>> {
        fused_squares::<T>(self.0)
    }
}

fn fused_squares<T: Real>(tensor: &Tensor) -> Result<Option<f64>> {
    with_slices::<T, _, 0, 1>([], [tensor], |[], [read]| squares_of(read))
}

/// [`sum_of_squares`] of a slice.
pub(crate) fn squares_of<T: Real>(data: &[T]) -> f64 {
    let parts = pieces(PIECE, [], [data], &|_, [], read| {
        let [squares, _] = update_slices([], read, Square);
        match squares.is_finite() {
            true => [squares],
            // Squares beyond the range of f32 are no error yet.
            false => [read[0].iter().map(|x| x.to_f64() * x.to_f64()).sum()],
        }
    });
    sum(parts)[0]
}
