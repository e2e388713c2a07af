//! AdaHessian (Yao et al., AAAI 2021): Adam's form with the Hessian's diagonal in place of g².

mod builder;
mod fused;
mod slot;
#[cfg(test)]
mod tests;

pub use builder::{AdaHessianBuilder, Average, Delay};

use crate::curvature::hessian::Hessian;
use crate::curvature::hutchinson::Hutchinson;
use crate::error::{Error, Result};
use crate::optim::first_order::{detached, expect_no_more, note_loss, take_loss};
use crate::optim::group::Resolved;
use crate::optim::in_place;
use crate::optim::pending::{Clipping, Range, Skips, WeightedMean, reach, sum_of_squares};
use crate::optim::{Optim, Reach, State, StepInfo};
use crate::vars::{NamedVars, VarVec};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use slot::{Outcome, Rates, Slot};

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

    /// The curvature in force: sqrt(s / (1-β2ᵗ)), the root mean square of D, averaged over blocks; in
    /// f32 for variables in half precision. What the step divides by is its power k, and eps. Zero where
    /// none was computed yet.
    ///
    /// # Errors
    /// If candle fails.
    pub fn diagonal(&self) -> Result<VarVec> {
        let roots = self.slots.iter().map(|slot| slot.root(&self.config));
        VarVec::new(&self.vars, roots.collect::<Result<_>>()?)
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

    /// The update of all variables that have a gradient or a diagonal.
    fn update_all(
        &mut self,
        gradients: &[Option<Tensor>],
        diagonals: &[Option<Tensor>],
        clipping: Clipping,
    ) -> Result<Outcome> {
        let lr = self.config.common.lr * self.lr_factor;
        let given = gradients.iter().zip(diagonals);
        let slots = self.slots.iter_mut().zip(&self.settings);
        let mut outcome = Outcome::default();
        for (((_, var), (slot, settings)), (gradient, diagonal)) in
            self.vars.iter().zip(slots).zip(given)
        {
            let rates = Rates {
                lr: lr * settings.lr_scale,
                weight_decay: settings.weight_decay,
                clipping,
            };
            let (gradient, diagonal) = (gradient.as_ref(), diagonal.as_ref());
            outcome += slot.step(&self.config, var, gradient, diagonal, &rates)?;
        }
        Ok(outcome)
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

    fn accumulate_probed(
        &mut self,
        grads: &GradStore,
        probes: &[VarVec],
        weight: f64,
    ) -> Result<()> {
        if probes.is_empty() {
            return Err(Error::Setting {
                what: "probes",
                expected: "at least one".into(),
                got: "none".into(),
            });
        }
        let hessian = Hessian::from_gradients(grads, &self.vars)?;
        for probe in probes {
            let products = hessian.product(probe)?;
            let pairs = products.into_iter().zip(probe.tensors());
            let diagonal = pairs.map(|(p, z)| p.map(|p| in_place::product(&p, z)).transpose());
            let diagonal = diagonal.collect::<Result<_>>()?;
            self.diagonal.add(diagonal, weight / probes.len() as f64)?;
        }
        Ok(())
    }

    fn reach(&self) -> Reach {
        reach(&self.vars, &self.settings, &self.gradient, self.step == 0)
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

    fn check_ready(&self) -> Result<()> {
        match self.due() && self.diagonal.is_empty() {
            true => Err(Error::NoGraph),
            false => Ok(()),
        }
    }

    fn update(&mut self) -> Result<StepInfo> {
        // Given probes may come on any step.
        let refreshed = !self.diagonal.is_empty();
        let gradients = self.gradient.take()?;
        let diagonals = self.diagonal.take()?;
        let mut info = StepInfo {
            step: self.step,
            loss: take_loss(&mut self.loss)?,
            lr: Optim::lr(self),
            ..StepInfo::default()
        };
        let range = Range::of_gradients(&self.config.common);
        match sum_of_squares(&self.vars, &gradients, range)? {
            Ok(squares) => info.gradient_norm = squares.sqrt(),
            Err(name) => return self.skip("gradient", name, info),
        }
        if let Err(name) = sum_of_squares(&self.vars, &diagonals, Range::Squared)? {
            return self.skip("Hessian-vector product", name, info);
        }
        self.skips.in_a_row = 0;
        let (value, norm) = (self.config.common.clip_value, self.config.common.clip_norm);
        let clipping = Clipping::new(&gradients, info.gradient_norm, value, norm)?;
        let outcome = self.update_all(&gradients, &diagonals, clipping)?;
        info.update_norm = outcome.change_squared.sqrt();
        info.curvature = refreshed.then(|| outcome.curvature());
        self.computed |= refreshed;
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
                // A copy: the next step changes it in place.
                state
                    .tensors
                    .insert(format!("{key}.{name}"), tensor.copy()?);
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
