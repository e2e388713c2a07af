//! The batches of a data set of images by epoch and number.

use candle_core::{Device, Tensor};

use super::{Augment, ImageBatch, ImageDataset};
use crate::Batcher;
use crate::batches::{Batches, LabelledBatch, Order};
use crate::error::Result;

impl LabelledBatch for ImageBatch {
    fn size(&self) -> usize {
        self.len()
    }

    fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        self.narrow(start, len)
    }

    fn labels(&self) -> Result<&Tensor> {
        Ok(&self.labels)
    }
}

/// A data set, cut into batches, augmented, and put on a device.
pub struct ImageBatches {
    dataset: ImageDataset,
    order: Order,
    augment: Augment,
    device: Device,
}

impl ImageBatches {
    /// Batches in the order of `batcher`, augmented with its seed.
    pub fn new(dataset: ImageDataset, batcher: Batcher, augment: Augment, device: &Device) -> Self {
        Self {
            order: Order::new(batcher, dataset.lengths()),
            dataset,
            augment,
            device: device.clone(),
        }
    }

    /// The data set.
    pub fn dataset(&self) -> &ImageDataset {
        &self.dataset
    }
}

impl Batches for ImageBatches {
    type Batch = ImageBatch;

    fn len(&self, _epoch: usize) -> usize {
        self.order.batches()
    }

    /// # Errors
    /// If an epoch has no such batch, or for the reasons of [`ImageDataset::batch`].
    fn get(&self, epoch: usize, index: usize) -> Result<ImageBatch> {
        let images = self.order.batch(epoch, index)?;
        let seed = self.order.batcher.seed;
        self.dataset
            .batch(&images, epoch, seed, &self.augment, &self.device)
    }
}
