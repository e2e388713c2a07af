//! A step in its parts: what is accumulated, prepared, taken or skipped, and the state.

use super::super::exchange;
use super::super::group::not_negative;
use super::super::pending::{Clipping, Range, Skips, WeightedMean, reach, sum_of_squares};
use super::super::reducer::{Reducer, Sums};
use super::super::rule::Rule;
use super::super::state::State;
use super::super::{NotFinite, Optim, Reach, StepInfo};
use super::{Optimizer, Ready, not_prepared};
use crate::curvature::hutchinson::Hutchinson;
use crate::engine::vector::Vector;
use crate::error::{Error, Result};
use crate::vars::{NamedVars, VarVec};
use candle_core::backprop::GradStore;

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
        let probe = |sample| draw.vectors(&vars, sample);
        let added = self.add_curvature(grads, draw.samples(), probe, weight);
        self.whole(added)
    }

    fn accumulate_probed(
        &mut self,
        grads: &GradStore,
        probes: &[VarVec],
        weight: f64,
    ) -> Result<()> {
        let vars = self.vars.clone();
        let probe = |sample: usize| {
            vars.expect_same(probes[sample].vars())?;
            let probe = probes[sample].in_own_types()?;
            let tensors = probe.tensors().iter();
            Ok(tensors.map(|z| Vector::Tensor(z.detach())).collect())
        };
        let added = match R::SECOND_ORDER {
            true => self.add_curvature(grads, probes.len(), probe, weight),
            false => Ok(()),
        };
        self.whole(added)
    }

    fn reach(&self) -> Reach {
        reach(&self.vars, &self.settings, &self.gradient, self.step == 0)
    }

    fn check_ready(&self) -> Result<()> {
        match self.due() && self.diagonal.is_empty() {
            true => Err(Error::NoCurvature),
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

    fn check_skip(&self, why: &NotFinite) -> Result<()> {
        self.skips.check(why, self.step, self.common.max_skipped)
    }

    fn skip(&mut self, why: &NotFinite) -> Result<StepInfo> {
        self.check_skip(why)?;
        let ready = self.ready.take().ok_or_else(not_prepared)?;
        self.skips.note();
        self.computed &= !self.due();
        self.step += 1;
        Ok(StepInfo {
            skipped: Some(why.name.clone()),
            waiting: self.waiting(),
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
        state.expect_counts(&self.vars)?;
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
        // What was accumulated is of where the variables were, and of no step of the state's.
        self.discard();
        Ok(())
    }
}
