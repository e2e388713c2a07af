//! Values that have left the engine, by the tensors that they left as, for candle tells nobody what a tensor is the
//! result of.
//!
//! A tensor that comes back is the value again: nothing is between, and nothing has to be copied. And a pass of this
//! library that begins at one takes the short graph, which ends where variables entered.

use super::Backend;
use super::border::{Exit, Once};
use super::entrance::Place;
use super::slot::Slot;
use crate::error::Result;
use candle_core::{Tensor, TensorId};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock};

/// A value without its numbers, which the tensor has.
pub(super) struct Exited<B: Backend> {
    pub slot: Arc<Slot<B>>,
    pub place: Place<B>,
}

/// One of any backend.
trait Known: Send + Sync {
    fn any(&self) -> &dyn Any;

    /// The same number at the end of the short graph, where there is one.
    fn short(&self, value: &Tensor) -> Result<Tensor>;
}

impl<B: Backend> Known for Exited<B> {
    fn any(&self) -> &dyn Any {
        self
    }

    fn short(&self, value: &Tensor) -> Result<Tensor> {
        let Some(token) = self.place.tokens().and_then(|tokens| tokens.short) else {
            return Ok(value.clone());
        };
        let exit = Exit {
            slot: Arc::clone(&self.slot),
            numbers: Once::new(B::into_storage(B::copy(value)?)?),
            _key: Key::default(),
        };
        Ok(token.apply_op1(exit)?)
    }
}

static ALL: LazyLock<Mutex<HashMap<TensorId, Arc<dyn Known>>>> = LazyLock::new(Mutex::default);

fn all() -> MutexGuard<'static, HashMap<TensorId, Arc<dyn Known>>> {
    ALL.lock().unwrap_or_else(|e| e.into_inner())
}

fn get(tensor: &Tensor) -> Option<Arc<dyn Known>> {
    all().get(&tensor.id()).cloned()
}

/// A value is known as long as this is kept, which its tensor's graph does.
#[derive(Clone, Default)]
pub(super) struct Key(Arc<Kept>);

#[derive(Default)]
struct Kept(OnceLock<TensorId>);

impl Key {
    pub fn keep<B: Backend>(&self, tensor: &Tensor, value: Exited<B>) {
        if self.0.0.set(tensor.id()).is_ok() {
            all().insert(tensor.id(), Arc::new(value));
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Dropped when nobody else has to wait: its graph may have others.
        let _value = self.0.get().and_then(|tensor| all().remove(tensor));
    }
}

/// The slot and place of a tensor that is a value of this backend which has exited.
pub(super) fn value<B: Backend>(tensor: &Tensor) -> Option<(Arc<Slot<B>>, Place<B>)> {
    let known = get(tensor)?;
    let exited: &Exited<B> = known.any().downcast_ref()?;
    Some((Arc::clone(&exited.slot), exited.place.clone()))
}

/// What a pass of this library begins at.
///
/// # Errors
/// If candle fails.
pub(crate) fn short(loss: &Tensor) -> Result<Tensor> {
    match get(loss) {
        Some(known) => known.short(loss),
        None => Ok(loss.clone()),
    }
}
