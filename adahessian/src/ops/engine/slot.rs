//! The place of a value: its data, its gradient and its second-level cotangent.

use super::{Buffer, Real, sweep};
use crate::error::{Error, Result};
use candle_core::{Storage, Tensor};
use parking_lot::RwLockReadGuard;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

pub(super) enum Value<T: Real> {
    /// Made by an operation of the engine.
    Made(Buffer<T>),
    /// A contiguous candle tensor on the CPU.
    Entered(Tensor),
}

pub(crate) struct Slot<T: Real> {
    pub shape: Vec<usize>,
    /// Whether anything that is trained led to this value.
    pub tracked: bool,
    value: Value<T>,
    /// How many operations differentiate with respect to it.
    consumers: AtomicUsize,
    state: Mutex<State<T>>,
}

struct State<T: Real> {
    gradient: Option<Stamped<Buffer<T>>>,
    cotangent: Option<Stamped<Arc<Buffer<T>>>>,
    /// How many consumers have read the cotangent.
    reads: usize,
}

struct Stamped<X> {
    sweep: u64,
    data: X,
}

/// Access to a value's data.
pub(crate) enum View<'a, T> {
    Made(&'a [T]),
    Entered(RwLockReadGuard<'a, Storage>, usize, usize),
}

impl<T: Real> Deref for View<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            View::Made(data) => data,
            View::Entered(storage, start, end) => match &**storage {
                // `Slot::new` has looked: it is on the CPU and of this type.
                Storage::Cpu(storage) => T::slice(storage).map_or(&[], |data| &data[*start..*end]),
                _ => &[],
            },
        }
    }
}

fn collision(what: &str) -> Error {
    Error::Engine {
        what: format!(
            "the {what} of a value is left from another backward pass: two passes over one graph at once, \
             or an earlier one failed half way; compute the loss again"
        ),
    }
}

impl<T: Real> Slot<T> {
    pub(super) fn new(shape: &[usize], value: Value<T>, tracked: bool) -> Self {
        Self {
            shape: shape.into(),
            tracked,
            value,
            consumers: AtomicUsize::new(0),
            state: Mutex::new(State {
                gradient: None,
                cotangent: None,
                reads: 0,
            }),
        }
    }

    pub fn value(&self) -> View<'_, T> {
        match &self.value {
            Value::Made(data) => View::Made(data),
            Value::Entered(tensor) => {
                let (storage, layout) = tensor.storage_and_layout();
                let start = layout.start_offset();
                View::Entered(storage, start, start + layout.shape().elem_count())
            }
        }
    }

    pub fn length(&self) -> usize {
        self.shape.iter().product()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn add_consumer(&self) {
        self.consumers.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds to the gradient. The data are taken over where it is the first part.
    pub(super) fn add_gradient(&self, part: Buffer<T>) -> Result<()> {
        let mut state = self.state();
        let sweep = sweep::current();
        match &mut state.gradient {
            Some(sum) if sum.sweep != sweep => return Err(collision("gradient")),
            Some(sum) => super::super::simd::add_assign(&mut sum.data, &part),
            None => state.gradient = Some(Stamped { sweep, data: part }),
        }
        Ok(())
    }

    /// The sum of what was added since it was last taken.
    pub(super) fn take_gradient(&self) -> Result<Option<Buffer<T>>> {
        match self.state().gradient.take() {
            Some(sum) if sum.sweep != sweep::current() => Err(collision("gradient")),
            sum => Ok(sum.map(|sum| sum.data)),
        }
    }

    pub(super) fn set_cotangent(&self, data: Buffer<T>) -> Result<()> {
        let mut state = self.state();
        if state.cotangent.is_some() {
            return Err(collision("cotangent"));
        }
        state.reads = 0;
        state.cotangent = Some(Stamped {
            sweep: sweep::current(),
            data: Arc::new(data),
        });
        Ok(())
    }

    /// The cotangent, which is let go of when the last consumer has read it.
    pub(super) fn read_cotangent(&self) -> Result<Option<Arc<Buffer<T>>>> {
        let mut state = self.state();
        match &state.cotangent {
            None => return Ok(None),
            Some(cotangent) if cotangent.sweep != sweep::current() => {
                return Err(collision("cotangent"));
            }
            Some(_) => {}
        }
        state.reads += 1;
        let data = match state.reads == self.consumers.load(Ordering::Relaxed) {
            true => state.cotangent.take().map(|c| c.data),
            false => state.cotangent.as_ref().map(|c| Arc::clone(&c.data)),
        };
        Ok(data)
    }

    /// When a value's own operation is reached, every consumer has read; those that never were
    /// differentiated have not.
    pub(super) fn clear_cotangent(&self) {
        self.state().cotangent = None;
    }
}
