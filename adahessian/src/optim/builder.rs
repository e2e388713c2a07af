//! The settings of an optimizer.

use super::bound::StepBound;
use super::group::{Common, Group, not_negative};
use super::number::Lane;
use super::optimizer::Optimizer;
use super::rule::{Rule, Step};
use crate::block::Blocks;
use crate::curvature::hutchinson::Probe;
use crate::error::{Error, Result};
use crate::vars::NamedVars;

/// What is averaged over a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Average {
    /// |D|, as in the published code of AdaHessian, which made the published results.
    #[default]
    Absolute,
    /// D with its sign, as in AdaHessian's Eq. 10, and in Sophia.
    Signed,
}

/// What happens to the running mean of D (or of D²) on the steps between two computations of D.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delay {
    /// The mean and the count of its bias correction stand still: the mean of what was computed,
    /// rightly corrected.
    #[default]
    Hold,
    /// The mean stands still, its bias correction counts all steps.
    HoldTotalCount,
    /// The last D enters again on every step.
    Stale,
}

/// How the Hessian's diagonal D is estimated, for the rules that ask for it: one Rademacher sample on
/// every step without averaging, unless the rule has defaults of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Curvature {
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
    /// The least magnitude of the averaged D, which keeps its sign, as a share of the mean of |D| over the
    /// variable; 0 for none. A single probe comes out near zero somewhere, and with a D of which many steps are made the step is long there.
    pub floor: f64,
    /// The seed of the probes.
    pub seed: u64,
}

impl Default for Curvature {
    fn default() -> Self {
        Self {
            samples: 1,
            probe: Probe::Rademacher,
            every: 1,
            always_first: 0,
            delay: Delay::Hold,
            average: Average::Absolute,
            blocks: Blocks::single(),
            floor: 0.0,
            seed: 0,
        }
    }
}

impl Curvature {
    fn check(&self) -> Result<()> {
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
        not_negative("floor of the curvature", self.floor)
    }
}

/// An optimizer's settings: the rule's own, those that all optimizers share, and how the Hessian's
/// diagonal is estimated where the rule asks for it.
///
/// ```
/// use adahessian::{AdaHessian, AdamW, Blocks, Rule};
/// # use candle_core::{Device, Var};
/// # let vars = vec![Var::new(&[1f32, 2.0], &Device::Cpu)?];
/// let adamw = AdamW::default().lr(1e-3).weight_decay(0.01).build(vars.clone())?;
/// let adahessian = AdaHessian::builder().blocks(Blocks::spatial()).every(5).build(vars)?;
/// # Ok::<(), adahessian::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder<R> {
    /// The rule, with its settings.
    pub rule: R,
    /// Learning rate, weight decay, groups, clipping of the gradient, tolerance of skips.
    pub common: Common,
    /// The estimate of D.
    pub curvature: Curvature,
}

impl<R: Rule> Builder<R> {
    /// A rule with the default settings of all optimizers.
    pub fn new(rule: R) -> Self {
        Self {
            rule,
            common: Common::default(),
            curvature: Curvature::default(),
        }
    }

    /// The learning rate η.
    pub fn lr(mut self, lr: f64) -> Self {
        self.common.lr = lr;
        self
    }

    /// The weight decay λ; whether it is decoupled is the rule's nature.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.common.weight_decay = decay;
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

    /// Limits every entry of the gradient to this absolute value, before its norm.
    pub fn clip_value(mut self, value: f64) -> Self {
        self.common.clip_value = Some(value);
        self
    }

    /// Limits how far a step moves each variable, relative to it: τ of [`StepBound`], or a bound as
    /// [`StepBound::of_run`].
    pub fn bound(mut self, bound: impl Into<StepBound>) -> Self {
        self.common.bound = Some(bound.into());
        self
    }

    /// How many steps in a row with something that is not finite are skipped; one more is an error.
    pub fn max_skipped(mut self, steps: u32) -> Self {
        self.common.max_skipped = steps;
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

    /// How many probes a step averages.
    pub fn samples(mut self, samples: usize) -> Self {
        self.curvature.samples = samples;
        self
    }

    /// The distribution of the probes.
    pub fn probe(mut self, probe: Probe) -> Self {
        self.curvature.probe = probe;
        self
    }

    /// Computes the Hessian's diagonal only on every f-th step (AdaHessian's paper, Table 8). Every fifth is about half of
    /// a step's time and costs a point, or one and a half, where it was measured here (`docs/RESULTS.md`). Entries that no Hessian has
    /// seen wait for one: [`crate::Unseen`].
    pub fn every(mut self, steps: u64) -> Self {
        self.curvature.every = steps;
        self
    }

    /// Computes it on each of the first steps all the same.
    pub fn always_first(mut self, steps: u64) -> Self {
        self.curvature.always_first = steps;
        self
    }

    /// What happens between two computations.
    pub fn delay(mut self, delay: Delay) -> Self {
        self.curvature.delay = delay;
        self
    }

    /// What is averaged over a block.
    pub fn average(mut self, average: Average) -> Self {
        self.curvature.average = average;
        self
    }

    /// Which entries share a block.
    pub fn blocks(mut self, blocks: Blocks) -> Self {
        self.curvature.blocks = blocks;
        self
    }

    /// The least magnitude of the averaged D, as a share of its variable's mean of |D|.
    pub fn floor(mut self, share: f64) -> Self {
        self.curvature.floor = share;
        self
    }

    /// The seed of the probes.
    pub fn seed(mut self, seed: u64) -> Self {
        self.curvature.seed = seed;
        self
    }

    /// The optimizer of these variables: a `&VarMap`, a `&NamedVars` or a `Vec<Var>`. Those of a vector have names by their
    /// place, by which probes are drawn and a saved state finds its variables, so that their order has to be the same in
    /// every process. `VarMap::all_vars` is in no order: give the map itself.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting out of range, one of the Hessian's with a rule that has no use
    /// for it (a group's block alone has none there, and is passed over), or a group that matches nothing; [`Error::Variable`] for a block that does not fit its variable.
    pub fn build(self, vars: impl Into<NamedVars>) -> Result<Optimizer<R>> {
        self.rule.check()?;
        check_trust(&self.rule)?;
        self.curvature.check()?;
        if !R::SECOND_ORDER && self.curvature != Curvature::default() {
            return Err(Error::Setting {
                what: "settings of the Hessian",
                expected: "a rule that asks for it".into(),
                got: R::NAME.into(),
            });
        }
        Optimizer::new(self, &vars.into())
    }
}

/// That a rule with trust says what its direction is.
fn check_trust<R: Rule>(rule: &R) -> Result<()> {
    let step = Step {
        lr: 1.0,
        weight_decay: 0.0,
        count: 1,
        diagonal_count: 1,
    };
    let numbers = vec![Lane::<f64, true>(1.0); rule.slots().len()];
    let direction = rule.direction(&step, rule.scalars(&step), Lane(1.0), &numbers);
    match R::TRUST && direction.is_none() {
        true => Err(Error::Setting {
            what: "rule with trust",
            expected: "its `direction`".into(),
            got: format!("`{}` without one", R::NAME),
        }),
        false => Ok(()),
    }
}
