//! Products of matrices, by the `gemm` crate.

use super::Real;
use rayon::current_num_threads;
use std::marker::PhantomData;

/// A matrix in a slice: where it begins, and the steps from row to row and from column to column.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    pub data: &'a [T],
    pub rows: usize,
    pub columns: usize,
    pub row_step: usize,
    pub column_step: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows of `step` numbers of which the first `columns` are used.
    pub fn rows_of(data: &'a [T], rows: usize, columns: usize, step: usize) -> Self {
        Self {
            data,
            rows,
            columns,
            row_step: step,
            column_step: 1,
        }
    }

    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
            ..self
        }
    }

    fn end(&self) -> usize {
        match self.rows == 0 || self.columns == 0 {
            true => 0,
            false => (self.rows - 1) * self.row_step + (self.columns - 1) * self.column_step + 1,
        }
    }
}

/// Where a product goes: rows of `step` numbers in memory that others may write to at the same time,
/// elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a, T> {
    start: *mut T,
    length: usize,
    step: usize,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: a target is a pointer to numbers that may be sent and shared; whoever writes through it
// promises in `multiply_at` that nobody else touches the same entries.
unsafe impl<T: Send> Send for Target<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Target<'_, T> {}

impl<'a, T> Target<'a, T> {
    pub fn new(memory: &'a mut [T], step: usize) -> Self {
        Self {
            start: memory.as_mut_ptr(),
            length: memory.len(),
            step,
            memory: PhantomData,
        }
    }

    /// The same memory with rows of `step` numbers.
    pub fn with_step(self, step: usize) -> Self {
        Self { step, ..self }
    }
}

/// How a product meets what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Onto {
    Replace,
    Add,
}

/// `to` (+)= scale · left · right, with `to` starting at its `offset`-th number.
///
/// # Safety
/// No other thread may access the entries of `to` that the product covers meanwhile.
pub(crate) unsafe fn multiply_at<T: Real>(
    to: Target<'_, T>,
    offset: usize,
    onto: Onto,
    scale: T,
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
    parallel: bool,
) {
    let (m, n, k) = (left.rows, right.columns, left.columns);
    if m == 0 || n == 0 {
        return;
    }
    assert_eq!(k, right.rows);
    assert!(left.end() <= left.data.len() && right.end() <= right.data.len());
    assert!(offset + (m - 1) * to.step + n <= to.length);
    let parallelism = match parallel && current_num_threads() > 1 {
        true => gemm::Parallelism::Rayon(0),
        false => gemm::Parallelism::None,
    };
    // SAFETY: every entry that the steps reach lies inside its memory, as just checked; nobody else
    // writes there, by the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to.start.add(offset),
            1,
            to.step as isize,
            onto == Onto::Add,
            left.data.as_ptr(),
            left.column_step as isize,
            left.row_step as isize,
            right.data.as_ptr(),
            right.column_step as isize,
            right.row_step as isize,
            T::ONE,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The same into memory of one's own, on all threads. What is summed over is never split, so the
/// result does not depend on their number.
pub(crate) fn multiply<T: Real>(
    to: &mut [T],
    step: usize,
    offset: usize,
    onto: Onto,
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
) {
    // SAFETY: `to` is borrowed mutably.
    unsafe {
        multiply_at(
            Target::new(to, step),
            offset,
            onto,
            T::ONE,
            left,
            right,
            true,
        );
    }
}
