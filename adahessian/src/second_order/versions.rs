//! When variables were changed: a second pass over a graph of old values is refused.
//!
//! candle keeps no version of a variable. Here every change that this crate makes is noted with a time
//! that goes up by one with each, and a store of gradients carries the time at which it was made. Times of several
//! stores that are made one are several.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, TensorId, Var};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard};

/// The type of a time in a store.
const TIME: DType = DType::I64;
/// So many variables are remembered; of more, those that were changed last.
const REMEMBERED: usize = 1 << 16;

#[derive(Default)]
struct Changes {
    time: u64,
    last: HashMap<TensorId, u64>,
}

static CHANGES: LazyLock<Mutex<Changes>> = LazyLock::new(Mutex::default);

fn changes() -> MutexGuard<'static, Changes> {
    CHANGES.lock().unwrap_or_else(|e| e.into_inner())
}

/// The present time.
pub(super) fn now() -> u64 {
    changes().time
}

/// Notes that the variable's values are about to be changed, or were.
pub(crate) fn changed(var: &Var) {
    let mut changes = changes();
    changes.time += 1;
    let time = changes.time;
    changes.last.insert(var.as_tensor().id(), time);
    if changes.last.len() > REMEMBERED {
        let oldest = time.saturating_sub(REMEMBERED as u64 / 2);
        changes.last.retain(|_, changed| *changed > oldest);
    }
}

/// When these variables were last changed: for work that changes them and puts the same bits back, after
/// which a graph of before is as right as it was.
pub(crate) struct Times(Vec<(TensorId, Option<u64>)>);

impl Times {
    pub fn of<'a>(vars: impl IntoIterator<Item = &'a Var>) -> Self {
        let changes = changes();
        let ids = vars.into_iter().map(|var| var.as_tensor().id());
        Self(ids.map(|id| (id, changes.last.get(&id).copied())).collect())
    }

    /// The variables have their old values again.
    pub fn put_back(self) {
        let mut changes = changes();
        for (id, time) in self.0 {
            match time {
                Some(time) => changes.last.insert(id, time),
                None => changes.last.remove(&id),
            };
        }
    }
}

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

/// The variables of these that were changed after this time.
pub(crate) fn changed_since(time: u64, ids: &[TensorId]) -> Option<TensorId> {
    let changes = changes();
    if changes.time == time {
        return None;
    }
    let later = |id: &TensorId| changes.last.get(id).is_some_and(|changed| *changed > time);
    ids.iter().copied().find(later)
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
