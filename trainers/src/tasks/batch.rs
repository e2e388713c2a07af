//! Batches with labels.

use crate::error::{Error, Result};
use crate::task::Batches;
use candle_core::{Device, Tensor};
use datasets::{Batcher, TextBatch, TextDataset};
use std::sync::Mutex;

/// A batch of examples that each have a label.
pub trait LabelledBatch: Sized {
    /// How many examples it has.
    fn size(&self) -> usize;

    /// The examples `start .. start + len`.
    ///
    /// # Errors
    /// If the range does not lie within the batch.
    fn narrow(&self, start: usize, len: usize) -> Result<Self>;

    /// One label an example, `[size]`: classes or values.
    ///
    /// # Errors
    /// [`Error::Batch`] for a batch without labels.
    fn labels(&self) -> Result<&Tensor>;
}

impl LabelledBatch for TextBatch {
    fn size(&self) -> usize {
        self.len()
    }

    fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        Ok(self.narrow(start, len)?)
    }

    fn labels(&self) -> Result<&Tensor> {
        self.labels.as_ref().ok_or_else(|| Error::Batch {
            expected: "labels".into(),
            got: "unlabelled examples, as in GLUE's test splits; use the train and dev splits"
                .into(),
        })
    }
}

/// Inputs of any shape, for example pictures, and their labels.
#[derive(Clone, Debug)]
pub struct TensorBatch {
    /// The inputs, `[size, …]`.
    pub inputs: Tensor,
    /// The labels, `[size]`.
    pub labels: Tensor,
}

impl LabelledBatch for TensorBatch {
    fn size(&self) -> usize {
        self.inputs.dims().first().copied().unwrap_or(0)
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

/// A text data set cut into batches by a [`Batcher`].
pub struct TextBatches {
    dataset: TextDataset,
    batcher: Batcher,
    lengths: Vec<usize>,
    device: Device,
    /// The order of the epoch used last: it is the same for all its batches.
    order: Mutex<Option<(usize, Vec<Vec<usize>>)>>,
}

impl TextBatches {
    /// The batches of this data set on this device.
    pub fn new(dataset: TextDataset, batcher: Batcher, device: &Device) -> Self {
        Self {
            lengths: dataset.lengths(),
            dataset,
            batcher,
            device: device.clone(),
            order: Mutex::new(None),
        }
    }

    /// All batches in the data set's own order, for evaluations.
    ///
    /// # Errors
    /// If a batch cannot be made.
    pub fn in_order(
        dataset: &TextDataset,
        batch_size: usize,
        device: &Device,
    ) -> Result<Vec<TextBatch>> {
        let indices: Vec<usize> = (0..dataset.len()).collect();
        let batches = indices.chunks(batch_size.max(1));
        batches
            .map(|indices| Ok(dataset.batch(indices, device)?))
            .collect()
    }
}

impl Batches for TextBatches {
    type Batch = TextBatch;

    fn len(&self, _epoch: usize) -> usize {
        self.batcher.batches(self.dataset.len())
    }

    fn get(&self, epoch: usize, index: usize) -> Result<TextBatch> {
        let mut cached = self.order.lock().unwrap_or_else(|e| e.into_inner());
        let order = match cached.take() {
            Some((of, order)) if of == epoch => order,
            _ => self.batcher.order(&self.lengths, epoch),
        };
        let (_, order) = cached.insert((epoch, order));
        let indices = order.get(index).ok_or_else(|| Error::Batch {
            expected: format!("an index below {}", order.len()),
            got: index.to_string(),
        })?;
        Ok(self.dataset.batch(indices, &self.device)?)
    }
}
