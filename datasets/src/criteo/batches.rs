//! Rows of a store as batches of tensors, in an order that needs no memory.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::permutation::Permutation;
use super::{CATEGORIES, INTEGERS, Store, record};
use crate::batches::{Batches, LabelledBatch, no_such_batch};
use crate::error::{Error, Result};

/// What a training step takes.
#[derive(Debug, Clone)]
pub struct ClickBatch {
    /// `log(x + 1)` of the counts, `[B, 13]`, `f32`.
    pub dense: Tensor,
    /// The ids, `B * 26` of them: that of row `b` in table `t` at `b * 26 + t`.
    pub ids: Vec<u32>,
    /// 1 where it was clicked, else 0, `[B]`, `f32`; not a number where a row has no label, so that
    /// a loss over it shows.
    pub labels: Tensor,
}

impl ClickBatch {
    pub(super) fn new(
        store: &Store,
        rows: impl ExactSizeIterator<Item = usize>,
        device: &Device,
    ) -> Result<Self> {
        let size = rows.len();
        if size == 0 {
            return Err(Error::Batch {
                reason: "no rows; ask for at least one".to_string(),
            });
        }
        let mut dense = Vec::with_capacity(size * INTEGERS);
        let mut ids = Vec::with_capacity(size * CATEGORIES);
        let mut labels = Vec::with_capacity(size);
        for row in rows {
            let record = store.record(row).ok_or_else(|| Error::Batch {
                reason: format!(
                    "row {row} of {}, which has {} rows",
                    store.path().display(),
                    store.len()
                ),
            })?;
            dense.extend(record::dense(record));
            ids.extend(record::ids(record));
            let label = record::label(record);
            labels.push(label.map_or(f32::NAN, |label| f32::from(u8::from(label))));
        }
        Ok(Self {
            dense: Tensor::from_vec(dense, (size, INTEGERS), device)?,
            ids,
            labels: Tensor::from_vec(labels, size, device)?,
        })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.ids.len() / CATEGORIES
    }

    /// The rows `start .. start + len`.
    ///
    /// # Errors
    /// If the batch does not have them.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let end = start.saturating_add(len);
        if end > self.len() {
            return Err(Error::Batch {
                reason: format!("rows {start} to {end} of a batch of {}", self.len()),
            });
        }
        Ok(Self {
            dense: self.dense.narrow(0, start, len)?,
            ids: self.ids[start * CATEGORIES..end * CATEGORIES].to_vec(),
            labels: self.labels.narrow(0, start, len)?,
        })
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Some rows of a store, cut into batches epoch after epoch.
///
/// Batch `index` of epoch `epoch` is the same whatever was asked for before. The shuffled order is
/// computed row by row, so that it costs no memory, whatever the number of rows.
#[derive(Debug, Clone)]
pub struct ClickBatches {
    /// Where the rows are.
    pub store: Store,
    /// Which rows, such as [`Days::train`](super::Days::train).
    pub rows: Range<usize>,
    /// Rows a batch; the last one of an epoch may have fewer.
    pub batch_size: usize,
    /// The order is a function of this and of the epoch; `None`: that of the store, which is the
    /// fastest for stores larger than the memory.
    pub shuffle: Option<u64>,
    /// Whether an incomplete last batch is left out.
    pub drop_last: bool,
    /// Where the tensors are put; the ids stay on the CPU, where the tables are.
    pub device: Device,
}

impl ClickBatches {
    /// Rows of a store in its order, all of them, on the CPU.
    pub fn in_order(store: &Store, rows: Range<usize>, batch_size: usize) -> Self {
        Self {
            store: store.clone(),
            rows,
            batch_size,
            shuffle: None,
            drop_last: false,
            device: Device::Cpu,
        }
    }

    /// The first `limit` of these rows, or all where there are fewer or no limit.
    pub fn first(mut self, limit: Option<usize>) -> Self {
        self.rows.end = self.rows.start + self.rows.len().min(limit.unwrap_or(usize::MAX));
        self
    }

    /// The rows of batch `index` of epoch `epoch`; none if there is no such batch.
    pub fn order(&self, epoch: usize, index: usize) -> Vec<usize> {
        if index >= self.len(epoch) {
            return Vec::new();
        }
        let (count, size) = (self.rows.len(), self.batch_size.max(1));
        let first = index * size;
        let positions = first..count.min(first + size);
        let start = self.rows.start;
        match self.shuffle {
            None => positions.map(|position| start + position).collect(),
            Some(seed) => {
                let permutation = Permutation::new(count, seed, epoch as u64);
                positions
                    .map(|position| start + permutation.at(position))
                    .collect()
            }
        }
    }
}

impl Batches for ClickBatches {
    type Batch = ClickBatch;

    /// `batch_size` 0 counts as 1.
    fn len(&self, _epoch: usize) -> usize {
        let size = self.batch_size.max(1);
        match self.drop_last {
            true => self.rows.len() / size,
            false => self.rows.len().div_ceil(size),
        }
    }

    /// # Errors
    /// If an epoch has no such batch, or for the reasons of [`Store::batch`].
    fn get(&self, epoch: usize, index: usize) -> Result<ClickBatch> {
        if index >= self.len(epoch) {
            return Err(no_such_batch(index, self.len(epoch)));
        }
        self.store.batch(&self.order(epoch, index), &self.device)
    }
}

impl LabelledBatch for ClickBatch {
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
