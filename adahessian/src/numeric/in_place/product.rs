//! z ⊙ Hz, on all threads.

use super::{PIECE, with_slices};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::{ByType, Real, by_type};
use crate::random::Stream;
use candle_core::Tensor;

/// a ⊙ b as a new tensor.
pub(crate) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let fused = match a.dtype() == b.dtype() {
        true => by_type(a.dtype(), Product(a, b))?,
        false => None,
    };
    match fused {
        Some(product) => Ok(product),
        None => Ok((a * b)?),
    }
}

/// a ⊙ z as a new tensor for the signs z of a stream; none where that cannot be.
pub(crate) fn signed(a: &Tensor, signs: &Stream) -> Result<Option<Tensor>> {
    by_type(a.dtype(), Signed(a, signs))
}

struct Signed<'a>(&'a Tensor, &'a Stream);

impl ByType for Signed<'_> {
    type Output = Tensor;

    fn run<T: Real>(self) -> Result<Option<Tensor>> {
        let Self(a, signs) = self;
        let product = with_slices::<T, _, 0, 1>([], [a], |[], [a]| {
            let mut product = a.to_vec();
            signs.with_signs(&mut product, |x, sign| *x = *x * sign);
            product
        })?;
        Ok(product.map(|data| T::tensor(data, a.dims())).transpose()?)
    }
}

struct Product<'a>(&'a Tensor, &'a Tensor);

impl ByType for Product<'_> {
    type Output = Tensor;

    fn run<T: Real>(self) -> Result<Option<Tensor>> {
        typed::<T>(self.0, self.1)
    }
}

fn typed<T: Real>(a: &Tensor, b: &Tensor) -> Result<Option<Tensor>> {
    if a.dims() != b.dims() {
        return Ok(None); // candle has the words for it
    }
    let product = with_slices::<T, _, 0, 2>([], [a, b], |[], [a, b]| {
        let mut product = vec![T::ZERO; a.len()];
        let pieces = product.chunks_mut(PIECE);
        let pieces = pieces.zip(a.chunks(PIECE)).zip(b.chunks(PIECE));
        let multiply = |_, ((to, a), b): ((&mut [T], &[T]), &[T])| {
            let entries = to.iter_mut().zip(a).zip(b);
            entries.for_each(|((to, &a), &b)| *to = a * b);
        };
        match a.len() <= PIECE {
            true => parallel::each(pieces, multiply),
            false => parallel::apart(|| parallel::each(pieces, multiply)),
        }
        product
    })?;
    Ok(product.map(|data| T::tensor(data, a.dims())).transpose()?)
}
