//! The same rows added to each of several tensors.

use crate::engine::{Handle, LinearMap, Operand, linear_map};
use crate::error::Result;
use crate::numeric::formula::Space;
use crate::numeric::{Buffer, Real, add, column_sums, widened};
use crate::ops::wrong;
use candle_core::Tensor;

/// x + r, [B, T, R], of `x` [B, T, R] and rows r [T, R] that all of the batch share: positions, say.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit; candle's errors.
pub fn add_rows<X: Operand>(x: &X, rows: &X) -> Result<X> {
    X::of(on(x, rows)?)
}

fn on(x: &dyn Operand, rows: &dyn Operand) -> Result<Handle> {
    let sum = Sum {
        batch: x.dims().first().copied().unwrap_or(0),
        shared: rows.dims().iter().product(),
    };
    linear_map(sum, &[x, rows])
}

struct Sum {
    batch: usize,
    /// Numbers that the batch shares.
    shared: usize,
}

impl LinearMap for Sum {
    fn name(&self) -> &'static str {
        "shared rows"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        match (inputs[0], inputs[1]) {
            (&[batch, length, width], &[rows, columns])
                if (length, width) == (rows, columns) && batch * length * width > 0 =>
            {
                Ok(inputs[0].to_vec())
            }
            (x, rows) => wrong(
                "tensors and shared rows",
                "[batch, rows, width] and [rows, width]",
                format!("{x:?} and {rows:?}"),
            ),
        }
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        // The gradient of shared rows is a sum for which half precision has too few digits.
        let sum = widened(&inputs[0])?.broadcast_add(&widened(&inputs[1])?)?;
        Ok(sum.to_dtype(inputs[0].dtype())?)
    }

    fn apply<T: Real>(&self, inputs: &[Option<&[T]>]) -> Buffer<T> {
        let mut y = match inputs[0] {
            Some(x) => Buffer::copy_of(x),
            None => Buffer::zeroed(self.batch * self.shared),
        };
        if let Some(rows) = inputs[1] {
            y.chunks_exact_mut(self.shared).for_each(|y| add(y, rows));
        }
        y
    }

    fn transposed<T: Real>(&self, g: &[T], input: usize, _: usize) -> Buffer<T> {
        match input {
            0 => Buffer::copy_of(g),
            _ => column_sums(g, self.shared),
        }
    }

    const OF_TENSORS: bool = true;

    fn apply_tensor(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let space = Space::rows(inputs[0].dims(), self.shared);
        let sum = space.entries(&inputs[0])? + space.places(&inputs[1])?;
        let [sum] = space.compute([sum])?;
        Ok(sum)
    }

    fn transposed_tensor(&self, g: &Tensor, input: usize, shape: &[usize]) -> Result<Tensor> {
        if input == 0 {
            return Ok(g.clone());
        }
        let space = Space::columns(g.dims(), self.shared);
        let sum = space.entries(g)?.sum();
        let [sum] = space.compute([sum])?;
        Ok(sum.reshape(shape)?)
    }
}
