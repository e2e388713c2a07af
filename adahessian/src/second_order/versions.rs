//! When gradients were made: a second pass over a graph of old values is refused.
//!
//! A store of gradients carries the time ([`changes`](crate::engine::changes)) at which it was made. Times of several
//! stores that are made one are several.

use crate::engine::changes::Times;
pub(crate) use crate::engine::changes::{changed, changed_since, now};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, TensorId, Var};

/// The type of a time in a store.
const TIME: DType = DType::I64;
/// Brings variables back to values that they had, whatever happens in between, a panic too.
pub(crate) struct Return<'a> {
    to: Vec<(&'a Var, &'a Tensor)>,
    times: Option<Times>,
}

impl<'a> Return<'a> {
    /// To these values, which are the present ones.
    pub fn to(to: impl IntoIterator<Item = (&'a Var, &'a Tensor)>) -> Self {
        let to: Vec<_> = to.into_iter().collect();
        let times = Times::of(to.iter().map(|(var, _)| *var));
        Self {
            to,
            times: Some(times),
        }
    }

    /// Now, where it can be said if it fails.
    pub fn now(mut self) -> candle_core::Result<()> {
        self.bring()
    }

    fn bring(&mut self) -> candle_core::Result<()> {
        let Some(times) = self.times.take() else {
            return Ok(());
        };
        self.to
            .iter()
            .try_for_each(|(var, value)| set(var, value))?;
        times.put_back();
        Ok(())
    }
}

impl Drop for Return<'_> {
    fn drop(&mut self) {
        // Nobody can be told any more.
        let _ = self.bring();
    }
}

/// Sets a variable, and notes it.
pub(crate) fn set(var: &Var, value: &Tensor) -> candle_core::Result<()> {
    changed(var);
    var.set(value)
}

/// What a store holds gradients of.
pub(crate) fn ids_of(grads: &GradStore) -> Vec<TensorId> {
    grads.get_ids().copied().collect()
}

/// Leaves a time in a store of gradients, as the value of a tensor, for it holds nothing else. Its key is a new one:
/// `GradStore::extend` adds up what two stores have under one, and the sum of two times is none.
pub(super) fn stamp(grads: &mut GradStore, time: u64) -> candle_core::Result<()> {
    let key = Tensor::zeros((), TIME, &Device::Cpu)?;
    grads.insert(&key, Tensor::new(time as i64, &Device::Cpu)?);
    Ok(())
}

/// When [`backward`](super::backward) made these gradients; of several stores' in one the earliest. No gradient has
/// the type of a time.
pub(crate) fn time_of(grads: &GradStore) -> Option<u64> {
    let all = grads.get_ids().filter_map(|id| grads.get_id(*id));
    let times = all.filter(|tensor| tensor.dtype() == TIME && tensor.rank() == 0);
    let times = times.filter_map(|time| u64::try_from(time.to_scalar::<i64>().ok()?).ok());
    times.min()
}
