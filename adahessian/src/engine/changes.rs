//! When variables were changed: a pass over a graph of old values is refused.
//!
//! candle keeps no version of a variable. Here every change that this crate makes is noted with a time
//! that goes up by one with each.

use candle_core::{TensorId, Var};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard};

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
pub(crate) fn now() -> u64 {
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

/// The variables of these that were changed after this time.
pub(crate) fn changed_since(time: u64, ids: &[TensorId]) -> Option<TensorId> {
    let changes = changes();
    if changes.time == time {
        return None;
    }
    let later = |id: &TensorId| changes.last.get(id).is_some_and(|changed| *changed > time);
    ids.iter().copied().find(later)
}
