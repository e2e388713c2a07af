//! Numbers, and who keeps them.
//!
//! A handle keeps the numbers of its value. An operation keeps those of the inputs that its backward
//! passes read, and no others, so what nobody reads again is freed as soon as its handle goes. What
//! can be had again for little ([`Recompute`]) is not kept at all. The same holds for cotangents and
//! gradients on their way.

use super::Backend;
use crate::error::Result;
use candle_core::Tensor;
use std::sync::Arc;

/// Computes numbers again: the same bits as the first time.
pub trait Recompute<B: Backend>: Send + Sync {
    /// The numbers.
    ///
    /// # Errors
    /// If the device fails.
    fn compute(&self) -> Result<B::Buffer>;
}

/// What an operation computes.
pub struct Output<B: Backend> {
    /// The numbers.
    pub numbers: B::Buffer,
    /// What computes them again, if that is cheaper than keeping them.
    pub recompute: Option<Arc<dyn Recompute<B>>>,
}

/// Numbers that are read in several places.
pub enum Array<B: Backend> {
    /// Memory of the engine.
    Buffer(Arc<B::Buffer>),
    /// A contiguous candle tensor of this backend.
    Tensor(Tensor),
    /// Computed whenever they are read.
    Recompute(Arc<dyn Recompute<B>>),
}

// Not derived: that would ask for a backend that can be cloned.
impl<B: Backend> Clone for Array<B> {
    fn clone(&self) -> Self {
        match self {
            Array::Buffer(buffer) => Array::Buffer(Arc::clone(buffer)),
            Array::Tensor(tensor) => Array::Tensor(tensor.clone()),
            Array::Recompute(again) => Array::Recompute(Arc::clone(again)),
        }
    }
}

impl<B: Backend> Array<B> {
    /// Access to the numbers.
    ///
    /// # Errors
    /// If they cannot be computed again.
    pub fn view(&self) -> Result<B::View<'_>> {
        match self {
            Array::Buffer(buffer) => Ok(B::view(buffer)),
            Array::Tensor(tensor) => B::view_tensor(tensor),
            Array::Recompute(again) => Ok(B::owned(again.compute()?)),
        }
    }
}

/// Numbers at hand, and what to keep of them.
pub struct Held<B: Backend> {
    now: Array<B>,
    later: Array<B>,
}

impl<B: Backend> Clone for Held<B> {
    fn clone(&self) -> Self {
        Self {
            now: self.now.clone(),
            later: self.later.clone(),
        }
    }
}

impl<B: Backend> Held<B> {
    /// Access to the numbers.
    ///
    /// # Errors
    /// As [`Array::view`].
    pub fn view(&self) -> Result<B::View<'_>> {
        self.now.view()
    }

    /// What to read them from later.
    pub fn keep(&self) -> Array<B> {
        self.later.clone()
    }

    /// Of numbers that are computed whenever they are read.
    pub(super) fn again(numbers: Arc<dyn Recompute<B>>) -> Self {
        let now = Array::Recompute(numbers);
        Self {
            later: now.clone(),
            now,
        }
    }

    /// Of a tensor of this backend that nobody writes to.
    pub(super) fn of_tensor(x: &Tensor) -> Result<Self> {
        B::expect(x)?;
        let now = Array::Tensor(x.contiguous()?.detach());
        Ok(Self {
            later: now.clone(),
            now,
        })
    }
}

impl<B: Backend> From<Output<B>> for Held<B> {
    fn from(output: Output<B>) -> Self {
        let now = Array::Buffer(Arc::new(output.numbers));
        let later = match output.recompute {
            Some(again) => Array::Recompute(again),
            None => now.clone(),
        };
        Self { now, later }
    }
}
