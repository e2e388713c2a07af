//! Several optimizers as one, each on variables of its own.

use crate::error::{Error, Result};
use crate::optim::{Optim, Reach, State, StepInfo};
use crate::sparse::SparseTable;
use crate::vars::{NamedVars, VarVec};
use candle_core::backprop::GradStore;
use std::collections::{BTreeMap, HashSet};

/// Several optimizers that step together: AdaHessian on the dense layers and Adagrad on the
/// embeddings, say. The Hessian of one part is that over its own variables alone.
///
/// ```
/// use adahessian::{Adagrad, AdaHessian, Common, Composite, FirstOrder, NamedVars, Optim};
/// # use candle_core::{Device, Var};
/// # let x = Var::new(&[1f32, 2.0], &Device::Cpu)?;
/// # let e = Var::new(&[1f32, 2.0], &Device::Cpu)?;
/// let all = NamedVars::new([("mlp.weight".into(), x), ("embedding".into(), e)])?;
/// let (sparse, dense) = all.partition(|name| name.starts_with("embedding"));
/// let mut opt = Composite::new()
///     .with("dense", AdaHessian::builder().build(&dense)?)
///     .with("sparse", FirstOrder::new(&sparse, Adagrad::default(), Common::new(0.01))?)
///     .covering(&all)?;
/// assert!(opt.needs_graph());
/// # Ok::<(), adahessian::Error>(())
/// ```
pub struct Composite {
    parts: Vec<(String, Box<dyn Optim>)>,
    /// The variables of all parts.
    vars: NamedVars,
    /// Variables that two parts own.
    twice: Vec<String>,
}

impl Default for Composite {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            vars: NamedVars::from(Vec::new()),
            twice: Vec::new(),
        }
    }
}

impl Composite {
    /// No part yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part under a name, which precedes its entries in the state.
    pub fn with(self, name: impl Into<String>, part: impl Optim + 'static) -> Self {
        self.with_boxed(name, Box::new(part))
    }

    /// The same for a part that was chosen at run time.
    pub fn with_boxed(mut self, name: impl Into<String>, part: Box<dyn Optim>) -> Self {
        let owned: HashSet<_> = self.vars.iter().map(|(_, var)| var.id()).collect();
        let again = part
            .vars()
            .iter()
            .filter(|(_, var)| owned.contains(&var.id()));
        self.twice.extend(again.map(|(name, _)| name.to_string()));
        self.vars = self.vars.union(part.vars());
        self.parts.push((name.into(), part));
        self
    }

    /// Checks that the parts own every one of these variables exactly once.
    /// Variables that a part has frozen count as not owned; running statistics need no owner.
    ///
    /// # Errors
    /// [`Error::Coverage`] listing the variables in no part or in two.
    pub fn covering(self, all: &NamedVars) -> Result<Self> {
        let all = all.trained();
        let owned = self.parts.iter().flat_map(|(_, part)| part.vars().names());
        each_once(all.names(), owned)?;
        Ok(self)
    }

    /// Checks that the parts own every one of these sparse tables exactly once.
    ///
    /// # Errors
    /// [`Error::Coverage`] listing the tables in no part or in two: of these the first part would get
    /// all gradients.
    pub fn covering_tables<'a>(
        self,
        all: impl IntoIterator<Item = &'a SparseTable>,
    ) -> Result<Self> {
        let (all, owned): (Vec<_>, _) = (all.into_iter().collect(), self.tables());
        let all = all.iter().map(|table| table.name());
        each_once(all, owned.iter().map(SparseTable::name))?;
        Ok(self)
    }

    /// The part of this name.
    pub fn part(&self, name: &str) -> Option<&dyn Optim> {
        let part = self.parts.iter().find(|(n, _)| n == name);
        part.map(|(_, part)| part.as_ref())
    }
}

/// Compares what there is with what the parts own.
fn each_once<'a>(
    all: impl Iterator<Item = &'a str>,
    owned: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let mut owners: BTreeMap<&str, usize> = all.map(|name| (name, 0)).collect();
    for name in owned {
        *owners.entry(name).or_default() += 1;
    }
    let with = |wanted: fn(usize) -> bool| {
        let names = owners.iter().filter(|(_, count)| wanted(**count));
        names.map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    let (uncovered, twice) = (with(|n| n == 0), with(|n| n > 1));
    match uncovered.is_empty() && twice.is_empty() {
        true => Ok(()),
        false => Err(Error::Coverage { uncovered, twice }),
    }
}

impl Optim for Composite {
    fn vars(&self) -> &NamedVars {
        &self.vars
    }

    fn tables(&self) -> Vec<SparseTable> {
        self.parts
            .iter()
            .flat_map(|(_, part)| part.tables())
            .collect()
    }

    fn needs_graph(&self) -> bool {
        self.parts.iter().any(|(_, part)| part.needs_graph())
    }

    fn accumulate_gradient(&mut self, grads: &GradStore, weight: f64) -> Result<()> {
        let mut parts = self.parts.iter_mut();
        parts.try_for_each(|(_, part)| part.accumulate_gradient(grads, weight))
    }

    fn accumulate_curvature(&mut self, grads: &GradStore, weight: f64) -> Result<()> {
        let due = self.parts.iter_mut().filter(|(_, part)| part.needs_graph());
        for (_, part) in due {
            part.accumulate_curvature(grads, weight)?;
        }
        Ok(())
    }

    /// Each part takes what belongs to its variables.
    fn accumulate_probed(
        &mut self,
        grads: &GradStore,
        probes: &[VarVec],
        weight: f64,
    ) -> Result<()> {
        for (_, part) in &mut self.parts {
            let own = probes.iter().map(|probe| probe.restricted(part.vars()));
            part.accumulate_probed(grads, &own.collect::<Result<Vec<_>>>()?, weight)?;
        }
        Ok(())
    }

    fn reach(&self) -> Reach {
        let mut reach = Reach::default();
        for (_, part) in &self.parts {
            reach.join(part.reach());
        }
        reach
    }

    /// Of all parts, and that no variable has two.
    fn check_ready(&self) -> Result<()> {
        if !self.twice.is_empty() {
            return Err(Error::Coverage {
                uncovered: Vec::new(),
                twice: self.twice.clone(),
            });
        }
        let mut parts = self.parts.iter();
        parts.try_for_each(|(_, part)| part.check_ready())
    }

    /// The parts step in their order. If one skips because its gradient is not finite, the others
    /// have decided for themselves. Norms are those of all parts together; the curvature is that of
    /// the first part that has one.
    fn update(&mut self) -> Result<StepInfo> {
        let mut total = StepInfo::default();
        let (mut gradient, mut update) = (0.0, 0.0);
        for (index, (_, part)) in self.parts.iter_mut().enumerate() {
            let info = part.update()?;
            gradient += info.gradient_norm.powi(2);
            update += info.update_norm.powi(2);
            if index == 0 {
                total = info;
            } else {
                total.curvature = total.curvature.or(info.curvature);
                total.skipped = total.skipped.or(info.skipped);
                total.loss = total.loss.or(info.loss);
            }
        }
        total.gradient_norm = gradient.sqrt();
        total.update_norm = update.sqrt();
        Ok(total)
    }

    fn discard(&mut self) {
        for (_, part) in &mut self.parts {
            part.discard();
        }
    }

    fn set_lr_factor(&mut self, factor: f64) {
        for (_, part) in &mut self.parts {
            part.set_lr_factor(factor);
        }
    }

    /// The learning rate of the first part.
    fn lr(&self) -> f64 {
        self.parts.first().map_or(0.0, |(_, part)| part.lr())
    }

    fn state(&self) -> Result<State> {
        let mut state = State::of_kind("composite");
        for (name, part) in &self.parts {
            state.merge(&format!("{name}/"), &part.state()?);
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        state.expect_kind("composite")?;
        let before = self.state()?;
        for index in 0..self.parts.len() {
            let (name, part) = &mut self.parts[index];
            if let Err(error) = part.load_state(&state.part(&format!("{name}/"))) {
                // Nothing changes on an error: the parts already loaded go back.
                for (name, part) in &mut self.parts[..index] {
                    part.load_state(&before.part(&format!("{name}/")))?;
                }
                return Err(error);
            }
        }
        Ok(())
    }
}
