//! The settings of AdaHessian.

use super::AdaHessian;
use super::slot::Slot;
use crate::block::Blocks;
use crate::curvature::hutchinson::Probe;
use crate::error::{Error, Result};
use crate::optim::group::{fraction, not_negative};
use crate::optim::pending::{Skips, WeightedMean};
use crate::optim::{Common, Group};
use crate::vars::NamedVars;

/// What is averaged over a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Average {
    /// |D|, as in the published code, which made the published results.
    #[default]
    Absolute,
    /// D with its sign, as in the paper's Eq. 10.
    Signed,
}

/// What happens to the running mean s of D² on the steps between two computations of D.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delay {
    /// s and the count of its bias correction stand still: the mean of what was computed, rightly
    /// corrected.
    #[default]
    Hold,
    /// s stands still, its bias correction counts all steps.
    HoldTotalCount,
    /// The last D enters s again on every step.
    Stale,
}

/// The settings of [`AdaHessian`], with the defaults of the published code: η 0.15, β (0.9, 0.999),
/// eps 1e-4, no decay, k 1, one Rademacher sample, the Hessian on every step, no averaging.
#[derive(Clone, Debug)]
pub struct AdaHessianBuilder {
    /// Learning rate, decoupled weight decay, groups, clipping of the gradient, tolerance of skips.
    pub common: Common,
    /// (β1, β2): decays of the means of g and of D².
    pub betas: (f64, f64),
    /// Added to the denominator, after the bias correction and outside of the power.
    pub eps: f64,
    /// The Hessian power k in 0..=1 (Eq. 12): 1 is Newton-like, 0 is momentum.
    pub hessian_power: f64,
    /// How many probes a step averages.
    pub samples: usize,
    /// The distribution of the probes.
    pub probe: Probe,
    /// D is computed on every step whose number, from 0, is a multiple of this.
    pub every: u64,
    /// D is computed on each of the first so many steps, whatever `every` says.
    pub always_first: u64,
    /// What happens between two computations.
    pub delay: Delay,
    /// What is averaged over a block.
    pub average: Average,
    /// Which entries share a block.
    pub blocks: Blocks,
    /// The seed of the probes.
    pub seed: u64,
}

impl Default for AdaHessianBuilder {
    fn default() -> Self {
        Self {
            common: Common::new(0.15),
            betas: (0.9, 0.999),
            eps: 1e-4,
            hessian_power: 1.0,
            samples: 1,
            probe: Probe::Rademacher,
            every: 1,
            always_first: 0,
            delay: Delay::Hold,
            average: Average::Absolute,
            blocks: Blocks::single(),
            seed: 0,
        }
    }
}

impl AdaHessianBuilder {
    /// The learning rate η.
    pub fn lr(mut self, lr: f64) -> Self {
        self.common.lr = lr;
        self
    }

    /// (β1, β2).
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        self.betas = (beta1, beta2);
        self
    }

    /// The number added to the denominator.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// The decoupled weight decay λ: θ shrinks by the factor 1 - ηλ each step.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.common.weight_decay = decay;
        self
    }

    /// The Hessian power k.
    pub fn hessian_power(mut self, power: f64) -> Self {
        self.hessian_power = power;
        self
    }

    /// How many probes a step averages.
    pub fn samples(mut self, samples: usize) -> Self {
        self.samples = samples;
        self
    }

    /// Computes the Hessian's diagonal only on every f-th step (paper, Table 8: a fifth of the cost,
    /// the same result).
    pub fn every(mut self, steps: u64) -> Self {
        self.every = steps;
        self
    }

    /// Computes it on each of the first steps all the same.
    pub fn always_first(mut self, steps: u64) -> Self {
        self.always_first = steps;
        self
    }

    /// What happens between two computations.
    pub fn delay(mut self, delay: Delay) -> Self {
        self.delay = delay;
        self
    }

    /// What is averaged over a block.
    pub fn average(mut self, average: Average) -> Self {
        self.average = average;
        self
    }

    /// Which entries share a block.
    pub fn blocks(mut self, blocks: Blocks) -> Self {
        self.blocks = blocks;
        self
    }

    /// The seed of the probes.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Groups of variables with settings of their own.
    pub fn groups(mut self, groups: Vec<Group>) -> Self {
        self.common.groups = groups;
        self
    }

    /// Scales a gradient down to this norm.
    pub fn clip_norm(mut self, norm: f64) -> Self {
        self.common.clip_norm = Some(norm);
        self
    }

    /// Variables that the first step need not reach, see [`Common::allow_unreached`].
    pub fn allow_unreached(
        mut self,
        patterns: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.common.allow_unreached = patterns.into_iter().map(Into::into).collect();
        self
    }

    fn check(&self) -> Result<()> {
        fraction("beta1", self.betas.0)?;
        fraction("beta2", self.betas.1)?;
        not_negative("eps", self.eps)?;
        let at_least_one = |what, n: u64| match n {
            0 => Err(Error::Setting {
                what,
                expected: "at least 1".into(),
                got: "0".into(),
            }),
            _ => Ok(()),
        };
        at_least_one("samples", self.samples as u64)?;
        at_least_one("every", self.every)?;
        match (0.0..=1.0).contains(&self.hessian_power) {
            true => Ok(()),
            false => Err(Error::Setting {
                what: "hessian_power",
                expected: "a number in 0..=1".into(),
                got: self.hessian_power.to_string(),
            }),
        }
    }

    /// The optimizer of these variables (a `&VarMap`, a `&NamedVars` or a `Vec<Var>`).
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting out of range, [`Error::Variable`] for a block that does not
    /// fit its variable.
    pub fn build(self, vars: impl Into<NamedVars>) -> Result<AdaHessian> {
        self.check()?;
        let (vars, settings) = self.common.resolve(&vars.into())?;
        let mut slots = Vec::with_capacity(vars.len());
        for ((name, var), settings) in vars.iter().zip(&settings) {
            slots.push(Slot::new(&self, name, var, settings)?);
        }
        Ok(AdaHessian {
            gradient: WeightedMean::new(vars.len()),
            diagonal: WeightedMean::new(vars.len()),
            loss: WeightedMean::new(1),
            config: self,
            settings,
            slots,
            vars,
            lr_factor: 1.0,
            step: 0,
            computed: false,
            skips: Skips::default(),
        })
    }
}
