//! The optimizer around any first-order rule: groups, clipping, accumulation, skipped steps.

use crate::error::Result;
use crate::optim::group::Resolved;
use crate::optim::pending::{Clipping, Range, Skips, WeightedMean, reach, sum_of_squares};
use crate::optim::rules::{InPlace, Rule, Update};
use crate::optim::state::state_error;
use crate::optim::{Common, Optim, Reach, State, StepInfo};
use crate::second_order::{self, versions};
use crate::vars::{NamedVars, sum_f64, wide, widened};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

/// The running quantities of one variable.
#[derive(Clone)]
struct Slots {
    count: u64,
    tensors: Vec<Tensor>,
}

/// An optimizer of first order.
///
/// ```
/// use adahessian::{AdamW, Common, FirstOrder, Optim};
/// # use candle_core::{Device, Var};
/// # let x = Var::new(&[1f32, 2.0], &Device::Cpu)?;
/// # let loss = x.sqr()?.sum_all()?;
/// let mut opt = FirstOrder::new(vec![x], AdamW::default(), Common::new(1e-3))?;
/// let info = opt.backward_step(&loss)?;
/// assert_eq!(info.loss, Some(5.0));
/// # Ok::<(), adahessian::Error>(())
/// ```
pub struct FirstOrder {
    rule: Box<dyn Rule>,
    common: Common,
    vars: NamedVars,
    settings: Vec<Resolved>,
    slots: Vec<Slots>,
    gradient: WeightedMean,
    loss: WeightedMean,
    lr_factor: f64,
    step: u64,
    skips: Skips,
}

impl FirstOrder {
    /// An optimizer of these variables (a `&VarMap`, a `&NamedVars` or a `Vec<Var>`).
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a setting out of range.
    pub fn new(
        vars: impl Into<NamedVars>,
        rule: impl Rule + 'static,
        common: Common,
    ) -> Result<Self> {
        rule.check()?;
        let (vars, settings) = common.resolve(&vars.into())?;
        let names = rule.slots();
        let slots = vars.iter().map(|(_, var)| {
            let tensors = names.iter().map(|_| zeros_for(var));
            let tensors = tensors.collect::<Result<_>>()?;
            Ok(Slots { count: 0, tensors })
        });
        Ok(Self {
            slots: slots.collect::<Result<_>>()?,
            gradient: WeightedMean::new(vars.len()),
            loss: WeightedMean::new(1),
            rule: Box::new(rule),
            common,
            vars,
            settings,
            lr_factor: 1.0,
            step: 0,
            skips: Skips::default(),
        })
    }

    /// How many steps were skipped so far because a gradient was not finite.
    pub fn skipped(&self) -> u64 {
        self.skips.total
    }

    fn change(
        &mut self,
        index: usize,
        var: &Var,
        gradient: &Tensor,
        clipping: Clipping,
    ) -> Result<f64> {
        let settings = &self.settings[index];
        let slots = &mut self.slots[index];
        slots.count += 1;
        // In half precision: computed with a copy in f32, and rounded once.
        let value = widened(&var.as_detached_tensor())?;
        let is_copy = value.dtype() != var.dtype();
        let lr = self.common.lr * self.lr_factor * settings.lr_scale;
        versions::changed(var);
        let in_place = self.rule.update_in_place(&InPlace {
            value: &value,
            gradient,
            clipping,
            slots: &slots.tensors,
            count: slots.count,
            lr,
            weight_decay: settings.weight_decay,
        })?;
        match in_place {
            Some(_) if is_copy => return replace(var, &value),
            Some(change) => return Ok(change),
            None => {}
        }
        let new = self.rule.update(Update {
            value: &value,
            gradient: &clipping.clip(gradient)?,
            slots: &mut slots.tensors,
            count: slots.count,
            lr,
            weight_decay: settings.weight_decay,
        })?;
        replace(var, &new)
    }
}

/// Sets the variable, rounding to its type; returns the squared norm of its change.
pub(crate) fn replace(var: &Var, new: &Tensor) -> Result<f64> {
    let new = new.to_dtype(var.dtype())?;
    let old = widened(&var.as_detached_tensor())?;
    let change = sum_f64(&(widened(&new)? - old)?.sqr()?)?;
    versions::set(var, &new)?;
    Ok(change)
}

/// A running quantity of a variable at the start: its own memory, for it is changed in place; in f32
/// where the variable is in half precision.
pub(crate) fn zeros_for(var: &Var) -> Result<Tensor> {
    Ok(Tensor::zeros(var.shape(), wide(var.dtype()), var.device())?)
}

/// The gradients of these variables, without graph.
pub(crate) fn detached(grads: &GradStore, vars: &NamedVars) -> Vec<Option<Tensor>> {
    let gradients = vars.iter().map(|(_, v)| grads.get(v).map(Tensor::detach));
    gradients.collect()
}

/// Notes the loss that came with the gradients.
pub(crate) fn note_loss(mean: &mut WeightedMean, grads: &GradStore, weight: f64) -> Result<()> {
    match second_order::loss_of(grads) {
        Some(loss) => mean.add(vec![Some(loss)], weight),
        None => Ok(()),
    }
}

/// The mean of the losses noted.
pub(crate) fn take_loss(mean: &mut WeightedMean) -> Result<Option<f64>> {
    if mean.is_empty() {
        return Ok(None);
    }
    let loss = mean.take()?.pop().flatten();
    let value = loss.map(|l| l.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>());
    Ok(value.transpose()?.and_then(|v| v.first().copied()))
}

impl Optim for FirstOrder {
    fn vars(&self) -> &NamedVars {
        &self.vars
    }

    fn needs_graph(&self) -> bool {
        false
    }

    fn accumulate_gradient(&mut self, grads: &GradStore, weight: f64) -> Result<()> {
        note_loss(&mut self.loss, grads, weight)?;
        self.gradient.add(detached(grads, &self.vars), weight)
    }

    fn reach(&self) -> Reach {
        reach(&self.vars, &self.settings, &self.gradient, self.step == 0)
    }

    fn update(&mut self) -> Result<StepInfo> {
        let gradients = self.gradient.take()?;
        let mut info = StepInfo {
            step: self.step,
            loss: take_loss(&mut self.loss)?,
            lr: self.lr(),
            ..StepInfo::default()
        };
        self.step += 1;
        let range = Range::of_gradients(&self.common);
        match sum_of_squares(&self.vars, &gradients, range)? {
            Ok(squares) => info.gradient_norm = squares.sqrt(),
            Err(name) => {
                info.gradient_norm = f64::NAN;
                let limit = self.common.max_skipped;
                self.skips.note("gradient", &name, info.step, limit)?;
                info.skipped = Some(name);
                return Ok(info);
            }
        }
        self.skips.in_a_row = 0;
        let (value, norm) = (self.common.clip_value, self.common.clip_norm);
        let clipping = Clipping::new(&gradients, info.gradient_norm, value, norm)?;
        let vars = self.vars.clone();
        let mut change = 0.0;
        for (index, ((_, var), gradient)) in vars.iter().zip(&gradients).enumerate() {
            if let Some(gradient) = gradient {
                change += self.change(index, var, gradient, clipping)?;
            }
        }
        info.update_norm = change.sqrt();
        Ok(info)
    }

    fn discard(&mut self) {
        self.gradient = WeightedMean::new(self.vars.len());
        self.loss = WeightedMean::new(1);
    }

    fn set_lr_factor(&mut self, factor: f64) {
        self.lr_factor = factor;
    }

    fn lr(&self) -> f64 {
        self.common.lr * self.lr_factor
    }

    fn state(&self) -> Result<State> {
        let mut state = State::of_kind(self.rule.name());
        state.put("step", self.step);
        state.put("skipped_in_a_row", self.skips.in_a_row);
        state.put("skipped", self.skips.total);
        for (name, slots) in self.vars.names().zip(&self.slots) {
            state.put(&format!("count.{name}"), slots.count);
            for (slot, tensor) in self.rule.slots().iter().zip(&slots.tensors) {
                // A copy: the next step changes it in place.
                state
                    .tensors
                    .insert(format!("{slot}.{name}"), tensor.copy()?);
            }
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        state.expect_kind(self.rule.name())?;
        let names = self.rule.slots();
        let mut all = Vec::with_capacity(self.slots.len());
        for (name, old) in self.vars.names().zip(&self.slots) {
            let slots = names.iter().zip(&old.tensors);
            let tensors = slots.map(|(s, like)| state.tensor_like(&format!("{s}.{name}"), like));
            all.push(Slots {
                count: state.value(&format!("count.{name}"))?,
                tensors: tensors.collect::<Result<_>>()?,
            });
        }
        expect_no_more(state, names.len() * self.vars.len())?;
        let skips = Skips {
            in_a_row: state.value("skipped_in_a_row")?,
            total: state.value("skipped")?,
        };
        self.step = state.value("step")?;
        (self.slots, self.skips) = (all, skips);
        Ok(())
    }
}

/// A state with tensors of further variables belongs to another model.
pub(crate) fn expect_no_more(state: &State, expected: usize) -> Result<()> {
    match state.tensors.len() == expected {
        true => Ok(()),
        false => Err(state_error(
            "number of tensors",
            &expected.to_string(),
            &state.tensors.len().to_string(),
        )),
    }
}
