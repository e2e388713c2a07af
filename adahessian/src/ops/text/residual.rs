//! Dropout and addition alone, as networks need them that normalise before a layer instead of after it.

use super::mask::Mask;
use super::row_maps::{Linear, Map};
use crate::error::Result;
use crate::ops::engine::{Buffer, Fused, Handle, Inner, Real, apply};
use crate::ops::{Dropout, simd, wrong};

/// x + dropout(f): what a layer f adds to the hidden state x where the norm comes first, as in
/// x + dropout(f(LayerNorm(x))). For the norm after it there is [`super::layer_norm()`].
///
/// Both are of one shape, which is the result's.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that differ or a probability outside [0, 1); candle's errors.
pub fn residual(x: &Handle, f: &Handle, dropout: &Dropout) -> Result<Handle> {
    if x.dims() != f.dims() {
        let expected = format!("{:?}, as the hidden state", x.dims());
        return wrong("what is added to it", expected, format!("{:?}", f.dims()));
    }
    match x.inner() {
        Inner::Composed(x) => Ok(Handle::composed(&(x + dropout.apply(&f.exit()?)?)?)),
        Inner::F32(x) => Ok(fused(x, f, dropout)?.into()),
        Inner::F64(x) => Ok(fused(x, f, dropout)?.into()),
    }
}

fn fused<T: Real>(x: &Fused<T>, f: &Handle, dropout: &Dropout) -> Result<Fused<T>> {
    let count = x.slot.length();
    let op = Residual {
        mask: Mask::new(dropout, count)?,
        count,
    };
    apply(Map(op), &[x, &Fused::of(f)?], &x.slot.shape)
}

/// y = x + m f.
struct Residual {
    mask: Option<Mask>,
    count: usize,
}

impl Residual {
    fn masked<T: Real>(&self, x: &[T]) -> Buffer<T> {
        match &self.mask {
            Some(mask) => mask.of(x),
            None => Buffer::copy_of(x),
        }
    }
}

impl Linear for Residual {
    const NAME: &'static str = "residual";

    fn apply<T: Real>(&self, inputs: &[Option<&[T]>]) -> Buffer<T> {
        let mut y = match inputs[1] {
            Some(f) => self.masked(f),
            None => Buffer::zeroed(self.count),
        };
        if let Some(x) = inputs[0] {
            simd::add_assign(&mut y, x);
        }
        y
    }

    fn transposed<T: Real>(&self, g: &[T], input: usize, _: usize) -> Buffer<T> {
        match input {
            0 => Buffer::copy_of(g),
            _ => self.masked(g),
        }
    }
}
