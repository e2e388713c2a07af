//! What a training loop asks a source of batches for.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Tensor};

use crate::Batcher;
use crate::error::{Error, Result};

/// The label of a position that has none: a loss does not count it, a metric does not look at it.
pub const UNLABELLED: u32 = u32::MAX;

/// Batches by epoch and index: random access, so that a resumed run starts in the middle of an epoch. What
/// batch an index is must be a function of the epoch (and a seed) alone.
///
/// Batches of a data set of one's own are these two functions; [`Ahead`](crate::Ahead) then makes them before
/// they are asked for.
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
    /// If it cannot be made; wrap errors of your own with [`Error::user`].
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
        let batch = self.0.get(index);
        batch
            .cloned()
            .ok_or_else(|| no_such_batch(index, self.0.len()))
    }
}

/// The error of an index that an epoch does not have.
pub(crate) fn no_such_batch(index: usize, batches: usize) -> Error {
    Error::Batch {
        reason: format!("batch {index} of an epoch of {batches} batches"),
    }
}

/// A batch of examples that each have a label.
pub trait LabelledBatch: Sized {
    /// How many examples it has.
    fn size(&self) -> usize;

    /// The number of terms whose mean the loss of the batch is: its size, unless examples have several
    /// labels, as a text with one for each token.
    ///
    /// # Errors
    /// If it cannot be told.
    fn weight(&self) -> Result<f64> {
        Ok(self.size() as f64)
    }

    /// The examples `start .. start + len`.
    ///
    /// # Errors
    /// If the range does not lie within the batch.
    fn narrow(&self, start: usize, len: usize) -> Result<Self>;

    /// One label an example, `[size]`: classes or values; or one a position, `[size, ..]`, with
    /// [`UNLABELLED`] for positions that have none.
    ///
    /// # Errors
    /// [`Error::Batch`] for a batch without labels.
    fn labels(&self) -> Result<&Tensor>;
}

/// Inputs of any shape, for example images, and their labels.
#[derive(Clone, Debug)]
pub struct TensorBatch {
    /// The inputs, `[size, …]`.
    pub inputs: Tensor,
    /// The labels, `[size]`, or one a position, `[size, ..]`.
    pub labels: Tensor,
}

impl LabelledBatch for TensorBatch {
    fn size(&self) -> usize {
        self.inputs.dims().first().copied().unwrap_or(0)
    }

    /// The labels that count, where there is one a position.
    fn weight(&self) -> Result<f64> {
        if self.labels.rank() < 2 || !self.labels.dtype().is_int() {
            return Ok(self.size() as f64);
        }
        let labels = self.labels.flatten_all()?.to_dtype(DType::I64)?;
        let labels = labels.to_vec1::<i64>()?;
        let counts = |label: &&i64| **label != i64::from(UNLABELLED);
        Ok(labels.iter().filter(counts).count() as f64)
    }

    fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        Ok(Self {
            inputs: self.inputs.narrow(0, start, len)?,
            labels: self.labels.narrow(0, start, len)?,
        })
    }

    fn labels(&self) -> Result<&Tensor> {
        Ok(&self.labels)
    }
}

/// An epoch and the examples of each of its batches.
type Epoch = (usize, Arc<Vec<Vec<usize>>>);

/// A data set of known lengths in the order of a [`Batcher`], which is kept for the epoch used last.
pub(crate) struct Order {
    pub batcher: Batcher,
    lengths: Vec<usize>,
    last: Mutex<Option<Epoch>>,
}

impl Order {
    pub fn new(batcher: Batcher, lengths: Vec<usize>) -> Self {
        Self {
            batcher,
            lengths,
            last: Mutex::default(),
        }
    }

    /// How many batches an epoch has.
    pub fn batches(&self) -> usize {
        self.batcher.batches(self.lengths.len())
    }

    /// How many examples there are.
    pub fn examples(&self) -> usize {
        self.lengths.len()
    }

    /// The examples of a batch.
    pub fn batch(&self, epoch: usize, index: usize) -> Result<Vec<usize>> {
        let order = self.epoch(epoch);
        let examples = order.get(index).cloned();
        examples.ok_or_else(|| no_such_batch(index, order.len()))
    }

    fn epoch(&self, epoch: usize) -> Arc<Vec<Vec<usize>>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((of, order)) if *of == epoch => Arc::clone(order),
            _ => {
                let order = Arc::new(self.batcher.order(&self.lengths, epoch));
                *last = Some((epoch, Arc::clone(&order)));
                order
            }
        }
    }
}
