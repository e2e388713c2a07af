//! Sums and maxima over short vectors, in an order that does not depend on the processor.

use super::Real;

const LANES: usize = 16;

/// Σ f(entry of each row) for several sums at once.
#[inline(always)]
pub(crate) fn sums<T: Real, const N: usize, const M: usize>(
    rows: [&[T]; N],
    f: impl Fn([T; N]) -> [T; M],
) -> [T; M] {
    let parts = rows.map(|row| row.as_chunks::<LANES>());
    let mut lanes = [[T::ZERO; LANES]; M];
    for group in 0..parts[0].0.len() {
        let read: [[T; LANES]; N] = std::array::from_fn(|i| parts[i].0[group]);
        for lane in 0..LANES {
            let terms = f(std::array::from_fn(|i| read[i][lane]));
            for (sum, term) in lanes.iter_mut().zip(terms) {
                sum[lane] += term;
            }
        }
    }
    for at in 0..parts[0].1.len() {
        let terms = f(std::array::from_fn(|i| parts[i].1[at]));
        for (sum, term) in lanes.iter_mut().zip(terms) {
            sum[at] += term;
        }
    }
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
