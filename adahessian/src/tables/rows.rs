//! Reading and changing some rows of a table, in parallel.

use super::cell::Cell;
use crate::numeric::Real;
use crate::numeric::parallel;
use rayon::prelude::*;

/// Rows that one thread works on at a time. So many are done on the thread that is there: waking another
/// takes longer.
const PIECE: usize = 1 << 12;
/// Ids that are sorted on the thread that is there.
const FEW: usize = 1 << 14;

/// Copies rows out of a table, in the given order.
pub(crate) fn read<C: Cell>(table: &[C], width: usize, rows: &[u32]) -> Vec<C::Number> {
    let mut numbers = vec![C::Number::ZERO; rows.len() * width];
    let copy = |(to, rows): (&mut [C::Number], &[u32])| {
        for (to, &row) in to.chunks_exact_mut(width).zip(rows) {
            let from = &table[row as usize * width..][..width];
            to.iter_mut().zip(from).for_each(|(to, x)| *to = x.get());
        }
    };
    match rows.len() <= PIECE || is_on_a_pool() {
        true => copy((&mut numbers, rows)),
        false => {
            let pieces = numbers.chunks_mut(PIECE * width);
            let pieces = pieces.zip(rows.chunks(PIECE));
            parallel::apart(|| parallel::each(pieces, |_, piece| copy(piece)));
        }
    }
    numbers
}

/// Calls `change` with each of these rows, which rise, of two arrays that have `widths` numbers a row,
/// and with its place among them. The sum of what it returns, added up in the order of the rows.
pub(crate) fn change<A: Send, B: Send>(
    arrays: (&mut [A], &mut [B]),
    widths: (usize, usize),
    rows: &[u32],
    change: impl Fn(usize, &mut [A], &mut [B]) -> f64 + Sync,
) -> f64 {
    let (mut a, mut b) = arrays;
    let mut done = 0;
    let mut work = Vec::with_capacity(rows.len().div_ceil(PIECE));
    for (piece, rows) in rows.chunks(PIECE).enumerate() {
        let end = rows[rows.len() - 1] as usize + 1;
        let (part_a, part_b);
        (part_a, a) = std::mem::take(&mut a).split_at_mut((end - done) * widths.0);
        (part_b, b) = std::mem::take(&mut b).split_at_mut((end - done) * widths.1);
        work.push((piece, rows, done, part_a, part_b));
        done = end;
    }
    let change = |(piece, rows, start, a, b): (usize, &[u32], usize, &mut [A], &mut [B])| {
        let places = rows.iter().enumerate();
        let sums = places.map(|(i, &row)| {
            let row = row as usize - start;
            let a = &mut a[row * widths.0..][..widths.0];
            let b = &mut b[row * widths.1..][..widths.1];
            change(piece * PIECE + i, a, b)
        });
        sums.sum::<f64>()
    };
    let sums: Vec<f64> = match work.len() {
        0 | 1 => work.into_iter().map(change).collect(),
        _ if is_on_a_pool() => work.into_iter().map(change).collect(),
        _ => parallel::apart(|| parallel::map(work, |_, piece| change(piece))),
    };
    sums.into_iter().sum()
}

/// Whether this thread may take up another's work while it waits for its own. The callers have a table's lock: what it takes
/// up may wait for that.
fn is_on_a_pool() -> bool {
    rayon::current_thread_index().is_some()
}

/// The different ids in rising order, and for each id its place among them.
pub(crate) fn unique(ids: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let pairs = ids.iter().enumerate();
    let mut pairs: Vec<u64> = pairs
        .map(|(place, &id)| u64::from(id) << 32 | place as u64)
        .collect();
    match ids.len() <= FEW {
        true => pairs.sort_unstable(),
        false => pairs.par_sort_unstable(),
    }
    let mut rows = Vec::new();
    let mut places = vec![0; ids.len()];
    for pair in pairs {
        let (id, place) = ((pair >> 32) as u32, pair as u32);
        if rows.last() != Some(&id) {
            rows.push(id);
        }
        places[place as usize] = rows.len() as u32 - 1;
    }
    (rows, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_among_the_different_ones() {
        let ids = [7, 3, 7, 0, u32::MAX, 3];
        let (rows, places) = unique(&ids);
        assert_eq!(rows, [0, 3, 7, u32::MAX]);
        let again: Vec<u32> = places.iter().map(|&p| rows[p as usize]).collect();
        assert_eq!(again, ids);
        assert_eq!(unique(&[]), (vec![], vec![]));
    }

    #[test]
    fn only_these_rows_change() {
        let mut table: Vec<f32> = (0..5000 * 3).map(|i| i as f32).collect();
        let before = table.clone();
        let mut seen = vec![0u8; 5000];
        let rows: Vec<u32> = (0..5000).filter(|row| row % 7 != 2).collect();
        let sum = change((&mut table, &mut seen), (3, 1), &rows, |place, a, b| {
            assert_eq!(a[0], rows[place] as f32 * 3.0);
            a.fill(-1.0);
            b[0] += 1;
            1.0
        });
        assert_eq!(sum as usize, rows.len());
        for row in 0..5000 {
            let touched = row % 7 != 2;
            assert_eq!(seen[row], u8::from(touched));
            let numbers = &table[row * 3..][..3];
            match touched {
                true => assert_eq!(numbers, [-1.0; 3]),
                false => assert_eq!(numbers, &before[row * 3..][..3]),
            }
        }
        let read = read(&before, 3, &[4, 1]);
        assert_eq!(read, [12.0, 13.0, 14.0, 3.0, 4.0, 5.0]);
    }
}
