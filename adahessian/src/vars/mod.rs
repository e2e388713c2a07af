//! Variables by name, and vectors in the space they span.

mod vector;

pub use vector::VarVec;

use crate::error::{Error, Result};
use crate::numeric::in_memory;
use crate::second_order::versions;
use candle_core::{Tensor, Var};
use candle_nn::VarMap;
use std::collections::HashSet;
use std::sync::Arc;

/// The variables of a model, sorted by name. Cheap to clone.
///
/// A `VarMap` hands out its variables in the order of a hash map, another one in every process;
/// everything here goes by name, so that sums, probes and saved states are the same in all.
#[derive(Clone, Debug)]
pub struct NamedVars(Arc<[(String, Var)]>);

impl NamedVars {
    /// Sorts the variables by name.
    ///
    /// # Errors
    /// [`Error::DuplicateVariable`] if two have the same name, [`Error::SharedVariable`] if one has two.
    pub fn new(vars: impl IntoIterator<Item = (String, Var)>) -> Result<Self> {
        let mut vars: Vec<_> = vars.into_iter().collect();
        vars.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(w) = vars.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(Error::DuplicateVariable {
                name: w[0].0.clone(),
            });
        }
        let vars = Self(vars.into());
        match vars.shared() {
            Some((first, second)) => Err(Error::SharedVariable { first, second }),
            None => Ok(vars),
        }
    }

    /// Two names of one variable, if there are such.
    pub(crate) fn shared(&self) -> Option<(String, String)> {
        let mut seen = HashSet::new();
        let again = self.0.iter().find(|(_, var)| !seen.insert(var.id()))?;
        let first = self.0.iter().find(|(_, var)| var.id() == again.1.id())?;
        Some((first.0.clone(), again.0.clone()))
    }

    /// Every variable once, under the first of its names.
    fn once(vars: impl IntoIterator<Item = (String, Var)>) -> Self {
        let mut vars: Vec<_> = vars.into_iter().collect();
        vars.sort_by(|a, b| a.0.cmp(&b.0));
        let mut seen = HashSet::new();
        vars.retain(|(_, var)| seen.insert(var.id()));
        Self(vars.into())
    }

    /// The variables without the running statistics of normalisations, which nobody trains: where
    /// there are both `….running_mean` and `….running_var`, as in [`candle_nn::BatchNorm`], these two.
    ///
    /// Optimizers and checks take these alone.
    pub fn trained(&self) -> Self {
        let statistic = |name: &str| {
            let (layer, other) = match name.strip_suffix("running_mean") {
                Some(layer) => (layer, "running_var"),
                None => (name.strip_suffix("running_var")?, "running_mean"),
            };
            let whole = layer.is_empty() || layer.ends_with('.');
            whole.then(|| format!("{layer}{other}"))
        };
        let (_, trained) = self
            .partition(|name| statistic(name).is_some_and(|other| self.position(&other).is_ok()));
        trained
    }

    /// The (name, variable) pairs in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Var)> {
        self.0.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// Whether all of them are of one type and on one device, which is not the CPU.
    pub(crate) fn are_elsewhere(&self) -> bool {
        let mut all = self.iter().map(|(_, var)| var);
        let Some(first) = all.next() else {
            return false;
        };
        let alike = |v: &Var| v.dtype() == first.dtype() && v.device().same_device(first.device());
        !in_memory(first) && all.all(alike)
    }

    /// How many variables there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of entries of all variables together.
    pub fn elem_count(&self) -> usize {
        self.0.iter().map(|(_, v)| v.elem_count()).sum()
    }

    /// The names in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The variable of this name.
    ///
    /// # Errors
    /// [`Error::UnknownVariable`] if there is none.
    pub fn get(&self, name: &str) -> Result<&Var> {
        Ok(&self.0[self.position(name)?].1)
    }

    pub(crate) fn position(&self, name: &str) -> Result<usize> {
        self.0
            .binary_search_by(|(n, _)| n.as_str().cmp(name))
            .map_err(|_| Error::UnknownVariable {
                name: name.into(),
                count: self.len(),
                example: self.0.first().map(|(n, _)| n.clone()),
            })
    }

    /// The variables whose name satisfies `keep`, and the rest.
    pub fn partition(&self, keep: impl Fn(&str) -> bool) -> (Self, Self) {
        let (a, b): (Vec<_>, Vec<_>) = self.0.iter().cloned().partition(|(n, _)| keep(n));
        (Self(a.into()), Self(b.into()))
    }

    /// These variables and those of `other`; where both have a name, the variable of `self`, and where both have a
    /// variable, its name in `self`: under two names it would be stepped twice.
    pub fn union(&self, other: &Self) -> Self {
        let id = |var: &Var| var.as_tensor().id();
        let known: HashSet<_> = self.0.iter().map(|(_, var)| id(var)).collect();
        let is_new =
            |(name, var): &&(String, Var)| self.get(name).is_err() && !known.contains(&id(var));
        let new = other.0.iter().filter(is_new);
        let mut all: Vec<_> = self.0.iter().chain(new).cloned().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Self(all.into())
    }

    /// Copies of all values, not connected to any graph.
    ///
    /// # Errors
    /// If candle cannot copy.
    pub fn snapshot(&self) -> Result<VarVec> {
        let copies = self
            .0
            .iter()
            .map(|(_, v)| Ok(v.as_detached_tensor().copy()?));
        VarVec::new(self, copies.collect::<Result<_>>()?)
    }

    /// Sets every variable to the vector's values, which may be other variables' own memory.
    ///
    /// # Errors
    /// [`Error::Variable`] if the vector belongs to other variables, or has numbers of another type or on another
    /// device; nothing is changed then.
    pub fn assign(&self, values: &VarVec) -> Result<()> {
        self.expect_same(values.vars())?;
        for ((name, var), value) in self.iter().zip(values.tensors()) {
            let place =
                |t: &candle_core::Tensor| format!("{:?} on {:?}", t.dtype(), t.device().location());
            if var.dtype() != value.dtype() || !var.device().same_device(value.device()) {
                return Err(Error::Variable {
                    name: name.into(),
                    expected: place(var),
                    got: place(value),
                });
            }
        }
        // Two variables may take each other's value, and candle refuses a variable's own.
        let own: HashSet<usize> = self.iter().map(|(_, var)| memory_of(var)).collect();
        let apart = values
            .tensors()
            .iter()
            .map(|value| match own.contains(&memory_of(value)) {
                true => Ok(value.force_contiguous()?),
                false => Ok(value.clone()),
            });
        let apart = apart.collect::<Result<Vec<_>>>()?;
        for ((_, var), value) in self.0.iter().zip(&apart) {
            versions::set(var, value)?;
        }
        Ok(())
    }

    /// What `work` gives where `leave` has brought the variables; they have the values of `origin`, their
    /// present ones, again afterwards, whatever happens.
    pub(crate) fn elsewhere<R>(
        &self,
        origin: &VarVec,
        leave: impl FnOnce() -> Result<()>,
        work: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let vars = self.0.iter().map(|(_, var)| var);
        let back = versions::Return::to(vars.zip(origin.tensors()));
        let outcome = leave().and_then(|()| work());
        back.now()?;
        outcome
    }

    /// Checks that `other` has the same names, shapes and dtypes: that a vector of one is a vector of
    /// the other.
    pub(crate) fn expect_same(&self, other: &Self) -> Result<()> {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ok(());
        }
        let differ = |name: &str, expected: String, got: String| Error::Variable {
            name: name.into(),
            expected,
            got,
        };
        for ((name, var), (other_name, other)) in self.iter().zip(other.iter()) {
            let kind = |var: &Var| format!("{:?} {:?}", var.dtype(), var.dims());
            if name != other_name {
                let got = format!("a vector that goes on with `{other_name}`");
                return Err(differ(name, "a vector of the same variables".into(), got));
            }
            if kind(var) != kind(other) {
                return Err(differ(name, kind(var), kind(other)));
            }
        }
        match self.len() == other.len() {
            true => Ok(()),
            false => Err(differ(
                "(all)",
                format!("a vector of {} variables", self.len()),
                format!("one of {}", other.len()),
            )),
        }
    }
}

/// All variables of the map at the time of the call; later ones are not seen. A variable with several
/// names is there once, under the first of them in the order of letters.
impl From<&VarMap> for NamedVars {
    fn from(map: &VarMap) -> Self {
        let data = map.data().lock().unwrap_or_else(|e| e.into_inner());
        Self::once(data.iter().map(|(n, v)| (n.clone(), v.clone())))
    }
}

impl From<&NamedVars> for NamedVars {
    fn from(vars: &NamedVars) -> Self {
        vars.clone()
    }
}

/// Variables without names are called `var.000000`, `var.000001`, … in their order, which has to be the same in every
/// process that goes on from what another saved: that of `VarMap::all_vars` is not, so give the map itself. One that is
/// given twice is there once, under the first of its names.
impl From<Vec<Var>> for NamedVars {
    fn from(vars: Vec<Var>) -> Self {
        let named = vars.into_iter().enumerate();
        Self::once(named.map(|(i, v)| (format!("{UNNAMED}{i:06}"), v)))
    }
}

/// How the names of variables begin that were given none.
pub(crate) const UNNAMED: &str = "var.";

/// Where a tensor's numbers lie, as a number that tensors of the same memory have in common.
fn memory_of(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    std::ptr::from_ref(&*storage).addr()
}
