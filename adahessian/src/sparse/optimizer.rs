//! Adagrad and SGD on the rows that a batch touches.

use super::owned::{Owned, Ready, Sums};
use super::update::{Part, SparseRule};
use crate::error::{Error, Result};
use crate::numeric::widened;
use crate::optim::group::not_negative;
use crate::optim::pending::{Skips, expect_like};
use crate::optim::reducer::{Reducer, RowSums, Sums as Reduced};
use crate::optim::state::state_error;
use crate::optim::{NotFinite, Optim, Reach, State, StepInfo, not_prepared};
use crate::tables::SparseTable;
use crate::vars::NamedVars;
use candle_core::DType;
use candle_core::backprop::GradStore;
use std::collections::HashSet;

/// The optimizer of [`SparseTable`]s: changes the rows that were looked up and got a gradient.
///
/// It has no variables, so in a [`crate::Composite`] it stands beside the dense part's optimizer; a step
/// whose gradient is not finite changes nothing.
pub struct SparseOptimizer {
    rule: SparseRule,
    lr: f64,
    lr_factor: f64,
    tables: Vec<Owned>,
    none: NamedVars,
    step: u64,
    weight: f64,
    ready: Option<(Vec<Option<Ready>>, StepInfo)>,
    reducer: Option<Box<dyn Reducer>>,
    skips: Skips,
    max_skipped: u32,
}

impl SparseOptimizer {
    /// An optimizer of these tables.
    ///
    /// # Errors
    /// [`Error::Setting`] for a rate or eps that is negative or not finite, and for a table that is
    /// given twice or two tables of one name.
    pub fn new<'a>(
        tables: impl IntoIterator<Item = &'a SparseTable>,
        rule: SparseRule,
        lr: f64,
    ) -> Result<Self> {
        let tables: Vec<&SparseTable> = tables.into_iter().collect();
        let eps = match rule {
            SparseRule::Adagrad { eps, .. } => eps,
            SparseRule::Sgd => 0.0,
        };
        for (what, value) in [("learning rate", lr), ("eps", eps)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(setting(what, "a finite number of at least 0", value));
            }
        }
        for (i, table) in tables.iter().enumerate() {
            // States and checkpoints know them by their names.
            let mut before = tables[..i].iter();
            if before.any(|other| other.is(table) || other.name() == table.name()) {
                return Err(setting("sparse tables", "each once", table.name()));
            }
        }
        let owned = tables.iter().map(|table| Owned::new(table, rule));
        Ok(Self {
            rule,
            lr,
            lr_factor: 1.0,
            tables: owned.collect::<Result<_>>()?,
            none: NamedVars::new([])?,
            step: 0,
            weight: 0.0,
            ready: None,
            reducer: None,
            skips: Skips::default(),
            max_skipped: 10,
        })
    }

    /// How many steps in a row with a non-finite gradient are skipped, 10 if it is not set; one more is an error.
    pub fn max_skipped(mut self, steps: u32) -> Self {
        self.max_skipped = steps;
        self
    }
}

pub(super) fn setting(what: &'static str, expected: &str, got: impl ToString) -> Error {
    Error::Setting {
        what,
        expected: expected.into(),
        got: got.to_string(),
    }
}

/// The largest sum of squares that an accumulator can take in: one that is infinite would stay so, and its
/// rows stand still.
fn largest(rule: SparseRule, dtype: DType) -> f64 {
    match (rule, dtype) {
        (SparseRule::Adagrad { .. }, DType::F32) => f64::from(f32::MAX),
        _ => f64::MAX,
    }
}

impl SparseOptimizer {
    fn add(&mut self, grads: &GradStore, weight: f64) -> Result<()> {
        not_negative("weight of a micro-batch", weight)?;
        if weight == 0.0 {
            // What was looked up for it counts for nothing; a loss that is still to come may be of the same rows.
            for owned in &mut self.tables {
                owned.take_leaves();
                for leaf in &mut owned.open {
                    leaf.reached |= grads.get(&leaf.var).is_some();
                }
                owned.missed &= owned.has_unreached();
            }
            return Ok(());
        }
        for owned in &mut self.tables {
            owned.take_leaves();
            // All that were looked up since the step: several losses may be of one lookup.
            for leaf in &mut owned.open {
                let Some(gradient) = grads.get(&leaf.var) else {
                    continue;
                };
                expect_like(owned.table.name(), &leaf.var, gradient)?;
                leaf.reached = true;
                owned.parts.push(Part {
                    rows: leaf.rows.clone(),
                    gradient: widened(&gradient.detach())?.contiguous()?,
                    weight,
                });
            }
            owned.missed = owned.has_unreached();
        }
        self.weight += weight;
        Ok(())
    }
}

impl Optim for SparseOptimizer {
    /// None: a table is no variable.
    fn vars(&self) -> &NamedVars {
        &self.none
    }

    fn tables(&self) -> Vec<SparseTable> {
        let tables = self.tables.iter().map(|owned| owned.table.clone());
        tables.collect()
    }

    fn needs_graph(&self) -> bool {
        false
    }

    /// Takes the gradients of all rows that were looked up since the last step and have one here. The others may be of
    /// a loss that is still to come; after the step they are forgotten.
    fn accumulate_gradient(&mut self, grads: &GradStore, weight: f64) -> Result<()> {
        let added = self.add(grads, weight);
        if added.is_err() {
            self.discard();
        }
        added
    }

    /// A table that was looked up in, and got no gradient, is not reached.
    fn reach(&self) -> Reach {
        let mut reach = Reach::default();
        for owned in &self.tables {
            match (owned.parts.is_empty(), owned.missed) {
                (false, _) => reach.reached += 1,
                (true, true) => reach.unreached.push(owned.table.name().into()),
                (true, false) => {}
            }
        }
        if self.step == 0 {
            reach.refused.clone_from(&reach.unreached);
        }
        reach
    }

    fn reducer(&mut self) -> &mut Option<Box<dyn Reducer>> {
        &mut self.reducer
    }

    /// Of each table the rows that were looked up.
    fn sums(&self) -> Result<Reduced> {
        let mut sums = Reduced::default();
        sums.numbers.insert("weight".into(), self.weight);
        for owned in &self.tables {
            let name = owned.table.name();
            let missed = f64::from(u8::from(owned.missed));
            sums.numbers.insert(format!("missed.{name}"), missed);
            sums.rows.insert(format!("rows.{name}"), owned.row_sums()?);
        }
        Ok(sums)
    }

    fn set_sums(&mut self, mut sums: Reduced) -> Result<()> {
        self.weight = sums.number("weight")?;
        for owned in &mut self.tables {
            let name = owned.table.name();
            owned.missed = sums.number(&format!("missed.{name}"))? > 0.0;
            let sums = sums.row_sums(&format!("rows.{name}"))?;
            owned.check(&sums)?;
            let RowSums { rows, gradients } = sums;
            owned.parts.clear();
            if !rows.is_empty() {
                owned.parts.push(Part {
                    rows,
                    gradient: gradients.contiguous()?,
                    weight: 1.0,
                });
            }
        }
        Ok(())
    }

    fn prepare(&mut self) -> Result<Option<NotFinite>> {
        not_negative("learning rate in force", Optim::lr(self))?;
        let weight = std::mem::take(&mut self.weight);
        let mut info = StepInfo {
            step: self.step,
            lr: Optim::lr(self),
            ..StepInfo::default()
        };
        let mut found = None;
        let mut all = Vec::with_capacity(self.tables.len());
        let mut squares = 0.0;
        for owned in &mut self.tables {
            let merged = match owned.parts.is_empty() {
                true => None,
                false => Some(owned.ready(weight)?),
            };
            owned.parts.clear();
            owned.open.clear();
            owned.missed = false;
            let part = merged.as_ref().map_or(Ok(0.0), Ready::squares)?;
            if part.is_nan() || part > largest(self.rule, owned.table.dtype()) {
                found.get_or_insert_with(|| NotFinite {
                    what: "gradient",
                    name: owned.table.name().into(),
                });
            }
            squares += part;
            all.push(merged);
        }
        info.gradient_norm = match &found {
            Some(_) => f64::NAN,
            None => squares.sqrt(),
        };
        self.ready = Some((all, info));
        Ok(found)
    }

    fn take(&mut self) -> Result<StepInfo> {
        let (ready, mut info) = self.ready.take().ok_or_else(not_prepared)?;
        self.step += 1;
        self.skips.in_a_row = 0;
        let mut change = 0.0;
        for (owned, ready) in self.tables.iter_mut().zip(&ready) {
            if let Some(ready) = ready {
                change += owned.apply(ready, self.rule, info.lr)?;
            }
        }
        info.update_norm = change.sqrt();
        Ok(info)
    }

    fn check_skip(&self, why: &NotFinite) -> Result<()> {
        self.skips.check(why, self.step, self.max_skipped)
    }

    fn skip(&mut self, why: &NotFinite) -> Result<StepInfo> {
        self.check_skip(why)?;
        let (_, info) = self.ready.take().ok_or_else(not_prepared)?;
        self.skips.note();
        self.step += 1;
        Ok(StepInfo {
            skipped: Some(why.name.clone()),
            ..info
        })
    }

    fn discard(&mut self) {
        for owned in &mut self.tables {
            owned.parts.clear();
            owned.open.clear();
            owned.missed = false;
            owned.table.take_leaves();
        }
        self.weight = 0.0;
        self.ready = None;
    }

    fn set_lr_factor(&mut self, factor: f64) {
        self.lr_factor = factor;
    }

    fn lr(&self) -> f64 {
        self.lr * self.lr_factor
    }

    /// The accumulators; the tables' numbers are the model's.
    fn state(&self) -> Result<State> {
        let mut state = State::of_kind("sparse");
        state.put("step", self.step);
        state.put("skipped_in_a_row", self.skips.in_a_row);
        state.put("skipped", self.skips.total);
        for owned in &self.tables {
            let width = Sums::width(&owned.table, self.rule);
            if width > 0 {
                let shape = [owned.table.dims()[0], width];
                let name = format!("sum_gradient_sq.{}", owned.table.name());
                state.tensors.insert(name, owned.sums.tensor(&shape)?);
            }
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        state.expect_kind("sparse")?;
        let step = state.value("step")?;
        let skips = match state.meta.contains_key("skipped") {
            true => Skips {
                in_a_row: state.value("skipped_in_a_row")?,
                total: state.value("skipped")?,
            },
            false => Skips::default(), // of a version that did not count them
        };
        let (mut all, mut names) = (Vec::with_capacity(self.tables.len()), HashSet::new());
        for owned in &self.tables {
            let width = Sums::width(&owned.table, self.rule);
            if width == 0 {
                continue;
            }
            let name = format!("sum_gradient_sq.{}", owned.table.name());
            let shape = [owned.table.dims()[0], width];
            let expected = format!("{:?} {shape:?}", owned.table.dtype());
            let Some(tensor) = state.tensors.get(&name) else {
                return Err(state_error(&name, &expected, "nothing"));
            };
            if tensor.dims() != shape || tensor.dtype() != owned.table.dtype() {
                let got = format!("{:?} {:?}", tensor.dtype(), tensor.dims());
                return Err(state_error(&name, &expected, &got));
            }
            all.push(Sums::read(tensor, &owned.table.device())?);
            names.insert(name);
        }
        state.expect_tensors(&names)?;
        (self.step, self.skips) = (step, skips);
        for (owned, sums) in self.tables.iter_mut().zip(all) {
            owned.sums = sums;
        }
        // What was accumulated is of no step of the state's.
        self.discard();
        Ok(())
    }
}
