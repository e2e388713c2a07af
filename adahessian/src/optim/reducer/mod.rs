//! Between accumulating and the step: sums over all participants of one training.
//!
//! Each participant has a model and an optimizer of its own, equal to the others', and accumulates the
//! gradients of its own part of a batch. Before the step a [`Reducer`] replaces what each has accumulated
//! by the sum over all, so that all take the same step, or skip it together. Probes are functions of
//! (seed, step, sample, name): they are the same everywhere without being sent.

mod threads;

pub use threads::{ThreadGroup, ThreadReducer};

use crate::error::{Error, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// Gradients of the rows of a sparse table that were looked up.
#[derive(Clone, Debug)]
pub struct RowSums {
    /// The rows, which rise.
    pub rows: Vec<u32>,
    /// Their gradients, one a row.
    pub gradients: Tensor,
}

/// What one participant has accumulated for a step: weighted sums, by name. All participants have the
/// same names, with the same shapes; of a table each has the rows that it looked up.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Σ w g and Σ w D: `gradient.NAME` and, on the steps that compute it, `diagonal.NAME`.
    pub tensors: BTreeMap<String, Tensor>,
    /// Σ w g of tables: `rows.NAME`.
    pub rows: BTreeMap<String, RowSums>,
    /// Σ w, Σ w L, and which variables were reached.
    pub numbers: BTreeMap<String, f64>,
}

/// Adds up the sums of all participants. An implementation adds every entry to the others' of the same
/// name and gives all of them the same bits; it need not know what an entry means.
pub trait Reducer: Send {
    /// The sums over all participants.
    ///
    /// # Errors
    /// If another participant is gone ([`Error::Participant`]), or has other names or shapes
    /// ([`Error::Variable`]).
    fn reduce(&mut self, own: Sums) -> Result<Sums>;
}

impl Sums {
    /// Adds another's entries, every name preceded by `prefix`.
    pub fn merge(&mut self, prefix: &str, other: Sums) {
        let named = |name: String| format!("{prefix}{name}");
        let tensors = other.tensors.into_iter().map(|(n, x)| (named(n), x));
        self.tensors.extend(tensors);
        let rows = other.rows.into_iter().map(|(n, x)| (named(n), x));
        self.rows.extend(rows);
        let numbers = other.numbers.into_iter().map(|(n, x)| (named(n), x));
        self.numbers.extend(numbers);
    }

    /// Takes out what [`Sums::merge`] added under this prefix.
    pub fn part(&mut self, prefix: &str) -> Sums {
        Sums {
            tensors: cut(&mut self.tensors, prefix),
            rows: cut(&mut self.rows, prefix),
            numbers: cut(&mut self.numbers, prefix),
        }
    }

    pub(crate) fn number(&self, name: &str) -> Result<f64> {
        self.numbers.get(name).copied().ok_or_else(|| missing(name))
    }

    pub(crate) fn tensor(&mut self, name: &str) -> Result<Tensor> {
        self.tensors.remove(name).ok_or_else(|| missing(name))
    }

    pub(crate) fn row_sums(&mut self, name: &str) -> Result<RowSums> {
        self.rows.remove(name).ok_or_else(|| missing(name))
    }
}

fn cut<T>(all: &mut BTreeMap<String, T>, prefix: &str) -> BTreeMap<String, T> {
    let (own, rest) = std::mem::take(all)
        .into_iter()
        .partition::<BTreeMap<_, _>, _>(|(name, _)| name.starts_with(prefix));
    *all = rest;
    let own = own.into_iter();
    own.map(|(name, x)| (name[prefix.len()..].to_string(), x))
        .collect()
}

fn missing(name: &str) -> Error {
    Error::Variable {
        name: name.into(),
        expected: "a sum over all participants".into(),
        got: "none".into(),
    }
}
