//! What AdaHessian keeps of one variable, and the statistics of its curvature.

use super::{AdaHessianBuilder, Average, Delay};
use crate::block::Block;
use crate::error::Result;
use crate::optim::group::Resolved;
use crate::optim::{CurvatureInfo, State};
use crate::vars::sum_f64;
use candle_core::{DType, Tensor, Var};

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
        let zeros = var.zeros_like()?.detach();
        Ok(Self {
            block,
            last: (config.delay == Delay::Stale).then(|| zeros.clone()),
            exp_avg: zeros.clone(),
            exp_hessian_diag_sq: zeros,
            count: 0,
            hessian_count: 0,
        })
    }

    /// D averaged over its blocks.
    pub fn averaged(&self, average: Average, diagonal: &Tensor) -> Result<Tensor> {
        match average {
            Average::Absolute => self.block.average(&diagonal.abs()?),
            Average::Signed => self.block.average(diagonal),
        }
    }

    /// s = β2 s + (1-β2) D² (Eq. 11).
    pub fn add_diagonal(&mut self, beta2: f64, diagonal: &Tensor) -> Result<()> {
        let new = (diagonal.sqr()? * (1.0 - beta2))?;
        self.exp_hessian_diag_sq = ((&self.exp_hessian_diag_sq * beta2)? + new)?;
        self.hessian_count += 1;
        Ok(())
    }

    /// v + eps with v = (sqrt(s / (1-β2^t)))^k (Eq. 12), and v.
    pub fn denominator(&self, config: &AdaHessianBuilder) -> Result<(Tensor, Tensor)> {
        let count = match config.delay {
            Delay::HoldTotalCount => self.count,
            _ => self.hessian_count,
        };
        let correction = 1.0 - config.betas.1.powi(count as i32);
        let root = (&self.exp_hessian_diag_sq / correction)?.sqrt()?;
        let v = match config.hessian_power == 1.0 {
            true => root,
            false => root.powf(config.hessian_power)?,
        };
        Ok(((&v + config.eps)?, v))
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

/// Mean and maximum of |D| as it goes by.
#[derive(Default)]
pub(super) struct Statistics {
    sum: f64,
    max: f64,
    entries: usize,
}

impl Statistics {
    pub fn add(&mut self, diagonal: &Tensor) -> Result<()> {
        let abs = diagonal.abs()?;
        self.sum += sum_f64(&abs)?;
        self.max = self
            .max
            .max(abs.max_all()?.to_dtype(DType::F64)?.to_scalar()?);
        self.entries += diagonal.elem_count();
        Ok(())
    }

    pub fn finish(self) -> CurvatureInfo {
        CurvatureInfo {
            mean_abs: self.sum / self.entries.max(1) as f64,
            max_abs: self.max,
            below_eps: 0.0,
        }
    }
}
