//! Which examples make up which batch: a pure function of the seed, the epoch and the lengths.

use crate::random::Random;

/// Cuts a data set into batches.
///
/// [`Batcher::order`] depends on the fields, the lengths and the epoch, and on nothing else: a run
/// that is resumed at batch `k` of epoch `e` computes the same order again and skips `k` batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batcher {
    /// Examples a batch; 0 is taken as 1.
    pub batch_size: usize,
    /// Chooses the permutations.
    pub seed: u64,
    /// Whether each epoch has an order of its own; `false` keeps the data set's order.
    pub shuffle: bool,
    /// Length bucketing: examples are sorted by length within windows of this many batches, so
    /// that a batch holds examples of similar length and little padding; the batches of the epoch
    /// are shuffled afterwards (if `shuffle`). `None`, or `Some(0)`: no bucketing.
    pub bucket: Option<usize>,
    /// Whether to leave out the last, smaller batch.
    pub drop_last: bool,
}

impl Default for Batcher {
    /// Batches of 32, shuffled with seed 0, no bucketing, nothing left out.
    fn default() -> Self {
        Self {
            batch_size: 32,
            seed: 0,
            shuffle: true,
            bucket: None,
            drop_last: false,
        }
    }
}

impl Batcher {
    /// The batches of one epoch as lists of indices into `lengths`.
    ///
    /// `lengths[i]` is the number of tokens of example `i`; only bucketing looks at the values.
    /// Without `drop_last` every index occurs exactly once.
    pub fn order(&self, lengths: &[usize], epoch: usize) -> Vec<Vec<usize>> {
        let batch_size = self.batch_size.max(1);
        let mut random = Random::new(self.seed, epoch as u64);
        let mut indices: Vec<usize> = (0..lengths.len()).collect();
        if self.shuffle {
            random.shuffle(&mut indices);
        }
        if self.drop_last {
            // Cut before sorting, so that the examples left out are not always the longest.
            indices.truncate(indices.len() - indices.len() % batch_size);
        }
        let bucket = self.bucket.filter(|&batches| batches > 0);
        if let Some(batches) = bucket {
            for window in indices.chunks_mut(batch_size.saturating_mul(batches)) {
                window.sort_by_key(|&index| lengths[index]);
            }
        }
        let mut order: Vec<Vec<usize>> = indices.chunks(batch_size).map(<[_]>::to_vec).collect();
        if self.shuffle && bucket.is_some() {
            random.shuffle(&mut order);
        }
        order
    }

    /// The number of batches an epoch over `examples` examples has.
    pub fn batches(&self, examples: usize) -> usize {
        let batch_size = self.batch_size.max(1);
        if self.drop_last {
            examples / batch_size
        } else {
            examples.div_ceil(batch_size)
        }
    }
}
