//! The batches of a data set by epoch and number, made ahead of the training step.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;

use super::{Augment, ImageBatch, ImageDataset};
use crate::Batcher;
use crate::error::{Error, Result};
use crate::prefetch::{Prefetch, Waited};

/// A data set, cut into batches, augmented, and put on a device.
///
/// Whatever is asked for in whatever order, batch `index` of epoch `epoch` is the same. Asked for
/// one after the other, the next ones are made ahead on a thread of their own.
pub struct ImageBatches {
    work: Arc<Work>,
    ahead: usize,
    running: Mutex<Running>,
}

/// What it takes to make a batch.
struct Work {
    dataset: ImageDataset,
    batcher: Batcher,
    augment: Augment,
    device: Device,
    lengths: Vec<usize>,
}

/// The batches under way.
#[derive(Default)]
struct Running {
    prefetch: Option<Prefetch<ImageBatch>>,
    /// The epoch and number of the batch that comes out next.
    next: (usize, usize),
    /// What earlier threads have been waited for.
    earlier: Waited,
    /// Without a thread: the order of the epoch asked for last.
    order: Option<(usize, Vec<Vec<usize>>)>,
}

impl ImageBatches {
    /// Batches in the order of `batcher`, augmented with its seed; `ahead` of them are made ahead
    /// of use (3 will do), with 0 each is made when it is asked for.
    pub fn new(
        dataset: ImageDataset,
        batcher: Batcher,
        augment: Augment,
        device: &Device,
        ahead: usize,
    ) -> Self {
        Self {
            work: Arc::new(Work {
                lengths: dataset.lengths(),
                dataset,
                batcher,
                augment,
                device: device.clone(),
            }),
            ahead,
            running: Mutex::default(),
        }
    }

    /// The batches an epoch has.
    pub fn len(&self) -> usize {
        self.work.batcher.batches(self.work.dataset.len())
    }

    /// Whether an epoch has no batches.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The data set.
    pub fn dataset(&self) -> &ImageDataset {
        &self.work.dataset
    }

    /// Batch `index` of epoch `epoch`.
    ///
    /// # Errors
    /// If an epoch has no such batch, or for the reasons of [`ImageDataset::batch`].
    pub fn get(&self, epoch: usize, index: usize) -> Result<ImageBatch> {
        if index >= self.len() {
            return Err(Error::Batch {
                reason: format!("batch {index} of an epoch of {} batches", self.len()),
            });
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ahead == 0 {
            let order = match running.order.take() {
                Some((of, order)) if of == epoch => order,
                _ => self.work.order(epoch),
            };
            let (_, order) = running.order.insert((epoch, order));
            return self.work.batch(order, epoch, index);
        }
        if running.next != (epoch, index) || running.prefetch.is_none() {
            running.stop();
            running.prefetch = Some(self.start(epoch, index)?);
        }
        running.next = match index + 1 {
            next if next < self.len() => (epoch, next),
            _ => (epoch + 1, 0),
        };
        let batch = running.prefetch.as_mut().and_then(Iterator::next);
        batch.unwrap_or_else(|| {
            // The thread has ended before: it panicked and said so in an earlier batch.
            running.stop();
            Err(Error::Batch {
                reason: "the thread that makes batches has ended".to_string(),
            })
        })
    }

    /// How long [`ImageBatches::get`] waited for batches under way, all together; a fresh start
    /// counts among the first batches.
    pub fn waited(&self) -> Waited {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.waited()
    }

    /// A thread that makes the batches from this one on, epoch after epoch.
    fn start(&self, epoch: usize, index: usize) -> Result<Prefetch<ImageBatch>> {
        let (work, batches) = (Arc::clone(&self.work), self.len());
        let mut order = (epoch, work.order(epoch));
        Prefetch::start(usize::MAX, self.ahead, move |count| {
            let position = index + count;
            let (epoch, index) = (epoch + position / batches, position % batches);
            if order.0 != epoch {
                order = (epoch, work.order(epoch));
            }
            work.batch(&order.1, epoch, index)
        })
    }
}

impl Work {
    fn order(&self, epoch: usize) -> Vec<Vec<usize>> {
        self.batcher.order(&self.lengths, epoch)
    }

    fn batch(&self, order: &[Vec<usize>], epoch: usize, index: usize) -> Result<ImageBatch> {
        let indices = order.get(index).map(Vec::as_slice).unwrap_or_default();
        let seed = self.batcher.seed;
        self.dataset
            .batch(indices, epoch, seed, &self.augment, &self.device)
    }
}

impl Running {
    fn waited(&self) -> Waited {
        let now = self
            .prefetch
            .as_ref()
            .map(Prefetch::waited)
            .unwrap_or_default();
        Waited {
            batches: self.earlier.batches + now.batches,
            first_seconds: self.earlier.first_seconds + now.first_seconds,
            later_seconds: self.earlier.later_seconds + now.later_seconds,
        }
    }

    fn stop(&mut self) {
        self.earlier = self.waited();
        self.prefetch = None;
    }
}
