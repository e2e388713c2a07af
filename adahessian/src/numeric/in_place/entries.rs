//! An update as a function of one entry, applied to whole variables.

use super::{PIECE, pieces, with_slices};
use crate::error::Result;
use crate::numeric::Real;
use crate::numeric::simd::{self, Task, Vector, Width};
use candle_core::Tensor;

/// The update of one entry. `changed` are the numbers that it replaces, the variable's value first
/// and then its running quantities; `read` are those that it only looks at, the gradient first. It
/// returns what replaces `changed`, and two terms that are summed over all entries.
pub(crate) trait Entry<T: Real, const N: usize, const I: usize>: Copy + Sync {
    fn entry(&self, changed: [T; N], read: [T; I]) -> ([T; N], [T; 2]);
}

/// What is done to a gradient first: limited to ±`limit`, then multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Clip<T> {
    pub limit: T,
    pub scale: T,
}

impl<T: Real> Clip<T> {
    #[inline(always)]
    pub fn of(&self, gradient: T) -> T {
        let below = match gradient > self.limit {
            true => self.limit,
            false => gradient,
        };
        let limited = match below < -self.limit {
            true => -self.limit,
            false => below,
        };
        limited * self.scale
    }
}

/// Updates a variable and its running quantities; the two sums. `None`, and nothing done, where it
/// takes candle's operations.
pub(crate) fn update<T: Real, const N: usize, const I: usize>(
    changed: [&Tensor; N],
    read: [&Tensor; I],
    entry: impl Entry<T, N, I>,
) -> Result<Option<[f64; 2]>> {
    with_slices::<T, _, N, I>(changed, read, |changed, read| {
        let parts = pieces(PIECE, changed, read, |_, changed, read| {
            update_slices(changed, read, entry)
        });
        sum(parts)
    })
}

/// The sums of sums, in order.
pub(super) fn sum<const S: usize>(parts: impl IntoIterator<Item = [f64; S]>) -> [f64; S] {
    parts.into_iter().fold([0.0; S], |sum, part| {
        std::array::from_fn(|i| sum[i] + part[i])
    })
}

/// The same for slices of one length, on this thread.
pub(crate) fn update_slices<T: Real, const N: usize, const I: usize>(
    changed: [&mut [T]; N],
    read: [&[T]; I],
    entry: impl Entry<T, N, I>,
) -> [f64; 2] {
    let task = Update {
        changed,
        read,
        entry,
    };
    simd::run(Width::Widest, task)
}

/// Entries computed side by side: the compiler makes vectors of them.
const LANES: usize = 16;

/// Groups of lanes whose terms are summed in the variable's own type before f64 takes over.
const GROUPS: usize = 256;

struct Update<'a, T, E, const N: usize, const I: usize> {
    changed: [&'a mut [T]; N],
    read: [&'a [T]; I],
    entry: E,
}

impl<T: Real, E: Entry<T, N, I>, const N: usize, const I: usize> Task<T>
    for Update<'_, T, E, N, I>
{
    type Output = [f64; 2];

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) -> [f64; 2] {
        let mut tails = self.changed.map(|slice| slice.as_chunks_mut::<LANES>());
        let ends = self.read.map(|slice| slice.as_chunks::<LANES>());
        let groups = tails.iter().map(|(groups, _)| groups.len());
        let groups = groups.chain(ends.iter().map(|(groups, _)| groups.len()));
        let groups = groups.min().unwrap_or(0);
        let mut sums = [0.0; 2];
        for start in (0..groups).step_by(GROUPS) {
            let mut lanes = [[T::ZERO; LANES]; 2];
            for group in start..groups.min(start + GROUPS) {
                // Copies: the compiler need not prove that the slices are apart.
                let read: [[T; LANES]; I] = std::array::from_fn(|i| ends[i].0[group]);
                let mut changed: [[T; LANES]; N] = std::array::from_fn(|i| tails[i].0[group]);
                for lane in 0..LANES {
                    // By index: as iterators over whole arrays this does not become vectors.
                    let old = std::array::from_fn(|i| changed[i][lane]);
                    let seen = std::array::from_fn(|i| read[i][lane]);
                    let (new, terms) = self.entry.entry(old, seen);
                    for i in 0..N {
                        changed[i][lane] = new[i];
                    }
                    for i in 0..2 {
                        lanes[i][lane] += terms[i];
                    }
                }
                for (to, new) in tails.iter_mut().zip(changed) {
                    to.0[group] = new;
                }
            }
            for (sum, lanes) in sums.iter_mut().zip(lanes) {
                *sum += lanes.iter().map(|x| x.to_f64()).sum::<f64>();
            }
        }
        let rest = tails.iter().map(|(_, rest)| rest.len());
        let rest = rest.chain(ends.iter().map(|(_, rest)| rest.len()));
        for at in 0..rest.min().unwrap_or(0) {
            let old = std::array::from_fn(|i| tails[i].1[at]);
            let (new, terms) = self
                .entry
                .entry(old, std::array::from_fn(|i| ends[i].1[at]));
            for (to, new) in tails.iter_mut().zip(new) {
                to.1[at] = new;
            }
            for (sum, term) in sums.iter_mut().zip(terms) {
                *sum += term.to_f64();
            }
        }
        sums
    }
}
