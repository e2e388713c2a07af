//! Passes over the rows of matrices, in parallel, in pieces that do not depend on the threads.

use super::{Buffer, Real};
use rayon::prelude::*;

/// Numbers that are added on the thread that is there: waking another takes longer.
pub(crate) const FEW: usize = 1 << 16;

/// Rows of `width` numbers in a piece.
pub(crate) fn rows_in_piece(width: usize) -> usize {
    const NUMBERS: usize = 1 << 14;
    (NUMBERS / width.max(1)).max(1)
}

/// Σ over rows, for each column: [width] from [rows, width].
pub(crate) fn column_sums<T: Real>(data: &[T], width: usize) -> Buffer<T> {
    let length = rows_in_piece(width) * width;
    let sum = |piece: &[T]| {
        let mut sum = Buffer::zeroed(width);
        piece.chunks_exact(width).for_each(|row| add(&mut sum, row));
        sum
    };
    // The same pieces in both, and so the same bits.
    let sums: Vec<Buffer<T>> = match data.len() <= FEW {
        true => data.chunks(length).map(sum).collect(),
        false => data.par_chunks(length).map(sum).collect(),
    };
    in_order(sums, width)
}

/// The sum of equally long parts, in their order.
pub(crate) fn in_order<T: Real>(parts: Vec<Buffer<T>>, width: usize) -> Buffer<T> {
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_else(|| Buffer::zeroed(width));
    parts.for_each(|part| add(&mut sum, &part));
    sum
}

#[inline(always)]
pub(crate) fn add<T: Real>(to: &mut [T], from: &[T]) {
    to.iter_mut().zip(from).for_each(|(to, &x)| *to += x);
}
