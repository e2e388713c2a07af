//! One variable's step, from its rule: in one pass over memory, or of candle's operations.

mod composed;
mod diagonal;
mod in_place;

use super::CurvatureInfo;
use super::bound::StepBound;
use super::pending::Clipping;
use super::rule::Step;
use crate::error::Result;
use crate::numeric::largest_entry as largest;
use candle_core::Tensor;
use std::iter::Sum;
use std::ops::AddAssign;

pub(crate) use composed::{Later, composed, curvature, observed};
pub(crate) use diagonal::Diagonal;
pub(crate) use in_place::in_place;

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
    /// How many entries were updated with a new D, and how many of them have a denominator below eps.
    pub(crate) updated: usize,
    pub(crate) below_eps: f64,
    /// The sum and the largest of |D|, and its number of entries.
    pub(crate) abs_sum: f64,
    pub(crate) abs_max: f64,
    pub(crate) entries: usize,
}

impl Outcome {
    /// From the sums of an update: of squared changes, and of entries below eps.
    pub(super) fn of_update([change_squared, below_eps]: [f64; 2]) -> Self {
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

    /// Notes how many entries were updated with a new D.
    pub(crate) fn count_updated(&mut self, entries: usize) {
        self.updated += entries;
    }

    /// Of a step that took no D, or the last one once more.
    pub(crate) fn without_diagonal(self) -> Self {
        Self {
            updated: 0,
            below_eps: 0.0,
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
