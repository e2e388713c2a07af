//! z ⊙ Hz, on all threads.

use super::{PIECE, with_slices};
use crate::error::Result;
use crate::numeric::{ByType, Real, by_type};
use candle_core::Tensor;
use rayon::prelude::*;

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
        let pieces = product.par_chunks_mut(PIECE);
        let pieces = pieces.zip(a.par_chunks(PIECE)).zip(b.par_chunks(PIECE));
        pieces.for_each(|((to, a), b)| {
            let entries = to.iter_mut().zip(a).zip(b);
            entries.for_each(|((to, &a), &b)| *to = a * b);
        });
        product
    })?;
    Ok(product.map(|data| T::tensor(data, a.dims())).transpose()?)
}
