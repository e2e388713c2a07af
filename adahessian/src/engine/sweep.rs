//! Which backward pass is running: stamps that keep two of them apart.

use crate::error::{Error, Result};
use candle_core::{Device, Result as CandleResult, Var};
use std::cell::{Cell, OnceCell};
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static CURRENT: Cell<u64> = Cell::new(tick());
    static KEEPS_GRAPH: OnceCell<bool> = const { OnceCell::new() };
}

/// A number that is larger than all before it: the time, as far as passes are concerned.
pub(super) fn tick() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A backward pass on this thread. When it ends, the pass that it interrupted goes on.
pub(crate) struct Pass {
    outer: u64,
}

impl Pass {
    /// Without it, all passes of a thread share one stamp until one of them fails, which is enough: what comes twice
    /// within one is noticed (`Slot::add_gradient`).
    pub fn begin() -> Self {
        Self {
            outer: CURRENT.replace(tick()),
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}

/// An operation's part in a pass. Where it fails the pass has ended, and the next one on this thread, over the same graph
/// perhaps, has another stamp: what this one left is not added to.
pub(super) fn part_of_pass<T>(work: impl FnOnce() -> CandleResult<T>) -> CandleResult<T> {
    work().inspect_err(|_| CURRENT.set(tick()))
}

/// The stamp of the backward pass on this thread.
pub(super) fn current() -> u64 {
    CURRENT.get()
}

/// Whether candle keeps the graph of gradients on this thread. Then a pass over what a first pass
/// has left is the second derivative's own graph, and the third derivative, which the engine does not
/// have, would come out as zero.
pub(super) fn keeps_graph() -> bool {
    KEEPS_GRAPH.with(|keeps| *keeps.get_or_init(|| second_exp().is_ok_and(|second| second > 5.0)))
}

/// d²/dx² exp(2x) at 0.5, which is 4e, by two passes on this thread; half of it where candle cuts
/// the graph.
fn second_exp() -> candle_core::Result<f64> {
    let x = Var::new(0.5f64, &Device::Cpu)?;
    let first = (x.as_tensor() * 2.0)?.exp()?.backward()?;
    match first.get(&x) {
        Some(slope) => match slope.backward()?.get(&x) {
            Some(second) => second.to_scalar(),
            None => Ok(0.0),
        },
        None => Ok(0.0),
    }
}

/// Refuses a pass of the second level that would be differentiated once more.
pub(super) fn expect_last(name: &str, cotangent_is_tracked: bool) -> Result<()> {
    match cotangent_is_tracked || keeps_graph() {
        true => Err(no_third_derivative(name)),
        false => Ok(()),
    }
}

pub(super) fn no_third_derivative(name: &str) -> Error {
    Error::Engine {
        what: format!(
            "a third derivative of the fused operation `{name}` was asked for, or the graph for one: it has two. \
             Differentiate a function of gradients with backward_detached, or enter the inputs with \
             Handle::composed for more"
        ),
    }
}
