//! What AdaHessian keeps of one variable, and its step.

use super::{AdaHessianBuilder, Average, Delay, fused};
use crate::block::Block;
use crate::error::Result;
use crate::optim::first_order::{replace, zeros_for};
use crate::optim::group::Resolved;
use crate::optim::pending::Clipping;
use crate::optim::{CurvatureInfo, State};
use crate::second_order::versions;
use crate::vars::{sum_f64, widened};
use candle_core::{DType, Tensor, Var};
use std::iter::Sum;
use std::ops::AddAssign;

/// The running quantities of one variable.
#[derive(Clone)]
pub(super) struct Slot {
    pub block: Block,
    /// m, not bias-corrected.
    pub exp_avg: Tensor,
    /// s, not bias-corrected.
    pub exp_hessian_diag_sq: Tensor,
    /// The last D, kept for [`Delay::Stale`] only.
    pub last: Option<Tensor>,
    /// Updates of m.
    pub count: u64,
    /// Updates of s.
    pub hessian_count: u64,
}

impl Slot {
    pub fn new(
        config: &AdaHessianBuilder,
        name: &str,
        var: &Var,
        settings: &Resolved,
    ) -> Result<Self> {
        let block = match settings.block {
            Some(block) => {
                block.check(name, var.dims())?;
                block
            }
            None => config.blocks.resolve(name, var.dims())?,
        };
        let zeros = || zeros_for(var);
        Ok(Self {
            block,
            last: (config.delay == Delay::Stale).then(zeros).transpose()?,
            exp_avg: zeros()?,
            exp_hessian_diag_sq: zeros()?,
            count: 0,
            hessian_count: 0,
        })
    }

    /// Takes D, where this step has one, and a step with the gradient.
    pub fn step(
        &mut self,
        config: &AdaHessianBuilder,
        var: &Var,
        gradient: Option<&Tensor>,
        diagonal: Option<&Tensor>,
        rates: &Rates,
    ) -> Result<Outcome> {
        let gradient = self.advance(gradient, diagonal);
        if let Some(gradient) = gradient {
            // In half precision: computed with a copy in f32, and rounded once.
            let value = widened(&var.as_detached_tensor())?;
            versions::changed(var);
            let done = fused::step(self, config, &value, gradient, diagonal, rates)?;
            if let Some(mut outcome) = done {
                if value.dtype() != var.dtype() {
                    outcome.change_squared = replace(var, &value)?;
                }
                return Ok(outcome.with_updated(value.elem_count()));
            }
        }
        self.compose(config, var, gradient, diagonal, rates)
    }

    /// As [`Slot::step`], always with candle's operations.
    #[cfg(test)]
    pub fn step_composed(
        &mut self,
        config: &AdaHessianBuilder,
        var: &Var,
        gradient: Option<&Tensor>,
        diagonal: Option<&Tensor>,
        rates: &Rates,
    ) -> Result<Outcome> {
        let gradient = self.advance(gradient, diagonal);
        self.compose(config, var, gradient, diagonal, rates)
    }

    /// Counts the updates that are due; the gradient if m and θ are among them. A variable that is
    /// first reached between two computations of D is left alone till the next.
    fn advance<'a>(
        &mut self,
        gradient: Option<&'a Tensor>,
        diagonal: Option<&Tensor>,
    ) -> Option<&'a Tensor> {
        let repeats = self.last.is_some() && gradient.is_some() && self.hessian_count > 0;
        self.hessian_count += u64::from(diagonal.is_some() || repeats);
        let gradient = gradient.filter(|_| self.hessian_count > 0);
        self.count += u64::from(gradient.is_some());
        gradient
    }

    fn compose(
        &mut self,
        config: &AdaHessianBuilder,
        var: &Var,
        gradient: Option<&Tensor>,
        diagonal: Option<&Tensor>,
        rates: &Rates,
    ) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        if let Some(diagonal) = diagonal {
            let averaged = self.averaged(config.average, diagonal)?;
            self.add_diagonal(config.betas.1, &averaged)?;
            outcome = Outcome::of_diagonal(&averaged)?;
            if self.last.is_some() {
                self.last = Some(averaged);
            }
        } else if let (Some(last), true) = (self.last.clone(), gradient.is_some()) {
            self.add_diagonal(config.betas.1, &last)?;
        }
        let Some(gradient) = gradient else {
            return Ok(outcome);
        };
        let beta1 = config.betas.0;
        let gradient = rates.clipping.clip(gradient)?;
        self.exp_avg = ((&self.exp_avg * beta1)? + (gradient * (1.0 - beta1))?)?;
        let root = self.root(config)?;
        let v = match config.hessian_power == 1.0 {
            true => root,
            false => root.powf(config.hessian_power)?,
        };
        // In this order, as PyTorch's addcdiv: a chaotic trajectory feels the last bit.
        let rate = self.rate(config, rates);
        let direction = ((&self.exp_avg * rate)? / (&v + config.eps)?)?;
        let theta = widened(&var.as_detached_tensor())?;
        let new = match rates.shrink() {
            None => (theta - direction)?,
            Some(shrink) => ((theta * shrink)? - direction)?,
        };
        if diagonal.is_some() {
            outcome.below_eps = sum_f64(&v.lt(config.eps)?.to_dtype(DType::F32)?)?;
        }
        outcome.change_squared = replace(var, &new)?;
        Ok(outcome.with_updated(var.elem_count()))
    }

    /// D averaged over its blocks.
    fn averaged(&self, average: Average, diagonal: &Tensor) -> Result<Tensor> {
        match average {
            Average::Absolute => self.block.average(&diagonal.abs()?),
            Average::Signed => self.block.average(diagonal),
        }
    }

    /// s = β2 s + (1-β2) D² (Eq. 11).
    fn add_diagonal(&mut self, beta2: f64, diagonal: &Tensor) -> Result<()> {
        let new = (diagonal.sqr()? * (1.0 - beta2))?;
        self.exp_hessian_diag_sq = ((&self.exp_hessian_diag_sq * beta2)? + new)?;
        Ok(())
    }

    /// sqrt(s / (1-β2ᵗ)); zero where there was no D yet.
    pub fn root(&self, config: &AdaHessianBuilder) -> Result<Tensor> {
        match self.hessian_count {
            0 => Ok(self.exp_hessian_diag_sq.copy()?),
            _ => Ok((&self.exp_hessian_diag_sq / self.correction(config))?.sqrt()?),
        }
    }

    /// 1-β2ᵗ, which corrects the bias of s.
    pub fn correction(&self, config: &AdaHessianBuilder) -> f64 {
        let count = match config.delay {
            Delay::HoldTotalCount => self.count,
            _ => self.hessian_count,
        };
        1.0 - config.betas.1.powi(count as i32)
    }

    /// η / (1-β1ᵗ).
    pub fn rate(&self, config: &AdaHessianBuilder, rates: &Rates) -> f64 {
        rates.lr / (1.0 - config.betas.0.powi(self.count as i32))
    }
}

impl Slot {
    pub fn tensors(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let always = [
            ("exp_avg", &self.exp_avg),
            ("exp_hessian_diag_sq", &self.exp_hessian_diag_sq),
        ];
        always
            .into_iter()
            .chain(self.last.iter().map(|t| ("last_diagonal", t)))
    }

    /// This slot with the quantities that a state holds for it.
    pub fn restored(&self, name: &str, state: &State) -> Result<Self> {
        let tensor = |key: &str| state.tensor_like(&format!("{key}.{name}"), &self.exp_avg);
        Ok(Self {
            block: self.block,
            exp_avg: tensor("exp_avg")?,
            exp_hessian_diag_sq: tensor("exp_hessian_diag_sq")?,
            last: self
                .last
                .as_ref()
                .map(|_| tensor("last_diagonal"))
                .transpose()?,
            count: state.value(&format!("count.{name}"))?,
            hessian_count: state.value(&format!("hessian_count.{name}"))?,
        })
    }
}

/// What a step needs beyond the optimizer's settings.
pub(super) struct Rates {
    /// η of this variable.
    pub lr: f64,
    /// λ.
    pub weight_decay: f64,
    /// What is done to the gradient first.
    pub clipping: Clipping,
}

impl Rates {
    /// 1 - ηλ where there is decay.
    pub fn shrink(&self) -> Option<f64> {
        (self.weight_decay != 0.0).then_some(1.0 - self.lr * self.weight_decay)
    }
}

/// What a step did, of one variable or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// The squared norm of the change.
    pub change_squared: f64,
    /// How many entries were updated, and how many of them have v below eps.
    pub updated: usize,
    pub below_eps: f64,
    /// The sum and the largest of |D|, and its number of entries.
    pub abs_sum: f64,
    pub abs_max: f64,
    pub entries: usize,
}

impl Outcome {
    /// From the sums of an update: of squared changes, and of entries below eps.
    pub fn of_update([change_squared, below_eps]: [f64; 2]) -> Self {
        Self {
            change_squared,
            below_eps,
            ..Self::default()
        }
    }

    fn of_diagonal(diagonal: &Tensor) -> Result<Self> {
        let abs = diagonal.abs()?;
        Ok(Self {
            abs_sum: sum_f64(&abs)?,
            abs_max: abs.max_all()?.to_dtype(DType::F64)?.to_scalar()?,
            entries: diagonal.elem_count(),
            ..Self::default()
        })
    }

    fn with_updated(self, updated: usize) -> Self {
        Self { updated, ..self }
    }

    pub fn curvature(&self) -> CurvatureInfo {
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
