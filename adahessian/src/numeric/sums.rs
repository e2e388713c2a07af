//! Sums and maxima over short vectors, in an order that does not depend on the processor.

use super::Real;

const LANES: usize = 16;

/// Σ f(entry of each row) for several sums at once.
// By index, and without closures of its own: it is compiled anew for every f, type and instruction set.
#[expect(clippy::needless_range_loop, reason = "said above")]
#[inline(always)]
pub(crate) fn sums<T: Real, const N: usize, const M: usize>(
    rows: [&[T]; N],
    f: impl Fn([T; N]) -> [T; M],
) -> [T; M] {
    let parts = chunks(rows);
    let mut lanes = [[T::ZERO; LANES]; M];
    for group in 0..parts[0].0.len() {
        let mut read = [[T::ZERO; LANES]; N];
        for i in 0..N {
            read[i] = parts[i].0[group];
        }
        for lane in 0..LANES {
            let mut entries = [T::ZERO; N];
            for i in 0..N {
                entries[i] = read[i][lane];
            }
            let terms = f(entries);
            for i in 0..M {
                lanes[i][lane] += terms[i];
            }
        }
    }
    for at in 0..parts[0].1.len() {
        let mut entries = [T::ZERO; N];
        for i in 0..N {
            entries[i] = parts[i].1[at];
        }
        let terms = f(entries);
        for i in 0..M {
            lanes[i][at] += terms[i];
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
