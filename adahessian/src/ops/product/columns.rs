//! Every column times a number of its own.

use crate::engine::{Bilinear, Handle, Operand, Pairs, bilinear};
use crate::error::Result;
use crate::numeric::formula::{Space, plus};
use crate::numeric::{Buffer, Real, column_sums, widened};
use crate::ops::wrong;
use candle_core::Tensor;

/// x ⊙ c: column i of `x` [.., R] times c_i, `by` being `[R]`.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit; candle's errors.
pub fn multiply_columns<X: Operand>(x: &X, by: &dyn Operand) -> Result<X> {
    X::of(on(x, by)?)
}

fn on(x: &dyn Operand, by: &dyn Operand) -> Result<Handle> {
    let width = by.dims().last().copied().unwrap_or(0);
    bilinear(Columns { width }, x, by)
}

struct Columns {
    width: usize,
}

impl Columns {
    fn rows<'a, T>(&self, x: &'a [T]) -> std::slice::ChunksExact<'a, T> {
        x.chunks_exact(self.width.max(1))
    }
}

impl Bilinear for Columns {
    fn name(&self) -> &'static str {
        "columns times numbers"
    }

    fn shape(&self, x: &[usize], w: &[usize]) -> Result<Vec<usize>> {
        match (x.last(), w) {
            (Some(width), [columns]) if width == columns => Ok(x.to_vec()),
            _ => wrong(
                "columns and numbers",
                "[.., columns] and [columns]",
                format!("{x:?} and {w:?}"),
            ),
        }
    }

    fn composed(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        // Whose gradient is a sum over all rows: half precision has too few digits for it.
        let y = widened(x)?.broadcast_mul(&widened(w)?)?;
        Ok(y.to_dtype(x.dtype())?)
    }

    fn apply<T: Real>(&self, x: &[T], w: &[T], y: &mut [T]) {
        let rows = y.chunks_exact_mut(self.width.max(1)).zip(self.rows(x));
        for (y, x) in rows {
            let entries = y.iter_mut().zip(x).zip(w);
            entries.for_each(|((y, &x), &w)| *y += x * w);
        }
    }

    fn left<T: Real>(&self, g: &[T], w: &[T], x: &mut [T]) {
        self.apply(g, w, x);
    }

    fn right<T: Real>(&self, x: &[T], g: &[T], w: &mut [T]) {
        let mut products = Buffer::copy_of(x);
        let entries = products.iter_mut().zip(g);
        entries.for_each(|(x, &g)| *x = *x * g);
        let sums = column_sums(&products, self.width);
        w.iter_mut().zip(sums.iter()).for_each(|(w, &s)| *w += s);
    }

    fn apply_tensors(&self, pairs: Pairs) -> Result<Option<Tensor>> {
        let Some((first, _)) = pairs.first() else {
            return Ok(None);
        };
        let space = Space::rows(first.dims(), self.width);
        let mut sum = None;
        for (x, w) in pairs {
            sum = plus(sum, Some(space.entries(x)? * space.places(w)?));
        }
        let [sum] = space.compute_some([sum])?;
        Ok(sum)
    }

    fn left_tensors(&self, pairs: Pairs) -> Result<Option<Tensor>> {
        self.apply_tensors(pairs)
    }

    fn right_tensors(&self, pairs: Pairs) -> Result<Option<Tensor>> {
        let Some((first, _)) = pairs.first() else {
            return Ok(None);
        };
        let space = Space::columns(first.dims(), self.width);
        let mut sum = None;
        for (x, g) in pairs {
            sum = plus(sum, Some(space.entries(x)? * space.entries(g)?));
        }
        let [sum] = space.compute_some([sum.map(|sum| sum.sum())])?;
        Ok(sum)
    }
}
