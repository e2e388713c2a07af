//! One variable's step of AdaHessian in one pass over memory: block average, s, m, v, θ.

use super::slot::{Outcome, Rates, Slot};
use super::{AdaHessianBuilder, Average, Delay};
use crate::error::Result;
use crate::numeric::simd::{self, Task, Vector, Width};
use crate::numeric::{Buffer, Real};
use crate::optim::in_place::{Clip, Entry, PIECE, pieces, update_slices, with_slices};
use candle_core::{DType, Tensor};

/// The step of a slot whose counters have been advanced. `None`, and nothing done, where it takes
/// candle's operations.
pub(super) fn step(
    slot: &Slot,
    config: &AdaHessianBuilder,
    value: &Tensor,
    gradient: &Tensor,
    diagonal: Option<&Tensor>,
    rates: &Rates,
) -> Result<Option<Outcome>> {
    if config.delay == Delay::Stale {
        return Ok(None); // keeps the last D, and repeats it
    }
    match value.dtype() {
        DType::F32 => typed::<f32>(slot, config, value, gradient, diagonal, rates),
        DType::F64 => typed::<f64>(slot, config, value, gradient, diagonal, rates),
        _ => Ok(None),
    }
}

fn typed<T: Real>(
    slot: &Slot,
    config: &AdaHessianBuilder,
    value: &Tensor,
    gradient: &Tensor,
    diagonal: Option<&Tensor>,
    rates: &Rates,
) -> Result<Option<Outcome>> {
    // Chosen here, not entry by entry: a loop that may call `powf` is not made into vectors.
    match config.hessian_power == 1.0 {
        true => stepped(
            slot,
            config,
            value,
            gradient,
            diagonal,
            Step::<T, false>::new(slot, config, rates),
        ),
        false => stepped(
            slot,
            config,
            value,
            gradient,
            diagonal,
            Step::<T, true>::new(slot, config, rates),
        ),
    }
}

fn stepped<T: Real, const POWER: bool>(
    slot: &Slot,
    config: &AdaHessianBuilder,
    value: &Tensor,
    gradient: &Tensor,
    diagonal: Option<&Tensor>,
    entry: Step<T, POWER>,
) -> Result<Option<Outcome>> {
    let changed = [value, &slot.exp_avg, &slot.exp_hessian_diag_sq];
    let Some(diagonal) = diagonal else {
        return with_slices(changed, [gradient], |changed: [&mut [T]; 3], read| {
            let parts = pieces(PIECE, changed, read, |_, [value, m, s], [gradient]| {
                let sums = update_slices([value, m], [gradient, s], entry);
                Outcome::of_update(sums)
            });
            parts.into_iter().sum()
        });
    };
    let curvature = Curvature {
        run: slot.block.run(value.dims()).max(1),
        absolute: config.average == Average::Absolute,
        new: T::from_f64(1.0 - config.betas.1),
        old: T::from_f64(config.betas.1),
    };
    with_slices(
        changed,
        [gradient, diagonal],
        |changed: [&mut [T]; 3], read| {
            let long = curvature.long_means(read[1]);
            let length = curvature.piece();
            let parts = pieces(
                length,
                changed,
                read,
                |start, [value, m, s], [gradient, d]| {
                    let mut average = Buffer::scratch(d.len());
                    curvature.average(start, d, long.as_deref(), &mut average);
                    let mut outcome = curvature.add(&average, s);
                    outcome += Outcome::of_update(update_slices([value, m], [gradient, s], entry));
                    outcome
                },
            );
            parts.into_iter().sum()
        },
    )
}

/// m and θ of one entry; s has its new value already. In the order of PyTorch's addcdiv: a chaotic
/// trajectory feels the last bit.
#[derive(Clone, Copy)]
struct Step<T, const POWER: bool> {
    clip: Clip<T>,
    /// (β1, 1-β1).
    mean: (T, T),
    /// 1 / (1-β2ᵗ).
    correction: T,
    /// k, which is 1 unless `POWER`.
    power: T,
    eps: T,
    /// η / (1-β1ᵗ).
    rate: T,
    /// 1 - ηλ where there is decay.
    shrink: Option<T>,
}

impl<T: Real, const POWER: bool> Step<T, POWER> {
    fn new(slot: &Slot, config: &AdaHessianBuilder, rates: &Rates) -> Self {
        let beta1 = config.betas.0;
        Self {
            clip: rates.clipping.of(),
            mean: (T::from_f64(beta1), T::from_f64(1.0 - beta1)),
            correction: T::from_f64(1.0 / slot.correction(config)),
            power: T::from_f64(config.hessian_power),
            eps: T::from_f64(config.eps),
            rate: T::from_f64(slot.rate(config, rates)),
            shrink: rates.shrink().map(T::from_f64),
        }
    }
}

impl<T: Real, const POWER: bool> Entry<T, 2, 2> for Step<T, POWER> {
    #[inline(always)]
    fn entry(&self, [value, m]: [T; 2], [gradient, s]: [T; 2]) -> ([T; 2], [T; 2]) {
        let m = m * self.mean.0 + self.clip.of(gradient) * self.mean.1;
        let root = (s * self.correction).sqrt();
        let v = match POWER {
            true => root.powf(self.power),
            false => root,
        };
        let direction = m * self.rate / (v + self.eps);
        let kept = match self.shrink {
            Some(shrink) => value * shrink,
            None => value,
        };
        let new = kept - direction;
        let change = new - value;
        let below = match v < self.eps {
            true => T::ONE,
            false => T::ZERO,
        };
        ([new, m], [change * change, below])
    }
}

/// How D becomes part of s.
struct Curvature<T> {
    /// Entries of a block.
    run: usize,
    absolute: bool,
    /// 1-β2 and β2.
    new: T,
    old: T,
}

impl<T: Real> Curvature<T> {
    /// Whole blocks in a piece, where they fit.
    fn piece(&self) -> usize {
        match self.run <= PIECE {
            true => PIECE / self.run * self.run,
            false => PIECE,
        }
    }

    #[inline(always)]
    fn of(&self, x: T) -> T {
        match self.absolute {
            true => x.abs(),
            false => x,
        }
    }

    fn sum(&self, block: &[T]) -> f64 {
        block.iter().map(|x| self.of(*x).to_f64()).sum()
    }

    fn mean(&self, block: &[T]) -> T {
        T::from_f64(self.sum(block) / block.len() as f64)
    }

    /// The means of blocks that are longer than a piece.
    fn long_means(&self, diagonal: &[T]) -> Option<Vec<T>> {
        let mean = |block: &[T]| {
            let sums = pieces(PIECE, [], [block], |_, [], [part]| self.sum(part));
            T::from_f64(sums.iter().sum::<f64>() / block.len() as f64)
        };
        (self.run > PIECE).then(|| diagonal.chunks(self.run).map(mean).collect())
    }

    /// The averaged D of a piece that begins at `start`.
    fn average(&self, start: usize, diagonal: &[T], long: Option<&[T]>, average: &mut [T]) {
        match (long, self.run) {
            (Some(means), run) => {
                let places = (start..).zip(average);
                places.for_each(|(place, to)| *to = means[place / run]);
            }
            (None, 1) => {
                let pairs = average.iter_mut().zip(diagonal);
                pairs.for_each(|(to, x)| *to = self.of(*x));
            }
            (None, 2) => simd::run(Width::Widest, self.short::<2>(diagonal, average)),
            (None, 4) => simd::run(Width::Widest, self.short::<4>(diagonal, average)),
            (None, 8) => simd::run(Width::Widest, self.short::<8>(diagonal, average)),
            (None, run) => {
                let blocks = average.chunks_mut(run).zip(diagonal.chunks(run));
                blocks.for_each(|(to, block)| to.fill(self.mean(block)));
            }
        }
    }

    fn short<'a, const RUN: usize>(
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

    /// s = β2 s + (1-β2) D² (Eq. 11), and what D is like.
    fn add(&self, average: &[T], s: &mut [T]) -> Outcome {
        let sums = update_slices([s], [average], AddSquare(self.old, self.new));
        let max = simd::run(Width::Widest, LargestAbs(average));
        Outcome {
            abs_sum: sums[0],
            abs_max: max.to_f64(),
            entries: average.len(),
            ..Outcome::default()
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

/// β2 and 1-β2.
#[derive(Clone, Copy)]
struct AddSquare<T>(T, T);

impl<T: Real> Entry<T, 1, 1> for AddSquare<T> {
    #[inline(always)]
    fn entry(&self, [s]: [T; 1], [d]: [T; 1]) -> ([T; 1], [T; 2]) {
        ([s * self.0 + d * d * self.1], [d.abs(), T::ZERO])
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
