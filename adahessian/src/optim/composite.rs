//! Several optimizers as one, each on variables of its own.

use crate::error::{Error, Result};
use crate::optim::reducer::{Reducer, Sums};
use crate::optim::state::state_error;
use crate::optim::{NotFinite, Optim, Reach, State, StepInfo};
use crate::tables::SparseTable;
use crate::vars::{NamedVars, VarVec};
use candle_core::Tensor;
use candle_core::backprop::GradStore;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Several optimizers that step together: AdaHessian on the dense layers and Adagrad on the
/// embeddings, say. The Hessian of one part is that over its own variables alone.
///
/// ```
/// use adahessian::{Adagrad, AdaHessian, Composite, NamedVars, Optim, Rule};
/// # use candle_core::{Device, Var};
/// # let x = Var::new(&[1f32, 2.0], &Device::Cpu)?;
/// # let e = Var::new(&[1f32, 2.0], &Device::Cpu)?;
/// let all = NamedVars::new([("mlp.weight".into(), x), ("embedding".into(), e)])?;
/// let (sparse, dense) = all.partition(|name| name.starts_with("embedding"));
/// let mut opt = Composite::new()
///     .with("dense", AdaHessian::builder().build(&dense)?)
///     .with("sparse", Adagrad::default().lr(0.01).build(&sparse)?)
///     .covering(&all)?;
/// assert!(opt.needs_graph());
/// # Ok::<(), adahessian::Error>(())
/// ```
pub struct Composite {
    parts: Vec<(String, Box<dyn Optim>)>,
    /// The variables of all parts.
    vars: NamedVars,
    /// Variables and tables that two parts own, or two of one name.
    twice: Vec<String>,
    /// A part that cannot be one, and why.
    unfit: Option<(String, &'static str)>,
    reducer: Option<Box<dyn Reducer>>,
}

impl Default for Composite {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            vars: NamedVars::from(Vec::new()),
            twice: Vec::new(),
            unfit: None,
            reducer: None,
        }
    }
}

impl Composite {
    /// No part yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part under a name, which precedes its entries in the state. A name that another part has, or
    /// with a slash, a part with a reducer of its own, and a variable, a table or their name in two parts are
    /// errors at the next step.
    pub fn with(self, name: impl Into<String>, part: impl Optim + 'static) -> Self {
        self.with_boxed(name, Box::new(part))
    }

    /// The same for a part that was chosen at run time.
    pub fn with_boxed(mut self, name: impl Into<String>, mut part: Box<dyn Optim>) -> Self {
        let name = name.into();
        let owned: HashSet<_> = self.vars.iter().map(|(_, var)| var.id()).collect();
        let again = part.vars().iter().filter(|(name, var)| {
            owned.contains(&var.id()) || self.vars.get(name).is_ok() // probes go by names
        });
        self.twice.extend(again.map(|(name, _)| name.to_string()));
        let tables = self.tables();
        let again = part.tables().into_iter().filter(|new| {
            let same = |old: &SparseTable| old.is(new) || old.name() == new.name();
            tables.iter().any(same)
        });
        self.twice
            .extend(again.map(|table| table.name().to_string()));
        if let Some(why) = self.refused(&name, part.as_mut()) {
            self.unfit.get_or_insert((name.clone(), why));
        }
        self.vars = self.vars.union(part.vars());
        self.parts.push((name, part));
        self
    }

    /// Why a part cannot be one.
    fn refused(&self, name: &str, part: &mut dyn Optim) -> Option<&'static str> {
        if self.part(name).is_some() {
            return Some("a name of its own for each");
        }
        if name.contains('/') {
            return Some("names without a slash, which ends them in the state");
        }
        let reduces = part.reducer().is_some();
        reduces.then_some("no reducer but that of the whole, which a part's would stand beside")
    }

    /// That every part can be one.
    fn fit(&self) -> Result<()> {
        match &self.unfit {
            None => Ok(()),
            Some((name, why)) => Err(Error::Setting {
                what: "parts of a composite optimizer",
                expected: (*why).into(),
                got: format!("part `{name}`"),
            }),
        }
    }

    /// That, and that nothing has two owners.
    fn check(&self) -> Result<()> {
        self.fit()?;
        match self.twice.is_empty() {
            true => Ok(()),
            false => Err(Error::Coverage {
                uncovered: Vec::new(),
                twice: self.twice.clone(),
            }),
        }
    }

    /// Checks that the parts own every one of these variables exactly once.
    /// Variables that a part has frozen count as not owned; running statistics need no owner.
    ///
    /// # Errors
    /// [`Error::Coverage`] listing the variables in no part or in two; [`Error::Setting`] for a part that cannot
    /// be one.
    pub fn covering(self, all: &NamedVars) -> Result<Self> {
        self.fit()?;
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

    /// Adds to all parts, or to none.
    fn each(&mut self, mut add: impl FnMut(&mut dyn Optim) -> Result<()>) -> Result<()> {
        let mut parts = self.parts.iter_mut();
        let added = parts.try_for_each(|(_, part)| add(part.as_mut()));
        if added.is_err() {
            self.discard();
        }
        added
    }

    /// The part of this name.
    pub fn part(&self, name: &str) -> Option<&dyn Optim> {
        let part = self.parts.iter().find(|(n, _)| n == name);
        part.map(|(_, part)| part.as_ref())
    }
}

impl Composite {
    /// That every entry of a state is of a part: a further one is of another optimizer.
    fn expect_own(&self, state: &State) -> Result<()> {
        let owned = |entry: &str| {
            let part = entry.split('/').next().unwrap_or_default();
            entry == "kind" || self.part(part).is_some()
        };
        let mut entries = state.meta.keys().chain(state.tensors.keys());
        match entries.find(|entry| !owned(entry)) {
            None => Ok(()),
            Some(entry) => {
                let parts: Vec<_> = self.parts.iter().map(|(name, _)| name.as_str()).collect();
                let expected = format!("entries of the parts {parts:?} alone");
                Err(state_error(entry, &expected, "one of another part"))
            }
        }
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

fn joined(parts: Vec<StepInfo>) -> StepInfo {
    let norm = |of: fn(&StepInfo) -> f64| parts.iter().map(|p| of(p).powi(2)).sum::<f64>().sqrt();
    let (gradient_norm, update_norm) = (norm(|p| p.gradient_norm), norm(|p| p.update_norm));
    let mut parts = parts.into_iter();
    let mut total = parts.next().unwrap_or_default();
    for part in parts {
        total.curvature = total.curvature.or(part.curvature);
        total.skipped = total.skipped.or(part.skipped);
        total.loss = total.loss.or(part.loss);
        total.bounded += part.bounded;
        total.waiting += part.waiting;
    }
    StepInfo {
        gradient_norm,
        update_norm,
        ..total
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
        self.each(|part| part.accumulate_gradient(grads, weight))
    }

    fn accumulate_curvature(&mut self, grads: &GradStore, weight: f64) -> Result<()> {
        self.each(|part| match part.needs_graph() {
            true => part.accumulate_curvature(grads, weight),
            false => Ok(()),
        })
    }

    /// Each part takes what belongs to its variables. A probe need not cover those of parts of first order.
    fn accumulate_probed(
        &mut self,
        grads: &GradStore,
        probes: &[VarVec],
        weight: f64,
    ) -> Result<()> {
        self.each(|part| {
            // A probe that lacks some of the part's variables is the part's to refuse: one of first order takes none.
            let own = |probe: &VarVec| {
                let restricted = probe.restricted(part.vars());
                restricted.unwrap_or_else(|_| probe.clone())
            };
            let own: Vec<_> = probes.iter().map(own).collect();
            part.accumulate_probed(grads, &own, weight)
        })
    }

    fn reach(&self) -> Reach {
        let mut reach = Reach::default();
        for (_, part) in &self.parts {
            reach.join(part.reach());
        }
        reach
    }

    /// Of all parts, and that they are fit to be parts.
    fn check_ready(&self) -> Result<()> {
        self.check()?;
        let mut parts = self.parts.iter();
        parts.try_for_each(|(_, part)| part.check_ready())
    }

    /// Of the parts that have one.
    fn diagonal(&self) -> Result<Option<VarVec>> {
        let mut found: Option<(NamedVars, HashMap<String, Tensor>)> = None;
        for (_, part) in &self.parts {
            let Some(own) = part.diagonal()? else {
                continue;
            };
            let none = || (NamedVars::from(Vec::new()), HashMap::new());
            let (vars, tensors) = found.get_or_insert_with(none);
            *vars = vars.union(own.vars());
            tensors.extend(own.iter().map(|(n, t)| (n.to_string(), t.clone())));
        }
        let Some((vars, mut tensors)) = found else {
            return Ok(None);
        };
        let sorted = vars.names().filter_map(|name| tensors.remove(name));
        VarVec::new(&vars, sorted.collect()).map(Some)
    }

    fn reducer(&mut self) -> &mut Option<Box<dyn Reducer>> {
        &mut self.reducer
    }

    fn sums(&self) -> Result<Sums> {
        let mut all = Sums::default();
        for (name, part) in &self.parts {
            all.merge(&format!("{name}/"), part.sums()?);
        }
        Ok(all)
    }

    fn set_sums(&mut self, mut sums: Sums) -> Result<()> {
        let mut parts = self.parts.iter_mut();
        parts.try_for_each(|(name, part)| part.set_sums(sums.part(&format!("{name}/"))))
    }

    /// Of all parts: if one must not step, none does.
    fn prepare(&mut self) -> Result<Option<NotFinite>> {
        let mut found = None;
        for (_, part) in &mut self.parts {
            let why = part.prepare()?;
            found = found.or(why);
        }
        Ok(found)
    }

    /// The parts step in their order. Norms are those of all parts together; the curvature is that of the
    /// first part that has one.
    fn take(&mut self) -> Result<StepInfo> {
        let parts = self.parts.iter_mut().map(|(_, part)| part.take());
        Ok(joined(parts.collect::<Result<_>>()?))
    }

    /// All parts count it, whichever gives up.
    fn check_skip(&self, why: &NotFinite) -> Result<()> {
        let mut parts = self.parts.iter();
        parts.try_for_each(|(_, part)| part.check_skip(why))
    }

    fn skip(&mut self, why: &NotFinite) -> Result<StepInfo> {
        self.check_skip(why)?;
        let parts = self.parts.iter_mut().map(|(_, part)| part.skip(why));
        let parts: Vec<_> = parts.collect();
        Ok(joined(parts.into_iter().collect::<Result<_>>()?))
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
        self.check()?;
        self.expect_own(state)?;
        let before = self.state()?;
        for index in 0..self.parts.len() {
            let (name, part) = &mut self.parts[index];
            if let Err(error) = part.load_state(&state.part(&format!("{name}/"))) {
                // No state changes on an error: the parts already loaded go back.
                for (name, part) in &mut self.parts[..index] {
                    part.load_state(&before.part(&format!("{name}/")))?;
                }
                if index > 0 {
                    // Which took with it what they had accumulated: that of the others would be a part of a step.
                    self.discard();
                }
                return Err(error);
            }
        }
        Ok(())
    }
}
