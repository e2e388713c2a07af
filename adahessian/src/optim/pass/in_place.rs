//! A step in one pass over memory.

use super::{Outcome, Pass};
use crate::error::Result;
use crate::numeric::in_place::{
    Clip, Entry as Kernel, PIECE, pieces, sizes, update_slices, with_slices,
};
use crate::numeric::{Buffer, ByType, Real, by_type};
use crate::optim::bound::within;
use crate::optim::number::Lane;
use crate::optim::rule::{Entry, Rule, Step};
use candle_core::Tensor;

/// The step in one pass over memory. `None`, and nothing done, where it takes candle's operations.
pub(crate) fn in_place<R: Rule>(
    rule: &R,
    pass: &Pass<'_>,
    slots: &[Tensor],
) -> Result<Option<Outcome>> {
    by_type(pass.value.dtype(), InPlace { rule, pass, slots })
}

struct InPlace<'a, R> {
    rule: &'a R,
    pass: &'a Pass<'a>,
    slots: &'a [Tensor],
}

impl<R: Rule> ByType for InPlace<'_, R> {
    type Output = Outcome;

    fn run<T: Real>(self) -> Result<Option<Outcome>> {
        typed::<T, R>(self.rule, self.pass, self.slots)
    }
}

fn typed<T: Real, R: Rule>(rule: &R, pass: &Pass<'_>, slots: &[Tensor]) -> Result<Option<Outcome>> {
    // Chosen here, not entry by entry: a loop that may call `powf` is not made into vectors.
    match R::POWERS && rule.powers_are_one() {
        true if const { R::POWERS } => counted::<T, R, false>(rule, pass, slots),
        _ => counted::<T, R, true>(rule, pass, slots),
    }
}

const fn may_have<R: Rule>(count: usize) -> bool {
    count <= R::SLOTS.len() && R::SLOTS.len() <= count + R::OPTIONAL_SLOTS
}

/// With the number of running quantities known to the compiler; loops that a rule cannot need are not
/// made.
fn counted<T: Real, R: Rule, const POWERS: bool>(
    rule: &R,
    pass: &Pass<'_>,
    slots: &[Tensor],
) -> Result<Option<Outcome>> {
    let value = pass.value;
    match slots {
        [] if const { may_have::<R>(0) } => sized::<T, R, 1, 0, POWERS>(rule, pass, [value], []),
        [a] if const { may_have::<R>(1) } => {
            sized::<T, R, 2, 1, POWERS>(rule, pass, [value, a], [a])
        }
        [a, b] if const { may_have::<R>(2) } => {
            sized::<T, R, 3, 2, POWERS>(rule, pass, [value, a, b], [a, b])
        }
        [a, b, c] if const { may_have::<R>(3) } => {
            sized::<T, R, 4, 3, POWERS>(rule, pass, [value, a, b, c], [a, b, c])
        }
        [a, b, c, d] if const { may_have::<R>(4) } => {
            sized::<T, R, 5, 4, POWERS>(rule, pass, [value, a, b, c, d], [a, b, c, d])
        }
        _ => Ok(None),
    }
}

fn sized<T: Real, R: Rule, const N: usize, const S: usize, const POWERS: bool>(
    rule: &R,
    pass: &Pass<'_>,
    all: [&Tensor; N],
    slots: [&Tensor; S],
) -> Result<Option<Outcome>> {
    let entry = OneEntry::<T, R, POWERS> {
        rule: *rule,
        clip: pass.clipping.of(),
        step: pass.step,
        scalars: rule.scalars(&pass.step),
    };
    if const { R::TRUST } {
        // With a D, which no rule here has: of candle's operations.
        return match pass.diagonal {
            Some(_) if const { R::SECOND_ORDER } => Ok(None),
            _ => trusted(pass, slots, entry),
        };
    }
    match pass.diagonal {
        Some(diagonal) if const { R::SECOND_ORDER } => {
            let averaging = diagonal.averaging();
            let read = [pass.gradient, &diagonal.tensor];
            with_slices(all, read, |changed: [&mut [T]; N], read| {
                let long = averaging.long_means(read[1]);
                let least = diagonal.least(read[1]);
                let piece = |start, changed: [&mut [T]; N], read: [&[T]; 2]| {
                    let mut average = Buffer::scratch(read[1].len());
                    averaging.average(start, read[1], long.as_deref(), &mut average);
                    if let Some(least) = least {
                        raise(&mut average, least);
                    }
                    let [abs_sum, abs_max] = sizes(&average);
                    let sums = update_slices(changed, [read[0], &average], entry);
                    Outcome {
                        abs_sum,
                        abs_max,
                        entries: average.len(),
                        ..Outcome::of_update(sums)
                    }
                };
                within(pass.bound, changed, |changed| {
                    let parts = pieces(averaging.piece(), changed, read, &piece);
                    parts.into_iter().sum()
                })
            })
        }
        _ => with_slices(all, [pass.gradient], |changed: [&mut [T]; N], read| {
            within(pass.bound, changed, |changed| {
                let parts = pieces(PIECE, changed, read, &|_, changed, read| {
                    Outcome::of_update(update_slices(changed, read, entry))
                });
                parts.into_iter().sum()
            })
        }),
    }
}

fn raise<T: Real>(average: &mut [T], least: T) {
    for x in average {
        if x.abs() < least {
            *x = if *x < T::ZERO { -least } else { least };
        }
    }
}

/// Two passes: the running quantities and the norms of θ and r, then θ.
fn trusted<T: Real, R: Rule, const S: usize, const POWERS: bool>(
    pass: &Pass<'_>,
    slots: [&Tensor; S],
    entry: OneEntry<T, R, POWERS>,
) -> Result<Option<Outcome>> {
    let read = [pass.gradient, pass.value];
    let norms = with_slices(slots, read, |changed: [&mut [T]; S], read| {
        let parts = pieces(PIECE, changed, read, &|_, changed, read| {
            update_slices(changed, read, Norms(entry))
        });
        let add = |[a, b]: [f64; 2], [c, d]: [f64; 2]| [a + c, b + d];
        parts.into_iter().fold([0.0; 2], add).map(f64::sqrt)
    })?;
    let Some([value, direction]) = norms else {
        return Ok(None);
    };
    let rate = pass.step.lr * entry.rule.trust(value, direction);
    with_slices([pass.value], slots, |changed: [&mut [T]; 1], read| {
        within(pass.bound, changed, |changed| {
            let parts = pieces(PIECE, changed, read, &|_, changed, read| {
                Outcome::of_update(update_slices(changed, read, Trusted { entry, rate }))
            });
            parts.into_iter().sum()
        })
    })
}

/// A rule's update of one entry.
#[derive(Clone, Copy)]
struct OneEntry<T, R: Rule, const POWERS: bool> {
    rule: R,
    clip: Clip<T>,
    step: Step,
    scalars: R::Scalars,
}

// Functions of their own, not closures, which would be others for every rule.
#[inline(always)]
fn lanes<T, const N: usize, const POWERS: bool>(numbers: [T; N]) -> [Lane<T, POWERS>; N] {
    numbers.map(Lane)
}

#[inline(always)]
fn numbers<T, const N: usize, const POWERS: bool>(lanes: [Lane<T, POWERS>; N]) -> [T; N] {
    lanes.map(|lane| lane.0)
}

/// The change squared.
#[inline(always)]
fn moved<T: Real>(old: T, new: T) -> T {
    let change = new - old;
    change * change
}

impl<T: Real, R: Rule, const POWERS: bool> OneEntry<T, R, POWERS> {
    #[inline(always)]
    fn update<const N: usize>(
        &self,
        changed: [T; N],
        gradient: T,
        diagonal: Option<T>,
    ) -> ([T; N], [T; 2]) {
        let mut all = lanes::<T, N, POWERS>(changed);
        let (value, slots) = all.split_at_mut(1);
        if let Some(diagonal) = diagonal {
            self.rule.observe(Lane(diagonal), slots);
        }
        let old = value[0];
        let x = Entry {
            value: old,
            gradient: Lane(self.clip.of(gradient)),
            slots,
        };
        let new = self.rule.update(&self.step, self.scalars, x);
        let below = self.rule.below_eps(self.scalars, slots);
        value[0] = new;
        let below = below.map_or(T::ZERO, |below| below.0);
        (numbers(all), [moved(old.0, new.0), below])
    }
}

impl<T: Real, R: Rule, const N: usize, const POWERS: bool> Kernel<T, N, 1>
    for OneEntry<T, R, POWERS>
{
    #[inline(always)]
    fn entry(&self, changed: [T; N], [gradient]: [T; 1]) -> ([T; N], [T; 2]) {
        self.update(changed, gradient, None)
    }
}

impl<T: Real, R: Rule, const N: usize, const POWERS: bool> Kernel<T, N, 2>
    for OneEntry<T, R, POWERS>
{
    #[inline(always)]
    fn entry(&self, changed: [T; N], [gradient, diagonal]: [T; 2]) -> ([T; N], [T; 2]) {
        self.update(changed, gradient, Some(diagonal))
    }
}

/// The first pass of a rule with trust.
#[derive(Clone, Copy)]
struct Norms<E>(E);

impl<T: Real, R: Rule, const S: usize, const POWERS: bool> Kernel<T, S, 2>
    for Norms<OneEntry<T, R, POWERS>>
{
    #[inline(always)]
    fn entry(&self, slots: [T; S], [gradient, value]: [T; 2]) -> ([T; S], [T; 2]) {
        let entry = &self.0;
        let mut slots = lanes::<T, S, POWERS>(slots);
        let x = Entry {
            value: Lane(value),
            gradient: Lane(entry.clip.of(gradient)),
            slots: &mut slots,
        };
        let direction = entry.rule.update(&entry.step, entry.scalars, x).0;
        let squares = [value * value, direction * direction];
        (numbers(slots), squares)
    }
}

/// The second: θ - rate · r.
#[derive(Clone, Copy)]
struct Trusted<E> {
    entry: E,
    rate: f64,
}

impl<T: Real, R: Rule, const S: usize, const POWERS: bool> Kernel<T, 1, S>
    for Trusted<OneEntry<T, R, POWERS>>
{
    #[inline(always)]
    fn entry(&self, [value]: [T; 1], slots: [T; S]) -> ([T; 1], [T; 2]) {
        let OneEntry {
            rule,
            step,
            scalars,
            ..
        } = &self.entry;
        let (old, slots) = (Lane::<T, POWERS>(value), slots.map(Lane));
        // Building the optimizer has made sure that there is one.
        let direction = rule.direction(step, *scalars, old, &slots).unwrap_or(old);
        let new = (old - direction * self.rate).0;
        ([new], [moved(value, new), T::ZERO])
    }
}
