//! The gradients of variables, past candle's own sums.
//!
//! For every gradient candle makes zeros of its size and adds to them: two more passes over memory,
//! and two buffers kept wherever the graph is. A model's parameters are where that matters: most have
//! one use, and together they can be larger than all activations. So in a backward pass of this
//! library ([`collecting`]) a variable that entered the engine hands its gradient over directly, and
//! the library puts it into the `GradStore` afterwards. A backward pass of candle's alone goes
//! candle's way.
//!
//! For the second pass each such gradient has a *port*, variables that entered together the same one: a token through
//! which the cotangents of these gradients come in, instead of through sums of products of the variables' sizes.

use super::Backend;
use super::slot::Slot;
use super::sweep;
use super::token::{self, gives_a_token};
use super::vector::Vector;
use candle_core::backprop::GradStore;
use candle_core::{CustomOp1, Result, Tensor, TensorId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// What one entrance of a variable leaves.
pub(super) struct Collected {
    pub variable: Tensor,
    pub gradient: Tensor,
    /// Where the graph is kept.
    pub port: Option<Tensor>,
}

/// What the backward pass on a thread has collected.
struct Collection {
    /// When the pass began.
    began: u64,
    all: Vec<Collected>,
}

thread_local! {
    /// Collected in the backward pass on this thread, if one of this library's runs.
    static COLLECTED: RefCell<Option<Collection>> = const { RefCell::new(None) };
    /// The cotangents that come in through ports, by the gradient.
    static COTANGENTS: RefCell<HashMap<TensorId, Vector>> = RefCell::new(HashMap::new());
}

/// What this thread had before a pass; it has it again afterwards, however the pass ends.
struct Scope {
    outer: Option<Collection>,
    outer_cotangents: HashMap<TensorId, Vector>,
}

impl Scope {
    fn begin(cotangents: Vec<(TensorId, Vector)>) -> Self {
        let new = Collection {
            began: sweep::tick(),
            all: Vec::new(),
        };
        Self {
            outer_cotangents: COTANGENTS.replace(cotangents.into_iter().collect()),
            outer: COLLECTED.replace(Some(new)),
        }
    }

    /// What was collected.
    fn end(self) -> Vec<Collected> {
        COLLECTED.take().map_or(Vec::new(), |new| new.all)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        COLLECTED.set(self.outer.take());
        COTANGENTS.set(std::mem::take(&mut self.outer_cotangents));
    }
}

/// Runs a backward pass in which variables hand over their gradients. The cotangents of gradients come in through ports.
pub(crate) fn collecting(
    cotangents: Vec<(TensorId, Vector)>,
    pass: impl FnOnce() -> Result<GradStore>,
) -> Result<GradStore> {
    let scope = Scope::begin(cotangents);
    let grads = pass();
    let collected = scope.end();
    let mut grads = grads?;
    for Collected {
        variable,
        gradient,
        port,
    } in collected
    {
        match grads.remove(&variable) {
            // Uses of several groups, or of candle's own operations: a sum has no port, it is differentiated as any tensor.
            Some(sum) => drop(grads.insert(&variable, sum.add(&gradient)?)),
            None => {
                if let Some(port) = port {
                    grads.insert(&gradient, port);
                }
                grads.insert(&variable, gradient);
            }
        }
    }
    Ok(grads)
}

/// Whether a variable that entered at this time may hand over its gradient on this thread now.
///
/// What entered after the pass began belongs to a pass of candle's own inside of it (an operation that
/// computes part of its forward pass again to differentiate it, say), which looks for the gradient in
/// its own store.
pub(super) fn is_collecting(made: u64) -> bool {
    COLLECTED.with_borrow(|pass| pass.as_ref().is_some_and(|pass| made < pass.began))
}

pub(super) fn collect(collected: Collected) {
    COLLECTED.with_borrow_mut(|pass| {
        if let Some(pass) = pass {
            pass.all.push(collected);
        }
    });
}

/// The way of gradients' cotangents into their slots.
struct Port<B: Backend> {
    slots: Vec<(Arc<Slot<B>>, TensorId)>,
}

/// A port of gradients, as a function of the token that they are functions of.
pub(super) fn port<B: Backend>(
    slots: Vec<(Arc<Slot<B>>, TensorId)>,
    gradient_token: &Tensor,
) -> Result<Tensor> {
    gradient_token.apply_op1(Port { slots })
}

impl<B: Backend> CustomOp1 for Port<B> {
    fn name(&self) -> &'static str {
        "cotangent of a variable's gradient"
    }
    gives_a_token!();
    fn bwd(&self, gradient_token: &Tensor, _: &Tensor, token: &Tensor) -> Result<Option<Tensor>> {
        sweep::part_of_pass(|| {
            for (slot, gradient) in &self.slots {
                sweep::expect_last(slot.consumer(), token.track_op())?;
                // A variable that is in use several times has several slots for one gradient.
                let cotangent = COTANGENTS.with_borrow(|all| all.get(gradient).cloned());
                if let Some(cotangent) = cotangent {
                    slot.set_cotangent(cotangent.held()?)?;
                }
            }
            Ok(Some(token::like(gradient_token)))
        })
    }
}
