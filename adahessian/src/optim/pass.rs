//! One variable's step, from its rule: in one pass over memory, or of candle's operations.

use super::bound::{self, StepBound, within};
use super::number::{Expr, Lane};
use super::pending::Clipping;
use super::rule::{Entry, Rule, Step};
use super::{Average, CurvatureInfo};
use crate::block::Block;
use crate::error::Result;
use crate::numeric::in_place::{
    Averaging, Clip, Entry as Kernel, PIECE, pieces, sizes, update_slices, with_slices,
};
use crate::numeric::{Buffer, ByType, Real, by_type};
use crate::numeric::{Totals, largest_entry as largest, sum_f64};
use candle_core::Tensor;
use std::iter::Sum;
use std::ops::AddAssign;

/// D of one variable, and what is averaged in it.
#[derive(Clone)]
pub(crate) struct Diagonal {
    pub tensor: Tensor,
    pub block: Block,
    pub average: Average,
    /// The least of the averaged D, as a share of the mean of |D| over the variable.
    pub floor: f64,
}

impl Diagonal {
    /// D averaged over its blocks, and not below its floor.
    pub fn averaged(&self) -> Result<Tensor> {
        let averaged = match self.average {
            Average::Absolute => self.block.average(&self.tensor.abs()?)?,
            Average::Signed => self.block.average(&self.tensor)?,
        };
        if self.floor == 0.0 {
            return Ok(averaged);
        }
        let mean = sum_f64(&self.tensor.abs()?)? / self.tensor.elem_count().max(1) as f64;
        Ok(averaged.maximum(self.floor * mean)?)
    }

    /// The least that the averaged D may be.
    fn least<T: Real>(&self, diagonal: &[T]) -> Option<T> {
        if self.floor == 0.0 {
            return None;
        }
        let sums = pieces(PIECE, [], [diagonal], |_, [], [part]| sizes(part)[0]);
        let mean = sums.iter().sum::<f64>() / diagonal.len() as f64;
        Some(T::from_f64(self.floor * mean))
    }

    fn averaging(&self) -> Averaging {
        Averaging {
            run: self.block.run(self.tensor.dims()).max(1),
            absolute: self.average == Average::Absolute,
        }
    }
}

/// What a step sees of one variable.
pub struct Pass<'a> {
    pub(crate) value: &'a Tensor,
    /// Not clipped yet.
    pub(crate) gradient: &'a Tensor,
    pub(crate) clipping: Clipping,
    pub(crate) diagonal: Option<&'a Diagonal>,
    pub(crate) step: Step,
    pub(crate) bound: Option<StepBound>,
}

/// What a step did, of one variable or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The squared norm of the change.
    pub(crate) change_squared: f64,
    /// How many variables the bound of the step has held back.
    pub(crate) bounded: usize,
    /// How many entries were updated, and how many of them have a denominator below eps.
    pub(crate) updated: usize,
    pub(crate) below_eps: f64,
    /// The sum and the largest of |D|, and its number of entries.
    pub(crate) abs_sum: f64,
    pub(crate) abs_max: f64,
    pub(crate) entries: usize,
}

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
                    let parts = pieces(averaging.piece(), changed, read, piece);
                    parts.into_iter().sum()
                })
            })
        }
        _ => with_slices(all, [pass.gradient], |changed: [&mut [T]; N], read| {
            within(pass.bound, changed, |changed| {
                let parts = pieces(PIECE, changed, read, |_, changed, read| {
                    Outcome::of_update(update_slices(changed, read, entry))
                });
                parts.into_iter().sum()
            })
        }),
    }
}

fn raise<T: Real>(average: &mut [T], least: T) {
    for x in average {
        if *x < least {
            *x = least;
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
        let parts = pieces(PIECE, changed, read, |_, changed, read| {
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
            let parts = pieces(PIECE, changed, read, |_, changed, read| {
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
        let mut all = changed.map(Lane::<T, POWERS>);
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
        (all.map(|lane| lane.0), [moved(old.0, new.0), below])
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
        let mut slots = slots.map(Lane::<T, POWERS>);
        let x = Entry {
            value: Lane(value),
            gradient: Lane(entry.clip.of(gradient)),
            slots: &mut slots,
        };
        let direction = entry.rule.update(&entry.step, entry.scalars, x).0;
        let squares = [value * value, direction * direction];
        (slots.map(|lane| lane.0), squares)
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
        let direction = rule.direction(step, *scalars, old, &slots);
        let new = (old - direction * self.rate).0;
        ([new], [moved(value, new), T::ZERO])
    }
}

/// What a step of candle's operations gives.
pub(crate) struct Composed {
    pub value: Tensor,
    pub bounded: usize,
    pub slots: Vec<Tensor>,
}

/// Sums of what candle's operations did, which wait on their device until all variables are done.
#[derive(Default)]
pub(crate) struct Later {
    totals: Totals,
    to: Vec<fn(&mut Outcome, f64)>,
}

impl Later {
    /// Adds the sum of a tensor's entries, and where it goes.
    pub fn add(&mut self, tensor: &Tensor, to: fn(&mut Outcome, f64)) -> Result<()> {
        self.to.push(to);
        self.totals.add(tensor)
    }

    /// Adds all of them to an outcome.
    pub fn settle(self, outcome: &mut Outcome) -> Result<()> {
        let sums = self.totals.read()?;
        self.to
            .into_iter()
            .zip(sums)
            .for_each(|(to, sum)| to(outcome, sum));
        Ok(())
    }
}

/// The running quantities with D, which is averaged already.
pub(crate) fn observed<R: Rule>(rule: &R, slots: &[Tensor], d: &Tensor) -> Result<Vec<Tensor>> {
    let mut slots: Vec<_> = slots.iter().map(Expr::of).collect();
    rule.observe(Expr::of(d), &mut slots);
    slots.into_iter().map(Expr::tensor).collect()
}

/// The step of candle's operations, after D was observed. The shares below eps are a sum of their own:
/// computed on request.
pub(crate) fn composed<R: Rule>(
    rule: &R,
    pass: &Pass<'_>,
    slots: &[Tensor],
    below: bool,
    later: &mut Later,
) -> Result<Composed> {
    let scalars = rule.scalars(&pass.step);
    let mut slots: Vec<_> = slots.iter().map(Expr::of).collect();
    let x = Entry {
        value: Expr::of(pass.value),
        gradient: Expr::of(&pass.clipping.clip(pass.gradient)?),
        slots: &mut slots,
    };
    let mut value = rule.update(&pass.step, scalars, x).tensor()?;
    if R::TRUST {
        let norms = [pass.value, &value].map(|t| Ok(sum_f64(&t.sqr()?)?.sqrt()));
        let [of_value, of_direction]: [Result<f64>; 2] = norms;
        let rate = pass.step.lr * rule.trust(of_value?, of_direction?);
        value = (pass.value - (value * rate)?)?;
    }
    let (value, bounded) = bound::composed(pass.bound, pass.value, value)?;
    let below = match below {
        true => rule.below_eps(scalars, &slots),
        false => None,
    };
    if let Some(below) = below {
        later.add(&below.tensor()?, |to, sum| to.below_eps += sum)?;
    }
    Ok(Composed {
        value,
        bounded,
        slots: slots.into_iter().map(Expr::tensor).collect::<Result<_>>()?,
    })
}

/// The curvature in force, where the rule keeps one.
pub(crate) fn curvature<R: Rule>(
    rule: &R,
    slots: &[Tensor],
    step: &Step,
) -> Result<Option<Tensor>> {
    let slots: Vec<_> = slots.iter().map(Expr::of).collect();
    let curvature = rule.curvature(rule.scalars(step), &slots);
    curvature.map(Expr::tensor).transpose()
}

impl Outcome {
    /// From the sums of an update: of squared changes, and of entries below eps.
    fn of_update([change_squared, below_eps]: [f64; 2]) -> Self {
        Self {
            change_squared,
            below_eps,
            ..Self::default()
        }
    }

    pub(crate) fn of_diagonal(averaged: &Tensor, later: &mut Later) -> Result<Self> {
        let abs = averaged.abs()?;
        later.add(&abs, |to, sum| to.abs_sum += sum)?;
        later.add(&largest(&abs)?, |to, max| to.abs_max = to.abs_max.max(max))?;
        Ok(Self {
            entries: averaged.elem_count(),
            ..Self::default()
        })
    }

    /// Notes how many entries were updated.
    pub(crate) fn count_updated(&mut self, entries: usize) {
        self.updated += entries;
    }

    /// Of a step that took the last D once more.
    pub(crate) fn without_diagonal(self) -> Self {
        Self {
            abs_sum: 0.0,
            abs_max: 0.0,
            entries: 0,
            ..self
        }
    }

    pub(crate) fn curvature(&self) -> CurvatureInfo {
        CurvatureInfo {
            mean_abs: self.abs_sum / self.entries.max(1) as f64,
            max_abs: self.abs_max,
            below_eps: self.below_eps / self.updated.max(1) as f64,
        }
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.change_squared += other.change_squared;
        self.bounded += other.bounded;
        self.updated += other.updated;
        self.below_eps += other.below_eps;
        self.abs_sum += other.abs_sum;
        self.abs_max = self.abs_max.max(other.abs_max);
        self.entries += other.entries;
    }
}

impl Sum for Outcome {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        let mut all = Self::default();
        parts.for_each(|part| all += part);
        all
    }
}
