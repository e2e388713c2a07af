//! What a program gives to the loop: batches, and what to do with one.

use crate::error::{Error, Result};
use crate::metrics::Scores;
use adahessian::ops::Mode;
use candle_core::Tensor;
use std::sync::Arc;

/// The training batches, by epoch and index: random access, so that a resumed run starts in the
/// middle of an epoch. Their order must be a function of the epoch (and a seed) alone.
pub trait Batches {
    /// The type of a batch.
    type Batch;

    /// How many batches an epoch has.
    fn len(&self, epoch: usize) -> usize;

    /// Whether an epoch has no batches.
    fn is_empty(&self, epoch: usize) -> bool {
        self.len(epoch) == 0
    }

    /// A batch of an epoch.
    ///
    /// # Errors
    /// If it cannot be made; wrap errors of your own with [`crate::Error::user`].
    fn get(&self, epoch: usize, index: usize) -> Result<Self::Batch>;
}

/// Shared batches: the program can look at them while the loop uses them.
impl<B: Batches + ?Sized> Batches for Arc<B> {
    type Batch = B::Batch;

    fn len(&self, epoch: usize) -> usize {
        (**self).len(epoch)
    }

    fn get(&self, epoch: usize, index: usize) -> Result<B::Batch> {
        (**self).get(epoch, index)
    }
}

/// The same batches in the same order in each epoch.
#[derive(Clone, Debug, Default)]
pub struct FixedBatches<B>(pub Vec<B>);

impl<B: Clone> Batches for FixedBatches<B> {
    type Batch = B;

    fn len(&self, _epoch: usize) -> usize {
        self.0.len()
    }

    fn get(&self, _epoch: usize, index: usize) -> Result<B> {
        self.0.get(index).cloned().ok_or_else(|| Error::Batch {
            expected: format!("an index below {}", self.0.len()),
            got: index.to_string(),
        })
    }
}

/// From batches to losses, and from the model to an evaluation. The model lives in the task.
pub trait Task {
    /// The type of a batch.
    type Batch;

    /// How many examples a batch has.
    fn size(&self, batch: &Self::Batch) -> usize;

    /// What a batch weighs against the other micro-batches of its step: the number of terms whose
    /// mean its loss is. That is its size, unless the loss is a mean over tokens.
    ///
    /// # Errors
    /// If it cannot be told.
    fn weight(&self, batch: &Self::Batch) -> Result<f64> {
        Ok(self.size(batch) as f64)
    }

    /// The examples `start .. start + len` as a batch of their own.
    ///
    /// # Errors
    /// If the batch cannot be cut.
    fn narrow(&self, batch: &Self::Batch, start: usize, len: usize) -> Result<Self::Batch>;

    /// The mean loss of a batch, one element, differentiable twice.
    ///
    /// # Errors
    /// If the model fails; wrap errors of your own with [`crate::Error::user`].
    fn loss(&self, batch: &Self::Batch, mode: &Mode) -> Result<Tensor>;

    /// Evaluates the model as it is now.
    ///
    /// # Errors
    /// As [`Task::loss`].
    fn evaluate(&self) -> Result<Scores>;
}
