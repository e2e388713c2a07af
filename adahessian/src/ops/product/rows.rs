//! Inner products of rows, sequence by sequence.

use crate::engine::{Bilinear, Handle, Operand, Pairs, bilinear};
use crate::error::Result;
use crate::numeric::{Matrix, Onto, Real, SumOfProducts, multiply};
use crate::ops::wrong;
use candle_core::Tensor;

/// x wᵀ in each sequence, [B, T, S] from `x` [B, T, R] and `w` [B, S, R].
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit; candle's errors.
pub fn products_of_rows<X: Operand>(x: &X, w: &X) -> Result<X> {
    X::of(on(x, w)?)
}

fn on(x: &dyn Operand, w: &dyn Operand) -> Result<Handle> {
    let (&[batch, queries, width], &[_, keys, _]) = (x.dims(), w.dims()) else {
        return refused(x.dims(), w.dims());
    };
    let sizes = Rows {
        batch,
        queries,
        keys,
        width,
    };
    bilinear(sizes, x, w)
}

fn refused<T>(x: &[usize], w: &[usize]) -> Result<T> {
    wrong(
        "rows for products",
        "[batch, T, width] and [batch, S, width]",
        format!("{x:?} and {w:?}"),
    )
}

struct Rows {
    batch: usize,
    queries: usize,
    keys: usize,
    width: usize,
}

impl Rows {
    /// to += left right in each sequence, of matrices that `left` and `right` make of one sequence's numbers.
    fn each<'a, T: Real>(
        &self,
        to: &mut [T],
        left: impl Fn(usize) -> Matrix<'a, T>,
        right: impl Fn(usize) -> Matrix<'a, T>,
    ) {
        let size = to.len() / self.batch.max(1);
        for (sequence, to) in to.chunks_exact_mut(size.max(1)).enumerate() {
            let (left, right) = (left(sequence), right(sequence));
            multiply(to, right.columns, 0, Onto::Add, left, right);
        }
    }

    fn matrix<'a, T: Real>(all: &'a [T], i: usize, rows: usize, columns: usize) -> Matrix<'a, T> {
        let size = rows * columns;
        Matrix::rows_of(&all[i * size..][..size], rows, columns, columns)
    }
}

fn turned(x: &Tensor) -> Result<Tensor> {
    Ok(x.transpose(1, 2)?)
}

impl Bilinear for Rows {
    fn name(&self) -> &'static str {
        "products of rows"
    }

    fn shape(&self, x: &[usize], w: &[usize]) -> Result<Vec<usize>> {
        let fits = x[0] == w[0] && x[2] == w[2] && !x.contains(&0) && !w.contains(&0);
        match fits {
            true => Ok(vec![self.batch, self.queries, self.keys]),
            false => refused(x, w),
        }
    }

    fn composed(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        Ok(x.contiguous()?.matmul(&turned(w)?.contiguous()?)?)
    }

    fn apply<T: Real>(&self, x: &[T], w: &[T], y: &mut [T]) {
        let left = |i| Self::matrix(x, i, self.queries, self.width);
        let right = |i| Self::matrix(w, i, self.keys, self.width).transposed();
        self.each(y, left, right);
    }

    fn left<T: Real>(&self, g: &[T], w: &[T], x: &mut [T]) {
        let left = |i| Self::matrix(g, i, self.queries, self.keys);
        let right = |i| Self::matrix(w, i, self.keys, self.width);
        self.each(x, left, right);
    }

    fn right<T: Real>(&self, x: &[T], g: &[T], w: &mut [T]) {
        let left = |i| Self::matrix(g, i, self.queries, self.keys).transposed();
        let right = |i| Self::matrix(x, i, self.queries, self.width);
        self.each(w, left, right);
    }

    fn apply_tensors(&self, pairs: Pairs) -> Result<Option<Tensor>> {
        let mut sum = SumOfProducts::new();
        for (x, w) in pairs {
            sum.add(x, &turned(w)?)?;
        }
        Ok(sum.sum())
    }

    fn left_tensors(&self, pairs: Pairs) -> Result<Option<Tensor>> {
        let mut sum = SumOfProducts::new();
        for (g, w) in pairs {
            sum.add(g, w)?;
        }
        Ok(sum.sum())
    }

    fn right_tensors(&self, pairs: Pairs) -> Result<Option<Tensor>> {
        let mut sum = SumOfProducts::new();
        for (x, g) in pairs {
            sum.add(&turned(g)?, x)?;
        }
        Ok(sum.sum())
    }
}
