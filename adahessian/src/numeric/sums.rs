//! Sums and maxima over short vectors, in an order that does not depend on the processor.

use super::Real;

const LANES: usize = 16;

/// Σ f(entry of each row) for several sums at once.
// Without closures of its own: it is compiled anew for every f, type and instruction set.
#[inline(always)]
pub(crate) fn sums<T: Real, const N: usize, const M: usize>(
    rows: [&[T]; N],
    f: impl Fn([T; N]) -> [T; M],
) -> [T; M] {
    let parts = chunks(rows);
    let mut lanes = [[T::ZERO; LANES]; M];
    for at in 0..parts[0].0.len() {
        let read = group(&parts, at);
        for lane in 0..LANES {
            let terms = f(column(&read, lane));
            for (sum, term) in lanes.iter_mut().zip(terms) {
                sum[lane] += term;
            }
        }
    }
    for at in 0..parts[0].1.len() {
        let terms = f(single(&parts, at));
        for (sum, term) in lanes.iter_mut().zip(terms) {
            sum[at] += term;
        }
    }
    totals(lanes)
}

type Chunks<'a, T> = (&'a [[T; LANES]], &'a [T]);

#[inline(always)]
fn chunks<T, const N: usize>(rows: [&[T]; N]) -> [Chunks<'_, T>; N] {
    rows.map(|row| row.as_chunks::<LANES>())
}

#[inline(always)]
fn group<T: Real, const N: usize>(parts: &[Chunks<'_, T>; N], at: usize) -> [[T; LANES]; N] {
    std::array::from_fn(|i| parts[i].0[at])
}

/// Of what is left over.
#[inline(always)]
fn single<T: Real, const N: usize>(parts: &[Chunks<'_, T>; N], at: usize) -> [T; N] {
    std::array::from_fn(|i| parts[i].1[at])
}

#[inline(always)]
fn column<T: Real, const N: usize>(rows: &[[T; LANES]; N], lane: usize) -> [T; N] {
    std::array::from_fn(|i| rows[i][lane])
}

#[inline(always)]
fn totals<T: Real, const M: usize>(lanes: [[T; LANES]; M]) -> [T; M] {
    lanes.map(|lanes| lanes.into_iter().sum())
}

/// Σ a b
#[inline(always)]
pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let [sum] = sums([a, b], |[a, b]| [a * b]);
    sum
}

/// The largest entry; not-a-number is passed over.
#[inline(always)]
pub(crate) fn largest<T: Real>(row: &[T]) -> T {
    let larger = |a: T, b: T| match b > a {
        true => b,
        false => a,
    };
    let (groups, rest) = row.as_chunks::<LANES>();
    let mut lanes = [T::from_f64(f64::NEG_INFINITY); LANES];
    for group in groups {
        for (lane, &x) in lanes.iter_mut().zip(group) {
            *lane = larger(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, x);
    }
    lanes.into_iter().fold(lanes[0], larger)
}
