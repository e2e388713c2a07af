//! Passes over the rows of matrices, in parallel, in pieces that do not depend on the threads.

use super::parallel;
use super::{Buffer, Real};

/// Numbers that are added on the thread that is there: waking another takes longer.
pub(crate) const FEW: usize = 1 << 16;

/// Sums of wide rows that are made apart, and added up by one thread.
const MOST_SUMS: usize = 16;

/// Rows of `width` numbers in a piece.
pub(crate) fn rows_in_piece(width: usize) -> usize {
    const NUMBERS: usize = 1 << 14;
    (NUMBERS / width.max(1)).max(1)
}

/// Calls `work` with every row of `width` numbers and its number, in parallel.
pub(crate) fn each_row<T: Real>(
    data: &mut [T],
    width: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    let rows = rows_in_piece(width);
    parallel::each(data.chunks_mut(rows * width), |piece, data| {
        for (row, data) in (piece * rows..).zip(data.chunks_exact_mut(width)) {
            work(row, data);
        }
    });
}

/// Σ over rows, for each column: [width] from [rows, width].
pub(crate) fn column_sums<T: Real>(data: &[T], width: usize) -> Buffer<T> {
    // Each piece has sums of its own: of wide rows several are in one, so that there are not as many sums as rows.
    let rows = match rows_in_piece(width) {
        1 => (data.len() / width.max(1)).div_ceil(MOST_SUMS).max(1),
        rows => rows,
    };
    let length = rows * width;
    let sum = |piece: &[T]| {
        let mut sum = Buffer::zeroed(width);
        piece.chunks_exact(width).for_each(|row| add(&mut sum, row));
        sum
    };
    // The same pieces in both, and so the same bits.
    let sums: Vec<Buffer<T>> = match data.len() <= FEW {
        true => data.chunks(length).map(sum).collect(),
        false => parallel::map(data.chunks(length), |_, piece| sum(piece)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_once() {
        for (rows, width) in [(1, 1), (40_000, 1), (1000, 33), (3, 20_000)] {
            let mut data = vec![0.5; rows * width];
            each_row(&mut data, width, |row, data| {
                assert_eq!(data.len(), width);
                data.iter_mut().for_each(|x| *x += row as f64);
            });
            let expected = (0..rows * width).map(|i| (i / width) as f64 + 0.5);
            assert!(data.into_iter().eq(expected), "{rows}x{width}");
        }
    }

    #[test]
    fn sums_of_columns_narrow_and_wide() {
        for (rows, width) in [
            (1, 1),
            (100, 7),
            (5, 20_000),
            (40, 20_000),
            (33, 16_385),
            (0, 3),
        ] {
            let data: Vec<f64> = (0..rows * width).map(|i| (i % 1013) as f64).collect();
            let sums = column_sums(&data, width);
            // Whole numbers: no order of adding them rounds.
            let expected = |column: usize| data.iter().skip(column).step_by(width).sum::<f64>();
            assert_eq!(sums.len(), width);
            for column in [0, width / 2, width - 1] {
                assert_eq!(sums[column], expected(column), "{rows}x{width}, {column}");
            }
        }
    }
}
