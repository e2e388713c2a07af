//! Numbers, and who keeps them.
//!
//! A handle keeps the numbers of its value. An operation keeps those of the inputs that its backward
//! passes read, and no others, so what nobody reads again is freed as soon as its handle goes. What
//! can be had again for little ([`Source`]) is not kept at all. The same holds for cotangents and
//! gradients on their way.

use super::{Buffer, Real};
use candle_core::{Storage, Tensor};
use parking_lot::RwLockReadGuard;
use std::ops::Deref;
use std::sync::Arc;

/// Makes numbers again: the same bits as the first time.
pub(crate) trait Source<T: Real>: Send + Sync {
    fn numbers(&self) -> Buffer<T>;
}

/// Numbers of which an operation has made a first copy.
pub(crate) struct Made<T: Real> {
    pub numbers: Buffer<T>,
    /// What makes them again, if that is cheaper than keeping them.
    pub source: Option<Arc<dyn Source<T>>>,
}

impl<T: Real> From<Buffer<T>> for Made<T> {
    fn from(numbers: Buffer<T>) -> Self {
        let source = None;
        Self { numbers, source }
    }
}

/// Numbers that are read in several places.
#[derive(Clone)]
pub(crate) enum Array<T: Real> {
    Buffer(Arc<Buffer<T>>),
    /// A contiguous candle tensor on the CPU.
    Tensor(Tensor),
    Source(Arc<dyn Source<T>>),
}

/// Numbers at hand, and what to keep of them.
#[derive(Clone)]
pub(crate) struct Held<T: Real> {
    now: Array<T>,
    later: Array<T>,
}

impl<T: Real> Held<T> {
    pub fn view(&self) -> View<'_, T> {
        self.now.view()
    }

    /// What to read them from later.
    pub fn keep(&self) -> Array<T> {
        self.later.clone()
    }
}

impl<T: Real> From<Made<T>> for Held<T> {
    fn from(made: Made<T>) -> Self {
        let now = Array::Buffer(Arc::new(made.numbers));
        let later = match made.source {
            Some(source) => Array::Source(source),
            None => now.clone(),
        };
        Self { now, later }
    }
}

impl<T: Real> Held<T> {
    /// Of a contiguous tensor on the CPU.
    pub(super) fn of_tensor(tensor: Tensor) -> Self {
        let now = Array::Tensor(tensor);
        Self {
            later: now.clone(),
            now,
        }
    }
}

/// Access to numbers.
pub(crate) enum View<'a, T: Real> {
    Slice(&'a [T]),
    Storage(RwLockReadGuard<'a, Storage>, usize, usize),
    Made(Buffer<T>),
    /// Not kept. Reading them would be a mistake of the operation, which says what it reads.
    Gone,
}

impl<T: Real> Deref for View<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            View::Slice(numbers) => numbers,
            View::Storage(storage, start, end) => match &**storage {
                // Whoever let the tensor in has looked: it is on the CPU and of this type.
                Storage::Cpu(storage) => T::slice(storage).map_or(&[], |data| &data[*start..*end]),
                _ => &[],
            },
            View::Made(numbers) => numbers,
            View::Gone => {
                debug_assert!(false, "an operation reads what it said it does not");
                &[]
            }
        }
    }
}

impl<T: Real> Array<T> {
    pub fn view(&self) -> View<'_, T> {
        match self {
            Array::Buffer(buffer) => View::Slice(buffer),
            Array::Tensor(tensor) => {
                let (storage, layout) = tensor.storage_and_layout();
                let start = layout.start_offset();
                View::Storage(storage, start, start + layout.shape().elem_count())
            }
            Array::Source(source) => View::Made(source.numbers()),
        }
    }
}
