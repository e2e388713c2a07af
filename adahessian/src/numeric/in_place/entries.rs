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

// Functions of numbers alone are apart, and have the closures: `run` is compiled for every rule, type and instruction set,
// and what adapters of iterators come to there was a fifth of all that the compiler had to do.
impl<T: Real, E: Entry<T, N, I>, const N: usize, const I: usize> Task<T>
    for Update<'_, T, E, N, I>
{
    type Output = [f64; 2];

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) -> [f64; 2] {
        let Self { mut cut, entry } = self;
        let mut sums = [0.0; 2];
        let mut start = 0;
        while start < cut.groups {
            let end = cut.groups.min(start + GROUPS);
            let mut lanes = [[T::ZERO; LANES]; 2];
            for group in start..end {
                // Copies: the compiler need not prove that the slices are apart.
                let (mut changed, read) = cut.group(group);
                for lane in 0..LANES {
                    // By index: as iterators over whole arrays this does not become vectors.
                    let (new, terms) = entry.entry(column(&changed, lane), column(&read, lane));
                    for i in 0..N {
                        changed[i][lane] = new[i];
                    }
                    for i in 0..2 {
                        lanes[i][lane] += terms[i];
                    }
                }
                cut.put(group, changed);
            }
            sums = added(sums, lanes.each_ref().map(total));
            start = end;
        }
        for at in 0..cut.rest {
            let (old, seen) = cut.single(at);
            let (new, terms) = entry.entry(old, seen);
            cut.put_single(at, new);
            sums = added(sums, terms.map(T::to_f64));
        }
        sums
    }
}

impl<T: Real, const N: usize, const I: usize> Cut<'_, T, N, I> {
    #[inline(always)]
    fn group(&self, at: usize) -> ([[T; LANES]; N], [[T; LANES]; I]) {
        let changed = std::array::from_fn(|i| self.changed[i].0[at]);
        (changed, std::array::from_fn(|i| self.read[i].0[at]))
    }

    #[inline(always)]
    fn put(&mut self, at: usize, changed: [[T; LANES]; N]) {
        for (to, new) in self.changed.iter_mut().zip(changed) {
            to.0[at] = new;
        }
    }

    /// Of what is left over.
    #[inline(always)]
    fn single(&self, at: usize) -> ([T; N], [T; I]) {
        let changed = std::array::from_fn(|i| self.changed[i].1[at]);
        (changed, std::array::from_fn(|i| self.read[i].1[at]))
    }

    #[inline(always)]
    fn put_single(&mut self, at: usize, changed: [T; N]) {
        for (to, new) in self.changed.iter_mut().zip(changed) {
            to.1[at] = new;
        }
    }
}

#[inline(always)]
fn column<T: Real, const N: usize>(rows: &[[T; LANES]; N], lane: usize) -> [T; N] {
    std::array::from_fn(|i| rows[i][lane])
}

#[inline(always)]
fn added([a, b]: [f64; 2], [c, d]: [f64; 2]) -> [f64; 2] {
    [a + c, b + d]
}

#[inline(always)]
fn total<T: Real>(lanes: &[T; LANES]) -> f64 {
    lanes.iter().map(|x| x.to_f64()).sum()
}
