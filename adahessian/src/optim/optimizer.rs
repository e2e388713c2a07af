//! The optimizer around any rule: accumulation, clipping, groups, skipped steps, delayed Hessians.

use super::builder::{Builder, Curvature};
use super::exchange;
use super::group::{Common, Resolved, not_negative};
use super::pass::{Later, Outcome};
use super::pending::{self, Clipping, Range, Skips, WeightedMean, reach, sum_of_squares};
use super::reducer::{Reducer, Sums};
use super::rule::Rule;
use super::state::State;
use super::together::{self, Kept, Member};
use super::variable::{Rates, Slots};
use super::{NotFinite, Optim, Reach, StepInfo};
use crate::curvature::hessian::Hessian;
use crate::curvature::hutchinson::Hutchinson;
use crate::error::{Error, Result};
use crate::second_order;
use crate::vars::{NamedVars, VarVec};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

/// The optimizer of a [`Rule`], built by its [`Builder`].
///
/// The gradients for a rule of second order must come from [`crate::backward`]; `backward_step` sees to
/// it. Several samples and micro-batches enter D as the mean of their signed z ⊙ Hz, each with its own
/// Hessian, before anything is squared. A step whose gradient or Hessian-vector product is not finite
/// changes nothing, is counted and reported.
///
/// ```
/// use adahessian::{AdamW, Rule};
/// # use candle_core::{Device, Var};
/// # let x = Var::new(&[1f32, 2.0], &Device::Cpu)?;
/// # let loss = x.sqr()?.sum_all()?;
/// let mut opt = AdamW::default().lr(1e-3).build(vec![x])?;
/// let info = opt.backward_step(&loss)?;
/// assert_eq!(info.loss, Some(5.0));
/// # Ok::<(), adahessian::Error>(())
/// ```
pub struct Optimizer<R> {
    rule: R,
    common: Common,
    curvature: Curvature,
    vars: NamedVars,
    settings: Vec<Resolved>,
    slots: Vec<Slots>,
    gradient: WeightedMean,
    diagonal: WeightedMean,
    loss: WeightedMean,
    ready: Option<Ready>,
    /// What steps of many variables as one have left.
    together: Vec<Kept>,
    reducer: Option<Box<dyn Reducer>>,
    lr_factor: f64,
    step: u64,
    /// The learning rate that it was built with.
    configured_lr: f64,
    /// Whether the last step that should have computed D did.
    computed: bool,
    skips: Skips,
}

/// The means that a step is taken with, and what is known of it beforehand.
struct Ready {
    gradients: Vec<Option<Tensor>>,
    diagonals: Vec<Option<Tensor>>,
    /// Whether there is a new D.
    refreshed: bool,
    info: StepInfo,
}

impl<R: Rule> Optimizer<R> {
    pub(super) fn new(builder: Builder<R>, vars: &NamedVars) -> Result<Self> {
        let Builder {
            rule,
            common,
            curvature,
        } = builder;
        let (vars, settings) = common.resolve(vars)?;
        let configured_lr = common.lr;
        let each = vars.iter().zip(&settings);
        let slots = each.map(|((name, var), own)| Slots::new(&rule, &curvature, name, var, own));
        Ok(Self {
            slots: slots.collect::<Result<_>>()?,
            gradient: WeightedMean::new(vars.len()),
            diagonal: WeightedMean::new(vars.len()),
            loss: WeightedMean::new(1),
            ready: None,
            together: Vec::new(),
            reducer: None,
            rule,
            common,
            curvature,
            settings,
            vars,
            lr_factor: 1.0,
            step: 0,
            configured_lr,
            computed: false,
            skips: Skips::default(),
        })
    }

    /// The rule, with its settings.
    pub fn rule(&self) -> &R {
        &self.rule
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

    /// As [`Optim::step`].
    ///
    /// # Errors
    /// See [`Optim::step`].
    pub fn step(&mut self, grads: &GradStore) -> Result<StepInfo> {
        Optim::step(self, grads)
    }

    /// As [`Optim::diagonal`].
    ///
    /// # Errors
    /// If candle fails.
    pub fn diagonal(&self) -> Result<Option<VarVec>> {
        Optim::diagonal(self)
    }

    /// Whether this step computes D.
    fn due(&self) -> bool {
        let settings = &self.curvature;
        let regular = self.step < settings.always_first || self.step.is_multiple_of(settings.every);
        R::SECOND_ORDER && (!self.computed || regular || self.waiting() > 0)
    }

    /// Notes which variables have a gradient and never had a D, till one comes.
    fn note_waiting(&mut self, ready: &Ready) {
        let given = ready.gradients.iter().zip(&ready.diagonals);
        let each = self.vars.iter().zip(&mut self.slots).zip(given);
        for (((_, var), slots), (g, d)) in each {
            let reached = g.is_some() && var.elem_count() > 0;
            slots.waits = (reached || slots.waits) && !slots.steps::<R>(d.is_some());
        }
    }

    fn waiting(&self) -> usize {
        self.slots.iter().filter(|slots| slots.waits).count()
    }

    /// The update of all variables that have a gradient or a diagonal.
    fn update_all(&mut self, ready: &Ready, clipping: Clipping) -> Result<Outcome> {
        let lr = Optim::lr(self);
        // As the rate in force is to the configured one, whoever schedules it.
        let schedule = self.lr_factor * (self.common.lr / self.configured_lr);
        let bound = self.common.bound.map(|bound| bound.times(schedule));
        let given = ready.gradients.iter().zip(&ready.diagonals);
        let slots = self.slots.iter_mut().zip(&self.settings);
        let (mut outcome, mut later) = (Outcome::default(), Later::default());
        let mut members = Vec::new();
        for (((_, var), (slots, settings)), (g, d)) in self.vars.iter().zip(slots).zip(given) {
            let rates = Rates {
                lr: lr * settings.lr_scale,
                weight_decay: settings.weight_decay,
                clipping,
                bound: bound.map(|bound| bound.times(settings.lr_scale)),
            };
            let (rule, curvature) = (&self.rule, &self.curvature);
            match g {
                // Without entries there is nothing to do, and some of candle's operations fail.
                _ if var.elem_count() == 0 => {}
                Some(g) if slots.steps::<R>(d.is_some()) && together::joins::<R>(var, slots, g) => {
                    let given = (g, d.as_ref());
                    members.push(Member::new(curvature, var, slots, given, &rates));
                }
                g => {
                    let given = (g.as_ref(), d.as_ref());
                    outcome += slots.step(rule, curvature, var, given, &rates, &mut later)?;
                }
            }
        }
        let mut kept = Vec::new();
        for group in together::groups(members) {
            let step = together::step(&self.rule, clipping, group, &self.together, &mut later)?;
            outcome += step.0;
            kept.extend(step.1);
        }
        self.together = kept;
        later.settle(&mut outcome)?;
        Ok(outcome)
    }

    fn add_gradient(&mut self, grads: &GradStore, weight: f64) -> Result<()> {
        not_negative("weight of a micro-batch", weight)?;
        if weight == 0.0 {
            return Ok(());
        }
        if let Some(loss) = second_order::loss_of(grads) {
            self.loss.add(vec![Some(loss)], weight)?;
        }
        let gradients = self.vars.iter().map(|(_, v)| grads.get(v));
        let gradients = gradients.map(|g| g.map(Tensor::detach)).collect();
        self.gradient.add(gradients, weight)
    }

    /// Each probe is made when its product is, and gone after it: it is as large as the model.
    fn add_curvature(
        &mut self,
        grads: &GradStore,
        samples: usize,
        probe: impl Fn(usize) -> Result<VarVec>,
        weight: f64,
    ) -> Result<()> {
        if samples == 0 {
            return Err(Error::Setting {
                what: "probes",
                expected: "at least one".into(),
                got: "none".into(),
            });
        }
        not_negative("weight of a micro-batch", weight)?;
        if weight == 0.0 {
            return Ok(());
        }
        let hessian = Hessian::from_gradients(grads, &self.vars)?;
        for sample in 0..samples {
            let probe = probe(sample)?;
            let products = hessian.product(&probe)?;
            let diagonal = pending::products(products, probe.tensors())?;
            self.diagonal.add(diagonal, weight / samples as f64)?;
        }
        Ok(())
    }

    /// Nothing is kept of what failed halfway.
    fn whole(&mut self, added: Result<()>) -> Result<()> {
        if added.is_err() {
            self.discard();
        }
        added
    }
}

impl<R: Rule> Optim for Optimizer<R> {
    fn vars(&self) -> &NamedVars {
        &self.vars
    }

    fn needs_graph(&self) -> bool {
        self.due()
    }

    fn accumulate_gradient(&mut self, grads: &GradStore, weight: f64) -> Result<()> {
        let added = self.add_gradient(grads, weight);
        self.whole(added)
    }

    fn accumulate_curvature(&mut self, grads: &GradStore, weight: f64) -> Result<()> {
        if !self.due() {
            return Ok(());
        }
        let settings = &self.curvature;
        let draw = Hutchinson::new(settings.samples, settings.seed)
            .with_probe(settings.probe)
            .at(self.step);
        let vars = self.vars.clone();
        let probe = |sample| draw.probe(&vars, sample);
        let added = self.add_curvature(grads, draw.samples(), probe, weight);
        self.whole(added)
    }

    fn accumulate_probed(
        &mut self,
        grads: &GradStore,
        probes: &[VarVec],
        weight: f64,
    ) -> Result<()> {
        let added = match R::SECOND_ORDER {
            true => self.add_curvature(grads, probes.len(), |i| Ok(probes[i].clone()), weight),
            false => Ok(()),
        };
        self.whole(added)
    }

    fn reach(&self) -> Reach {
        reach(&self.vars, &self.settings, &self.gradient, self.step == 0)
    }

    fn check_ready(&self) -> Result<()> {
        match self.due() && self.diagonal.is_empty() {
            true => Err(Error::NoGraph),
            false => Ok(()),
        }
    }

    fn diagonal(&self) -> Result<Option<VarVec>> {
        if !R::SECOND_ORDER {
            return Ok(None);
        }
        let each = self.slots.iter();
        let each = each.map(|slots| slots.curvature(&self.rule, self.curvature.delay));
        let all: Option<Vec<_>> = each.collect::<Result<Vec<_>>>()?.into_iter().collect();
        all.map(|all| VarVec::new(&self.vars, all)).transpose()
    }

    fn reducer(&mut self) -> &mut Option<Box<dyn Reducer>> {
        &mut self.reducer
    }

    fn sums(&self) -> Result<Sums> {
        let mut sums = Sums::default();
        exchange::put(&mut sums, "gradient", &self.gradient, &self.vars)?;
        if self.due() || !self.diagonal.is_empty() {
            exchange::put(&mut sums, "diagonal", &self.diagonal, &self.vars)?;
        }
        exchange::put_loss(&mut sums, &self.loss)?;
        Ok(sums)
    }

    fn set_sums(&mut self, mut sums: Sums) -> Result<()> {
        exchange::take(&mut sums, "gradient", &mut self.gradient, &self.vars)?;
        if exchange::holds(&sums, "diagonal") {
            exchange::take(&mut sums, "diagonal", &mut self.diagonal, &self.vars)?;
        }
        exchange::take_loss(&mut sums, &mut self.loss)
    }

    fn prepare(&mut self) -> Result<Option<NotFinite>> {
        not_negative("learning rate in force", Optim::lr(self))?;
        let mut ready = Ready {
            // Given probes may come on any step.
            refreshed: !self.diagonal.is_empty(),
            gradients: self.gradient.take()?,
            diagonals: self.diagonal.take()?,
            info: StepInfo {
                step: self.step,
                loss: self.loss.take_number()?,
                lr: Optim::lr(self),
                gradient_norm: f64::NAN,
                ..StepInfo::default()
            },
        };
        let range = Range::of_gradients(&self.common);
        let squares = sum_of_squares(&self.vars, &ready.gradients, range, "gradient")?;
        if let Ok(squares) = &squares {
            ready.info.gradient_norm = squares.sqrt();
        }
        let found = match squares {
            Err(found) => Some(found),
            Ok(_) => {
                let what = "Hessian-vector product";
                sum_of_squares(&self.vars, &ready.diagonals, Range::Squared, what)?.err()
            }
        };
        self.ready = Some(ready);
        Ok(found)
    }

    fn take(&mut self) -> Result<StepInfo> {
        let ready = self.ready.take().ok_or_else(not_prepared)?;
        let mut info = ready.info.clone();
        self.skips.in_a_row = 0;
        self.note_waiting(&ready);
        info.waiting = self.waiting();
        let (value, norm) = (self.common.clip_value, self.common.clip_norm);
        let clipping = Clipping::new(&ready.gradients, info.gradient_norm, value, norm)?;
        let outcome = self.update_all(&ready, clipping)?;
        info.update_norm = outcome.change_squared.sqrt();
        info.bounded = outcome.bounded;
        info.curvature = ready.refreshed.then(|| outcome.curvature());
        self.computed |= ready.refreshed;
        self.step += 1;
        Ok(info)
    }

    fn skip(&mut self, why: &NotFinite) -> Result<StepInfo> {
        let ready = self.ready.take().ok_or_else(not_prepared)?;
        self.computed &= !self.due();
        self.step += 1;
        let limit = self.common.max_skipped;
        self.skips.note(why, ready.info.step, limit)?;
        Ok(StepInfo {
            skipped: Some(why.name.clone()),
            ..ready.info
        })
    }

    fn discard(&mut self) {
        let count = self.vars.len();
        self.gradient = WeightedMean::new(count);
        self.diagonal = WeightedMean::new(count);
        self.loss = WeightedMean::new(1);
        self.ready = None;
    }

    fn set_lr_factor(&mut self, factor: f64) {
        self.lr_factor = factor;
    }

    fn lr(&self) -> f64 {
        self.common.lr * self.lr_factor
    }

    fn state(&self) -> Result<State> {
        let mut state = State::of_kind(R::NAME);
        state.put("step", self.step);
        if R::SECOND_ORDER {
            state.put("computed", self.computed);
        }
        state.put("skipped_in_a_row", self.skips.in_a_row);
        state.put("skipped", self.skips.total);
        for (name, slots) in self.vars.names().zip(&self.slots) {
            slots.save(&self.rule, name, &mut state)?;
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        state.expect_kind(R::NAME)?;
        let each = self.vars.names().zip(&self.slots);
        let slots = each.map(|(name, old)| old.restored(&self.rule, name, state));
        let slots = slots.collect::<Result<Vec<_>>>()?;
        let each = self.vars.names().zip(&self.slots);
        let names = each.flat_map(|(name, slots)| slots.names(&self.rule, name));
        state.expect_tensors(&names.collect())?;
        let skips = Skips {
            in_a_row: state.value("skipped_in_a_row")?,
            total: state.value("skipped")?,
        };
        let computed = match R::SECOND_ORDER {
            true => state.value("computed")?,
            false => false,
        };
        self.step = state.value("step")?;
        (self.computed, self.skips, self.slots) = (computed, skips, slots);
        Ok(())
    }
}

pub(crate) fn not_prepared() -> Error {
    Error::Setting {
        what: "order of calls",
        expected: "prepare before take or skip".into(),
        got: "no step that was prepared".into(),
    }
}

/// So that a candle application changes one line. The variables get names by their position; their
/// order must be the same in every process that resumes a run (`VarMap::all_vars` is in no order:
/// prefer `build(&varmap)`).
impl<R: Rule> candle_nn::Optimizer for Optimizer<R> {
    type Config = Builder<R>;

    fn new(vars: Vec<Var>, config: Builder<R>) -> candle_core::Result<Self> {
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
        self.common.lr = lr;
        self.lr_factor = 1.0;
    }

    fn backward_step(&mut self, loss: &Tensor) -> candle_core::Result<()> {
        Ok(Optim::backward_step(self, loss).map(drop)?)
    }
}
