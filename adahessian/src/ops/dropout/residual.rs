//! Dropout and addition alone, as networks need them that normalise before a layer instead of after it.

use super::{Dropout, Mask};
use crate::engine::{Handle, LinearMap, Operand, linear_map};
use crate::error::Result;
use crate::numeric::{Buffer, Real, simd};
use crate::ops::wrong;
use candle_core::Tensor;

/// x + dropout(f): what a layer f adds to the hidden state x where the norm comes first, as in
/// x + dropout(f(LayerNorm(x))). For the norm after it there is
/// [`residual_layer_norm`](super::super::residual_layer_norm).
///
/// Both are of one shape, which is the result's.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that differ or a probability outside [0, 1); candle's errors.
pub fn residual<X: Operand>(x: &X, f: &X, dropout: &Dropout) -> Result<X> {
    X::of(on([x, f], Mask::of(dropout)?)?)
}

fn on(both: [&dyn Operand; 2], mask: Option<Mask>) -> Result<Handle> {
    linear_map(Residual { mask }, &both)
}

/// y = x + m f.
struct Residual {
    mask: Option<Mask>,
}

impl Residual {
    fn masked<T: Real>(&self, x: &[T]) -> Buffer<T> {
        match &self.mask {
            Some(mask) => mask.drawn(x.len()).of(x),
            None => Buffer::copy_of(x),
        }
    }
}

impl LinearMap for Residual {
    fn name(&self) -> &'static str {
        "residual"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let (x, f) = (inputs[0], inputs[1]);
        match x == f {
            true => Ok(x.to_vec()),
            false => {
                let expected = format!("{x:?}, as the hidden state");
                wrong("what is added to it", expected, format!("{f:?}"))
            }
        }
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        Ok(match &self.mask {
            Some(mask) => (&inputs[0] + mask.composed(&inputs[1])?)?,
            None => (&inputs[0] + &inputs[1])?,
        })
    }

    fn apply<T: Real>(&self, inputs: &[Option<&[T]>]) -> Buffer<T> {
        match (inputs[0], inputs[1]) {
            (Some(x), Some(f)) => {
                let mut y = self.masked(f);
                simd::add_assign(&mut y, x);
                y
            }
            (None, Some(f)) => self.masked(f),
            (x, None) => Buffer::copy_of(x.unwrap_or(&[])),
        }
    }

    fn transposed<T: Real>(&self, g: &[T], input: usize, _: usize) -> Buffer<T> {
        match input {
            0 => Buffer::copy_of(g),
            _ => self.masked(g),
        }
    }

    const OF_TENSORS: bool = true;

    fn transposed_tensor(&self, g: &Tensor, input: usize, _: &[usize]) -> Result<Tensor> {
        match (&self.mask, input) {
            (Some(mask), 1) => mask.composed(g),
            _ => Ok(g.clone()),
        }
    }
}
