//! Texts in batches.

use candle_core::{Device, Tensor};

use crate::batches::{Batches, LabelledBatch, Order};
use crate::error::{Error, Result};
use crate::{Batcher, TextBatch, TextDataset};

impl LabelledBatch for TextBatch {
    fn size(&self) -> usize {
        self.len()
    }

    fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        self.narrow(start, len)
    }

    fn labels(&self) -> Result<&Tensor> {
        self.labels.as_ref().ok_or_else(|| Error::Batch {
            reason: "the examples have no labels, as in GLUE's test splits; use the train and dev splits"
                .into(),
        })
    }
}

/// A text data set cut into batches by a [`Batcher`].
pub struct TextBatches {
    dataset: TextDataset,
    order: Order,
    device: Device,
}

impl TextBatches {
    /// The batches of this data set on this device.
    pub fn new(dataset: TextDataset, batcher: Batcher, device: &Device) -> Self {
        Self {
            order: Order::new(batcher, dataset.lengths()),
            dataset,
            device: device.clone(),
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
            .map(|indices| dataset.batch(indices, device))
            .collect()
    }
}

impl Batches for TextBatches {
    type Batch = TextBatch;

    fn len(&self, _epoch: usize) -> usize {
        self.order.batches()
    }

    fn get(&self, epoch: usize, index: usize) -> Result<TextBatch> {
        let examples = self.order.batch(epoch, index)?;
        self.dataset.batch(&examples, &self.device)
    }
}
