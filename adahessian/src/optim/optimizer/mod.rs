//! The optimizer around any rule: accumulation, clipping, groups, skipped steps, delayed Hessians.

mod candle;
mod optim;

use super::builder::{Builder, Curvature};
use super::group::{Common, Resolved, not_negative};
use super::pass::{Later, Outcome};
use super::pending::{self, Clipping, Skips, WeightedMean};
use super::reducer::Reducer;
use super::rule::Rule;
use super::together::{self, Kept, Member};
use super::variable::{Rates, Slots};
use super::{Optim, StepInfo};
use crate::curvature::hessian::Hessian;
use crate::engine::vector::Vector;
use crate::error::{Error, Result};
use crate::second_order;
use crate::vars::{NamedVars, VarVec};
use candle_core::Tensor;
use candle_core::backprop::GradStore;

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
        if R::SECOND_ORDER {
            curvature.blocks.expect_used(vars)?;
        }
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
        let gradients = self.vars.iter().map(|(name, var)| {
            let gradient = grads.get(var).map(Tensor::detach);
            gradient
                .map(|g| pending::expect_like(name, var, &g).map(|()| g))
                .transpose()
        });
        let gradients = gradients.collect::<Result<_>>()?;
        if let Some(loss) = second_order::loss_of(grads) {
            // Of one entry, whatever its shape.
            self.loss.add(vec![Some(loss.reshape(())?)], weight)?;
        }
        self.gradient.add(gradients, weight)
    }

    /// Each probe is made when its product is, and gone after it: it is as large as the model.
    fn add_curvature(
        &mut self,
        grads: &GradStore,
        samples: usize,
        probe: impl Fn(usize) -> Result<Vec<Vector>>,
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
            let products = hessian.product_with(&probe)?;
            let diagonal = pending::products(products, &probe)?;
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

pub(crate) fn not_prepared() -> Error {
    Error::Setting {
        what: "order of calls",
        expected: "prepare before take or skip".into(),
        got: "no step that was prepared".into(),
    }
}
