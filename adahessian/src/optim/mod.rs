//! Optimizers: one object-safe trait, one optimizer around any rule, the rules, and their states.

mod bound;
mod builder;
mod by_name;
mod composite;
mod exchange;
pub(crate) mod group;
mod number;
mod optimizer;
mod pass;
pub(crate) mod pending;
pub(crate) mod reach;
pub mod reducer;
mod rule;
mod rules;
pub(crate) mod state;
mod together;
pub(crate) mod traced;
mod variable;

pub use bound::StepBound;
pub use builder::{Average, Builder, Curvature, Delay};
pub use by_name::{RULES, Rules, optimizer_by_name};
pub use composite::Composite;
pub use group::{Common, Group};
pub use number::Number;
pub use optimizer::Optimizer;
pub(crate) use optimizer::not_prepared;
pub use reach::Reach;
pub use reducer::Reducer;
pub use rule::{Entry, Rule, Step, correction};
pub(crate) use rules::guard;
pub use rules::{AdaHessian, Adagrad, Adam, AdamW, Lamb, RmsProp, Sgd, SophiaH, Unseen};
pub use state::State;

use crate::error::Result;
use crate::second_order;
use crate::tables::SparseTable;
use crate::vars::{NamedVars, VarVec};
use candle_core::Tensor;
use candle_core::backprop::GradStore;
use reducer::Sums;

/// What one step did. Norms are Euclidean and over all variables of the optimizer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepInfo {
    /// The number of this step, counted from 0; skipped steps count.
    pub step: u64,
    /// The mean loss of the micro-batches, where the gradients came with it.
    pub loss: Option<f64>,
    /// The learning rate in force.
    pub lr: f64,
    /// The gradient's norm before clipping; not a number in a step that is skipped for its gradient.
    pub gradient_norm: f64,
    /// The norm of the change of the variables; 0 if the step was skipped.
    pub update_norm: f64,
    /// How many variables [`StepBound`] has held back.
    pub bounded: usize,
    /// Statistics of the curvature, on the steps that computed it.
    pub curvature: Option<CurvatureInfo>,
    /// Why nothing was changed: the variable whose gradient or Hessian-vector product is not finite.
    pub skipped: Option<String>,
    /// How many variables no gradient reached; they were left alone.
    pub unreached: usize,
    /// How many variables are left alone because a gradient has reached them and no curvature yet: till it has, every step
    /// computes it.
    pub waiting: usize,
}

/// Statistics of the averaged diagonal D over all entries.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CurvatureInfo {
    /// The mean of |D|.
    pub mean_abs: f64,
    /// The maximum of |D|.
    pub max_abs: f64,
    /// The share of entries, in 0..=1, whose denominator v lies below eps: there the step is that
    /// of plain momentum with rate lr / eps.
    pub below_eps: f64,
}

/// Why a step must not be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// `gradient` or `Hessian-vector product`.
    pub what: &'static str,
    /// The first variable or table where it shows.
    pub name: String,
}

/// An optimizer. Object-safe, so that a loop can hold any of them.
///
/// One step is a number of micro-batches (usually one) that are *accumulated*, and one *apply*:
///
/// ```text
/// backward_step(loss) = accumulate_loss(loss, 1) + apply()
/// step(grads)         = accumulate(grads, 1)     + apply()
/// apply()             = reduce() + prepare() + (take() or skip())
/// ```
///
/// Variables that no gradient reaches are left alone. On the first step that is an error unless the
/// settings allow it ([`Common::allow_unreached`]), since an operation that cuts the graph gives no other
/// sign; that nothing at all is reached is always one.
///
/// What fails, in accumulating or in a step, changes no variable and forgets what was accumulated. Only where a GPU fails
/// in the midst of an update, for want of memory say, may some of the variables have stepped: go on from a checkpoint then.
pub trait Optim: Send {
    /// The variables it changes, sorted by name.
    fn vars(&self) -> &NamedVars;

    /// The sparse tables it changes. They are the model's, not part of the state: a checkpoint saves them
    /// as it saves the variables.
    fn tables(&self) -> Vec<SparseTable> {
        Vec::new()
    }

    /// Whether the present step needs gradients that [`crate::backward`] made. `false` on the steps
    /// of a delayed Hessian, where candle's plain, cheaper backward pass serves.
    fn needs_graph(&self) -> bool;

    /// Adds a micro-batch's gradients with this weight; the step uses the weighted mean, to which a weight of 0 adds nothing.
    /// Needs no graph and takes no curvature.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a weight below 0 or not finite; if candle fails.
    fn accumulate_gradient(&mut self, grads: &GradStore, weight: f64) -> Result<()>;

    /// Adds a micro-batch's curvature, from gradients with their graph. Does nothing in an
    /// optimizer of first order and on steps that need no curvature.
    ///
    /// # Errors
    /// [`crate::Error::NoGraph`] if [`crate::backward`] did not make the gradients; as [`Optim::accumulate_gradient`].
    fn accumulate_curvature(&mut self, _grads: &GradStore, _weight: f64) -> Result<()> {
        Ok(())
    }

    /// As [`Optim::accumulate_curvature`], with given probes instead of drawn ones: to reproduce another
    /// program's run, or to share probes between processes. They are used whether the step is due or not.
    ///
    /// # Errors
    /// As there, and [`crate::Error::Variable`] for probes of other variables.
    fn accumulate_probed(&mut self, _: &GradStore, _: &[VarVec], _weight: f64) -> Result<()> {
        Ok(())
    }

    /// What the gradients that were accumulated reach.
    fn reach(&self) -> Reach;

    /// Whether everything that the step needs was accumulated. Looked at before anything is changed.
    ///
    /// # Errors
    /// [`crate::Error::NoCurvature`] where the step needs a curvature and none was accumulated.
    fn check_ready(&self) -> Result<()> {
        Ok(())
    }

    /// The curvature in force, of the variables whose optimizer keeps one: what AdaHessian calls
    /// sqrt(s / (1-β2ᵗ)), Sophia's h; in f32 for variables in half precision. Zero where none was computed
    /// yet; `None` in an optimizer of first order.
    ///
    /// # Errors
    /// If candle fails.
    fn diagonal(&self) -> Result<Option<VarVec>> {
        Ok(None)
    }

    /// Sums up what was accumulated over all participants of a training, between accumulating and the
    /// step. Every participant must have one, of an equal optimizer, and apply equally often: one that fails
    /// on the way to a step should drop its optimizer, which is an error for the others.
    fn set_reducer(&mut self, reducer: Box<dyn Reducer>) {
        *self.reducer() = Some(reducer);
    }

    /// The place for [`Optim::set_reducer`].
    fn reducer(&mut self) -> &mut Option<Box<dyn Reducer>>;

    /// What was accumulated: the weighted sums, not divided yet.
    ///
    /// # Errors
    /// If candle fails.
    fn sums(&self) -> Result<Sums>;

    /// Replaces what was accumulated.
    ///
    /// # Errors
    /// [`crate::Error::Variable`] naming a sum that is missing.
    fn set_sums(&mut self, sums: Sums) -> Result<()>;

    /// Replaces what was accumulated by the sums over all participants, where there is a reducer.
    ///
    /// # Errors
    /// Those of [`Reducer::reduce`].
    fn reduce(&mut self) -> Result<()> {
        if self.reducer().is_none() {
            return Ok(());
        }
        let own = self.sums()?;
        match self.reducer() {
            Some(reducer) => {
                let all = reducer.reduce(own)?;
                self.set_sums(all)
            }
            None => Ok(()),
        }
    }

    /// Makes means of what was accumulated and looks whether they are finite; changes no variable and no
    /// count.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a rate in force that is below 0 or not finite; if candle fails.
    fn prepare(&mut self) -> Result<Option<NotFinite>>;

    /// Takes the step that was prepared.
    ///
    /// # Errors
    /// If candle fails.
    fn take(&mut self) -> Result<StepInfo>;

    /// Whether one more step may be left out. Looked at before anything is changed, in all parts of a training.
    ///
    /// # Errors
    /// [`crate::Error::NonFinite`] after too many in a row.
    fn check_skip(&self, _: &NotFinite) -> Result<()> {
        Ok(())
    }

    /// Leaves out the step that was prepared, because of something that is not finite, here or in another
    /// part of the same training. On an error it counts as not taken.
    ///
    /// # Errors
    /// Those of [`Optim::check_skip`].
    fn skip(&mut self, why: &NotFinite) -> Result<StepInfo>;

    /// Takes the step with what was accumulated, and forgets it.
    ///
    /// # Errors
    /// [`crate::Error::NotReached`] for variables without gradient on the first step, or none with one on
    /// any; [`crate::Error::NoCurvature`] where the step needs a curvature and none was accumulated;
    /// [`crate::Error::NonFinite`] after too many skipped steps in a row; those of [`Optim::prepare`] and [`Optim::reduce`].
    fn apply(&mut self) -> Result<StepInfo> {
        let taken = reduced_step(self);
        if taken.is_err() {
            self.discard();
        }
        taken
    }

    /// Forgets what was accumulated and not yet applied. What fails does so by itself.
    fn discard(&mut self);

    /// Sets the learning rate to this multiple of the configured one. Schedules are functions of
    /// the step, so the factor is not part of the state.
    fn set_lr_factor(&mut self, factor: f64);

    /// The learning rate in force.
    fn lr(&self) -> f64;

    /// Everything that a later, equal optimizer needs to go on bit for bit. Between steps only:
    /// what was accumulated and not applied is not part of it.
    ///
    /// # Errors
    /// If candle fails to copy.
    fn state(&self) -> Result<State>;

    /// Takes over a saved state, without what was accumulated before. On an error no state is changed; what was
    /// accumulated may be forgotten.
    ///
    /// # Errors
    /// [`crate::Error::State`] naming the entry that is missing or does not fit.
    fn load_state(&mut self, state: &State) -> Result<()>;

    /// Adds a micro-batch's gradient, and its curvature where the step needs it.
    ///
    /// # Errors
    /// Those of the two parts.
    fn accumulate(&mut self, grads: &GradStore, weight: f64) -> Result<()> {
        let curvature = match self.needs_graph() {
            true => self.accumulate_curvature(grads, weight),
            false => Ok(()),
        };
        let added = curvature.and_then(|()| self.accumulate_gradient(grads, weight));
        if added.is_err() {
            self.discard();
        }
        added
    }

    /// Adds a micro-batch by its loss, choosing the backward pass that the step needs.
    ///
    /// # Errors
    /// Those of the backward passes.
    fn accumulate_loss(&mut self, loss: &Tensor, weight: f64) -> Result<()> {
        let grads = match self.needs_graph() {
            true => second_order::backward(loss),
            false => second_order::backward_detached(loss),
        };
        let grads = match grads {
            Ok(grads) => grads,
            Err(error) => {
                self.discard();
                return Err(error);
            }
        };
        let outcome = self.accumulate(&grads, weight);
        second_order::release_gradients(grads);
        outcome
    }

    /// Takes a step with these gradients.
    ///
    /// # Errors
    /// Those of [`Optim::accumulate`] and [`Optim::apply`].
    fn step(&mut self, grads: &GradStore) -> Result<StepInfo> {
        self.accumulate(grads, 1.0)?;
        self.apply()
    }

    /// Computes the gradients of the loss and takes a step.
    ///
    /// # Errors
    /// Those of [`Optim::accumulate_loss`] and [`Optim::apply`].
    fn backward_step(&mut self, loss: &Tensor) -> Result<StepInfo> {
        self.accumulate_loss(loss, 1.0)?;
        self.apply()
    }
}

fn reduced_step<O: Optim + ?Sized>(optimizer: &mut O) -> Result<StepInfo> {
    optimizer.reduce()?;
    let reach = optimizer.reach();
    reach.check(optimizer.vars())?;
    optimizer.check_ready()?;
    let info = match optimizer.prepare()? {
        None => optimizer.take()?,
        Some(why) => optimizer.skip(&why)?,
    };
    Ok(StepInfo {
        unreached: reach.unreached.len(),
        ..info
    })
}
