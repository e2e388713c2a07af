//! D averaged over blocks, piece by piece.

use super::entries::{Entry, update_slices};
use super::{PIECE, pieces};
use crate::numeric::Real;
use crate::numeric::simd::{self, Task, Vector};

/// How D is averaged.
#[derive(Clone, Copy)]
pub(crate) struct Averaging {
    /// Entries of a block, at least 1.
    pub run: usize,
    /// Whether |D| is averaged.
    pub absolute: bool,
}

impl Averaging {
    /// Whole blocks in a piece, where they fit.
    pub fn piece(&self) -> usize {
        match self.run <= PIECE {
            true => PIECE / self.run * self.run,
            false => PIECE,
        }
    }

    #[inline(always)]
    fn of<T: Real>(&self, x: T) -> T {
        match self.absolute {
            true => x.abs(),
            false => x,
        }
    }

    fn sum<T: Real>(&self, block: &[T]) -> f64 {
        block.iter().map(|x| self.of(*x).to_f64()).sum()
    }

    fn mean<T: Real>(&self, block: &[T]) -> T {
        T::from_f64(self.sum(block) / block.len() as f64)
    }

    /// The means of blocks that are longer than a piece.
    pub fn long_means<T: Real>(&self, diagonal: &[T]) -> Option<Vec<T>> {
        let mean = |block: &[T]| {
            let sums = pieces(PIECE, [], [block], &|_, [], [part]| self.sum(part));
            T::from_f64(sums.iter().sum::<f64>() / block.len() as f64)
        };
        (self.run > PIECE).then(|| diagonal.chunks(self.run).map(mean).collect())
    }

    /// The averaged D of a piece that begins at `start`.
    pub fn average<T: Real>(
        &self,
        start: usize,
        diagonal: &[T],
        long: Option<&[T]>,
        average: &mut [T],
    ) {
        match (long, self.run) {
            (Some(means), run) => {
                let places = (start..).zip(average);
                places.for_each(|(place, to)| *to = means[place / run]);
            }
            (None, 1) => {
                let pairs = average.iter_mut().zip(diagonal);
                pairs.for_each(|(to, x)| *to = self.of(*x));
            }
            (None, 2) => simd::run(self.short::<T, 2>(diagonal, average)),
            (None, 4) => simd::run(self.short::<T, 4>(diagonal, average)),
            (None, 8) => simd::run(self.short::<T, 8>(diagonal, average)),
            (None, run) => {
                let blocks = average.chunks_mut(run).zip(diagonal.chunks(run));
                blocks.for_each(|(to, block)| to.fill(self.mean(block)));
            }
        }
    }

    fn short<'a, T: Real, const RUN: usize>(
        &self,
        diagonal: &'a [T],
        average: &'a mut [T],
    ) -> Short<'a, T, RUN> {
        Short {
            absolute: self.absolute,
            diagonal,
            average,
        }
    }
}

/// Averages over blocks so short that their length should be known to the compiler.
struct Short<'a, T, const RUN: usize> {
    absolute: bool,
    diagonal: &'a [T],
    average: &'a mut [T],
}

impl<T: Real, const RUN: usize> Short<'_, T, RUN> {
    #[inline(always)]
    fn mean(block: &[T; RUN], of: impl Fn(T) -> T) -> T {
        let share = T::from_f64(1.0 / RUN as f64);
        block.iter().fold(T::ZERO, |sum, x| sum + of(*x)) * share
    }

    #[inline(always)]
    fn all(diagonal: &[T], average: &mut [T], of: impl Fn(T) -> T) {
        let (blocks, rest) = diagonal.as_chunks::<RUN>();
        let (means, last) = average.as_chunks_mut::<RUN>();
        for (to, block) in means.iter_mut().zip(blocks) {
            *to = [Self::mean(block, &of); RUN];
        }
        if !rest.is_empty() {
            let sum = rest.iter().fold(T::ZERO, |sum, x| sum + of(*x));
            last.fill(sum * T::from_f64(1.0 / rest.len() as f64));
        }
    }
}

impl<T: Real, const RUN: usize> Task<T> for Short<'_, T, RUN> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) {
        match self.absolute {
            true => Self::all(self.diagonal, self.average, |x| x.abs()),
            false => Self::all(self.diagonal, self.average, |x| x),
        }
    }
}

/// The sum and the largest of |x|.
pub(crate) fn sizes<T: Real>(x: &[T]) -> [f64; 2] {
    let [sum, _] = update_slices([], [x], Abs);
    [sum, simd::run(LargestAbs(x)).to_f64()]
}

#[derive(Clone, Copy)]
struct Abs;

impl<T: Real> Entry<T, 0, 1> for Abs {
    #[inline(always)]
    fn entry(&self, _: [T; 0], [x]: [T; 1]) -> ([T; 0], [T; 2]) {
        ([], [x.abs(), T::ZERO])
    }
}

struct LargestAbs<'a, T>(&'a [T]);

impl<T: Real> Task<T> for LargestAbs<'_, T> {
    type Output = T;

    #[inline(always)]
    unsafe fn run<V: Vector<T>, const REGISTERS: usize>(self) -> T {
        let larger = |a: T, b: T| match b > a {
            true => b,
            false => a,
        };
        let (groups, rest) = self.0.as_chunks::<16>();
        let mut lanes = [T::ZERO; 16];
        for group in groups {
            for (lane, x) in lanes.iter_mut().zip(group) {
                *lane = larger(*lane, x.abs());
            }
        }
        let all = lanes.into_iter().chain(rest.iter().map(|x| x.abs()));
        all.fold(T::ZERO, larger)
    }
}
