//! AdaHessian (Yao et al., AAAI 2021): Adam's form with the Hessian's diagonal in place of g².

use crate::block::{Block, Blocks};
use crate::curvature::hessian::Hessian;
use crate::curvature::hutchinson::{Hutchinson, Probe};
use crate::error::{Error, Result};
use crate::optim::first_order::{detached, expect_no_more, note_loss, replace, take_loss};
use crate::optim::group::{Resolved, fraction, not_negative};
use crate::optim::pending::{Skips, WeightedMean, clip, sum_of_squares};
use crate::optim::{Common, CurvatureInfo, Group, Optim, State, StepInfo};
use crate::vars::{NamedVars, VarVec, sum_f64};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

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

/// The running quantities of one variable.
#[derive(Clone)]
struct Slot {
    block: Block,
    /// m, not bias-corrected.
    exp_avg: Tensor,
    /// s, not bias-corrected.
    exp_hessian_diag_sq: Tensor,
    /// The last D, kept for [`Delay::Stale`] only.
    last: Option<Tensor>,
    /// Updates of m.
    count: u64,
    /// Updates of s.
    hessian_count: u64,
}

impl Slot {
    fn new(config: &AdaHessianBuilder, name: &str, var: &Var, settings: &Resolved) -> Result<Self> {
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
        self.hessian_count += 1;
        Ok(())
    }

    /// v + eps with v = (sqrt(s / (1-β2^t)))^k (Eq. 12), and v.
    fn denominator(&self, config: &AdaHessianBuilder) -> Result<(Tensor, Tensor)> {
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

/// The AdaHessian optimizer.
///
/// ```text
/// g = ∇L, z = ±1, D = z ⊙ ∇(g·z)          gradient, probe, diagonal (Eq. 8, 9)
/// D = average of D over each block           (Eq. 10)
/// m = β1 m + (1-β1) g;  s = β2 s + (1-β2) D²  (Eq. 11)
/// v = (sqrt(s / (1-β2^t)))^k                  (Eq. 12)
/// θ = θ - η ((m / (1-β1^t)) / (v + eps) + λ θ)
/// ```
///
/// The gradients must come from [`crate::backward`]; `backward_step` sees to it. Several samples and
/// micro-batches enter D as the mean of their signed z ⊙ Hz, each with its own Hessian, before
/// anything is squared. A step whose gradient or Hessian-vector product is not finite changes
/// nothing, is counted and reported.
pub struct AdaHessian {
    config: AdaHessianBuilder,
    vars: NamedVars,
    settings: Vec<Resolved>,
    slots: Vec<Slot>,
    gradient: WeightedMean,
    diagonal: WeightedMean,
    loss: WeightedMean,
    lr_factor: f64,
    step: u64,
    /// Whether the last step that should have computed D did.
    computed: bool,
    skips: Skips,
}

impl AdaHessian {
    /// The settings, to be changed and built.
    pub fn builder() -> AdaHessianBuilder {
        AdaHessianBuilder::default()
    }

    /// How many steps were skipped so far because something was not finite.
    pub fn skipped(&self) -> u64 {
        self.skips.total
    }

    /// As [`Optim::backward_step`]; here so that no trait need be imported, and so that importing
    /// both [`Optim`] and `candle_nn::Optimizer` is not ambiguous.
    ///
    /// # Errors
    /// See [`Optim::backward_step`].
    pub fn backward_step(&mut self, loss: &Tensor) -> Result<StepInfo> {
        Optim::backward_step(self, loss)
    }

    /// As [`Optim::step`]; the gradients must come from [`crate::backward`].
    ///
    /// # Errors
    /// See [`Optim::step`].
    pub fn step(&mut self, grads: &GradStore) -> Result<StepInfo> {
        Optim::step(self, grads)
    }

    /// As [`Optim::accumulate_curvature`], with given probes instead of drawn ones: to reproduce
    /// another program's run, or to share probes between processes.
    ///
    /// # Errors
    /// [`Error::NoGraph`] for gradients without graph.
    pub fn accumulate_probed(
        &mut self,
        grads: &GradStore,
        probes: &[VarVec],
        weight: f64,
    ) -> Result<()> {
        let hessian = Hessian::from_gradients(grads, &self.vars)?;
        for probe in probes {
            let products = hessian.product(probe)?;
            let pairs = products.into_iter().zip(probe.tensors());
            let diagonal = pairs.map(|(p, z)| p.map(|p| Ok((p * z)?)).transpose());
            let diagonal = diagonal.collect::<Result<_>>()?;
            self.diagonal.add(diagonal, weight / probes.len() as f64)?;
        }
        Ok(())
    }

    fn due(&self) -> bool {
        let config = &self.config;
        !self.computed || self.step < config.always_first || self.step.is_multiple_of(config.every)
    }

    /// Skips the step because the `what` of `name` is not finite.
    fn skip(&mut self, what: &'static str, name: String, mut info: StepInfo) -> Result<StepInfo> {
        self.computed &= !self.due();
        self.step += 1;
        let limit = self.config.common.max_skipped;
        self.skips.note(what, &name, info.step, limit)?;
        info.skipped = Some(name);
        Ok(info)
    }

    /// Averages the diagonal over blocks and adds it to s, for all variables that have one.
    fn take_curvature(&mut self, diagonals: Vec<Option<Tensor>>) -> Result<CurvatureInfo> {
        let mut statistics = Statistics::default();
        for (slot, diagonal) in self.slots.iter_mut().zip(diagonals) {
            let Some(diagonal) = diagonal else { continue };
            let averaged = slot.averaged(self.config.average, &diagonal)?;
            slot.add_diagonal(self.config.betas.1, &averaged)?;
            statistics.add(&averaged)?;
            if slot.last.is_some() {
                slot.last = Some(averaged);
            }
        }
        Ok(statistics.finish())
    }

    /// One variable's update; returns the squared norm of its change and how many of its entries
    /// have v below eps (counted on request).
    fn update(
        &mut self,
        index: usize,
        var: &Var,
        gradient: &Tensor,
        count: bool,
    ) -> Result<(f64, f64)> {
        let (beta1, settings) = (self.config.betas.0, &self.settings[index]);
        let slot = &mut self.slots[index];
        if slot.hessian_count == 0 {
            return Ok((0.0, 0.0)); // first reached between two computations of D: left alone till then
        }
        slot.exp_avg = ((&slot.exp_avg * beta1)? + (gradient * (1.0 - beta1))?)?;
        slot.count += 1;
        let (denominator, v) = slot.denominator(&self.config)?;
        let lr = self.config.common.lr * self.lr_factor * settings.lr_scale;
        let rate = lr / (1.0 - beta1.powi(slot.count as i32));
        // In this order, as PyTorch's addcdiv: a chaotic trajectory feels the last bit.
        let direction = ((&slot.exp_avg * rate)? / denominator)?;
        let theta = var.as_detached_tensor();
        let new = match settings.weight_decay == 0.0 {
            true => (theta - direction)?,
            false => ((theta * (1.0 - lr * settings.weight_decay))? - direction)?,
        };
        let below = match count {
            true => sum_f64(&v.lt(self.config.eps)?.to_dtype(DType::F32)?)?,
            false => 0.0,
        };
        Ok((replace(var, &new)?, below))
    }
}

/// Mean and maximum of |D| as it goes by.
#[derive(Default)]
struct Statistics {
    sum: f64,
    max: f64,
    entries: usize,
}

impl Statistics {
    fn add(&mut self, diagonal: &Tensor) -> Result<()> {
        let abs = diagonal.abs()?;
        self.sum += sum_f64(&abs)?;
        self.max = self
            .max
            .max(abs.max_all()?.to_dtype(DType::F64)?.to_scalar()?);
        self.entries += diagonal.elem_count();
        Ok(())
    }

    fn finish(self) -> CurvatureInfo {
        CurvatureInfo {
            mean_abs: self.sum / self.entries.max(1) as f64,
            max_abs: self.max,
            below_eps: 0.0,
        }
    }
}

impl Optim for AdaHessian {
    fn vars(&self) -> &NamedVars {
        &self.vars
    }

    fn needs_graph(&self) -> bool {
        self.due()
    }

    fn accumulate_gradient(&mut self, grads: &GradStore, weight: f64) -> Result<()> {
        note_loss(&mut self.loss, grads, weight)?;
        self.gradient.add(detached(grads, &self.vars), weight)
    }

    fn accumulate_curvature(&mut self, grads: &GradStore, weight: f64) -> Result<()> {
        if !self.due() {
            return Ok(());
        }
        let draw = Hutchinson::new(self.config.samples, self.config.seed)
            .with_probe(self.config.probe)
            .at(self.step);
        let probes = (0..draw.samples()).map(|sample| draw.probe(&self.vars, sample));
        self.accumulate_probed(grads, &probes.collect::<Result<Vec<_>>>()?, weight)
    }

    fn apply(&mut self) -> Result<StepInfo> {
        let due = self.due();
        if due && self.diagonal.is_empty() {
            return Err(Error::NoGraph);
        }
        let mut gradients = self.gradient.take()?;
        let diagonals = self.diagonal.take()?;
        let mut info = StepInfo {
            step: self.step,
            loss: take_loss(&mut self.loss)?,
            lr: Optim::lr(self),
            ..StepInfo::default()
        };
        match sum_of_squares(&self.vars, &gradients)? {
            Ok(squares) => info.gradient_norm = squares.sqrt(),
            Err(name) => return self.skip("gradient", name, info),
        }
        if let Err(name) = sum_of_squares(&self.vars, &diagonals)? {
            return self.skip("Hessian-vector product", name, info);
        }
        self.skips.in_a_row = 0;
        let (value, norm) = (self.config.common.clip_value, self.config.common.clip_norm);
        clip(&mut gradients, info.gradient_norm, value, norm)?;
        if due {
            info.curvature = Some(self.take_curvature(diagonals)?);
        } else if self.config.delay == Delay::Stale {
            self.repeat_curvature(&gradients)?;
        }
        self.update_all(&gradients, &mut info)?;
        self.computed |= due;
        self.step += 1;
        Ok(info)
    }

    fn discard(&mut self) {
        let count = self.vars.len();
        self.gradient = WeightedMean::new(count);
        self.diagonal = WeightedMean::new(count);
        self.loss = WeightedMean::new(1);
    }

    fn set_lr_factor(&mut self, factor: f64) {
        self.lr_factor = factor;
    }

    fn lr(&self) -> f64 {
        self.config.common.lr * self.lr_factor
    }

    fn state(&self) -> Result<State> {
        let mut state = State::of_kind("adahessian");
        state.put("step", self.step);
        state.put("computed", self.computed);
        state.put("skipped_in_a_row", self.skips.in_a_row);
        state.put("skipped", self.skips.total);
        for (name, slot) in self.vars.names().zip(&self.slots) {
            state.put(&format!("count.{name}"), slot.count);
            state.put(&format!("hessian_count.{name}"), slot.hessian_count);
            for (key, tensor) in slot.tensors() {
                state
                    .tensors
                    .insert(format!("{key}.{name}"), tensor.clone());
            }
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        state.expect_kind("adahessian")?;
        let mut slots = Vec::with_capacity(self.slots.len());
        for (name, old) in self.vars.names().zip(&self.slots) {
            slots.push(old.restored(name, state)?);
        }
        expect_no_more(state, self.slots.iter().map(|s| s.tensors().count()).sum())?;
        let (step, computed) = (state.value("step")?, state.value("computed")?);
        let skips = Skips {
            in_a_row: state.value("skipped_in_a_row")?,
            total: state.value("skipped")?,
        };
        (self.step, self.computed, self.skips, self.slots) = (step, computed, skips, slots);
        Ok(())
    }
}

impl AdaHessian {
    /// [`Delay::Stale`]: the last D once more, for the variables that step now.
    fn repeat_curvature(&mut self, gradients: &[Option<Tensor>]) -> Result<()> {
        for (slot, gradient) in self.slots.iter_mut().zip(gradients) {
            if let (Some(last), Some(_), true) =
                (slot.last.clone(), gradient, slot.hessian_count > 0)
            {
                slot.add_diagonal(self.config.betas.1, &last)?;
            }
        }
        Ok(())
    }

    fn update_all(&mut self, gradients: &[Option<Tensor>], info: &mut StepInfo) -> Result<()> {
        let vars = self.vars.clone();
        let (mut change, mut below, mut entries) = (0.0, 0.0, 0usize);
        for (index, ((_, var), gradient)) in vars.iter().zip(gradients).enumerate() {
            let Some(gradient) = gradient else { continue };
            let (squares, small) = self.update(index, var, gradient, info.curvature.is_some())?;
            change += squares;
            below += small;
            entries += var.elem_count();
        }
        info.update_norm = change.sqrt();
        if let Some(curvature) = &mut info.curvature {
            curvature.below_eps = below / entries.max(1) as f64;
        }
        Ok(())
    }
}

impl Slot {
    fn tensors(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let always = [
            ("exp_avg", &self.exp_avg),
            ("exp_hessian_diag_sq", &self.exp_hessian_diag_sq),
        ];
        always
            .into_iter()
            .chain(self.last.iter().map(|t| ("last_diagonal", t)))
    }

    /// This slot with the quantities that a state holds for it.
    fn restored(&self, name: &str, state: &State) -> Result<Self> {
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

/// So that a candle application changes one line. The variables get names by their position; their
/// order must be the same in every process that resumes a run (`VarMap::all_vars` is in no order:
/// prefer `AdaHessian::builder().build(&varmap)`).
impl candle_nn::Optimizer for AdaHessian {
    type Config = AdaHessianBuilder;

    fn new(vars: Vec<Var>, config: AdaHessianBuilder) -> candle_core::Result<Self> {
        let float = vars.into_iter().filter(|v| v.dtype().is_float());
        Ok(config.build(float.collect::<Vec<_>>())?)
    }

    fn step(&mut self, grads: &GradStore) -> candle_core::Result<()> {
        Ok(Optim::step(self, grads).map(drop)?)
    }

    fn learning_rate(&self) -> f64 {
        Optim::lr(self)
    }

    fn set_learning_rate(&mut self, lr: f64) {
        self.config.common.lr = lr;
        self.lr_factor = 1.0;
    }

    fn backward_step(&mut self, loss: &Tensor) -> candle_core::Result<()> {
        Ok(Optim::backward_step(self, loss).map(drop)?)
    }
}
