//! An update as a function of one entry, applied to whole variables.

use super::{PIECE, pieces, with_slices};
use crate::error::Result;
use crate::numeric::Real;
use crate::numeric::simd::{self, Task, Vector};
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
        let parts = pieces(PIECE, changed, read, &|_, changed, read| {
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
    let cut = Cut::of(changed, read);
    simd::run(Update { cut, entry })
}

/// Entries computed side by side: the compiler makes vectors of them.
const LANES: usize = 16;

/// Groups of lanes whose terms are summed in the variable's own type before f64 takes over.
const GROUPS: usize = 256;

/// Slices as groups of lanes, and what is left of them.
struct Cut<'a, T, const N: usize, const I: usize> {
    changed: [(&'a mut [[T; LANES]], &'a mut [T]); N],
    read: [(&'a [[T; LANES]], &'a [T]); I],
    groups: usize,
    rest: usize,
}

impl<'a, T: Real, const N: usize, const I: usize> Cut<'a, T, N, I> {
    fn of(changed: [&'a mut [T]; N], read: [&'a [T]; I]) -> Self {
        let changed = changed.map(|slice| slice.as_chunks_mut::<LANES>());
        let read = read.map(|slice| slice.as_chunks::<LANES>());
        let sizes = changed
            .iter()
            .map(|(groups, rest)| (groups.len(), rest.len()));
        let others = read.iter().map(|(groups, rest)| (groups.len(), rest.len()));
        let least = |(groups, rest): (usize, usize), (g, r)| (groups.min(g), rest.min(r));
        let (groups, rest) = sizes.chain(others).reduce(least).unwrap_or((0, 0));
        Self {
            changed,
            read,
            groups,
            rest,
        }
    }
}

struct Update<'a, T, E, const N: usize, const I: usize> {
    cut: Cut<'a, T, N, I>,
    entry: E,
}

// Loops by index, and no closures: this is compiled for every rule, type and instruction set, and what adapters of
// iterators come to was a fifth of all that the compiler had to do. Over whole arrays they would not become vectors, too.
#[expect(clippy::needless_range_loop, reason = "said above")]
impl<T: Real, E: Entry<T, N, I>, const N: usize, const I: usize> Task<T>
    for Update<'_, T, E, N, I>
{
    type Output = [f64; 2];

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) -> [f64; 2] {
        let Self { cut, entry } = self;
        let mut sums = [0.0; 2];
        let mut start = 0;
        while start < cut.groups {
            let end = cut.groups.min(start + GROUPS);
            let mut lanes = [[T::ZERO; LANES]; 2];
            for group in start..end {
                // Copies: the compiler need not prove that the slices are apart.
                let mut read = [[T::ZERO; LANES]; I];
                for i in 0..I {
                    read[i] = cut.read[i].0[group];
                }
                let mut changed = [[T::ZERO; LANES]; N];
                for i in 0..N {
                    changed[i] = cut.changed[i].0[group];
                }
                for lane in 0..LANES {
                    let (mut old, mut seen) = ([T::ZERO; N], [T::ZERO; I]);
                    for i in 0..N {
                        old[i] = changed[i][lane];
                    }
                    for i in 0..I {
                        seen[i] = read[i][lane];
                    }
                    let (new, terms) = entry.entry(old, seen);
                    for i in 0..N {
                        changed[i][lane] = new[i];
                    }
                    for i in 0..2 {
                        lanes[i][lane] += terms[i];
                    }
                }
                for i in 0..N {
                    cut.changed[i].0[group] = changed[i];
                }
            }
            for i in 0..2 {
                sums[i] += total(&lanes[i]);
            }
            start = end;
        }
        for at in 0..cut.rest {
            let (mut old, mut seen) = ([T::ZERO; N], [T::ZERO; I]);
            for i in 0..N {
                old[i] = cut.changed[i].1[at];
            }
            for i in 0..I {
                seen[i] = cut.read[i].1[at];
            }
            let (new, terms) = entry.entry(old, seen);
            for i in 0..N {
                cut.changed[i].1[at] = new[i];
            }
            for i in 0..2 {
                sums[i] += terms[i].to_f64();
            }
        }
        sums
    }
}

#[inline(always)]
fn total<T: Real>(lanes: &[T; LANES]) -> f64 {
    lanes.iter().map(|x| x.to_f64()).sum()
}
