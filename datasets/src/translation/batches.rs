//! A store of pairs in batches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::Device;

use super::{PairStore, TokenBatcher, TranslationBatch};
use crate::batches::{Batches, no_such_batch};
use crate::error::{Error, Result};

/// An epoch and the pairs of each of its batches.
type Epoch = (usize, Arc<Vec<Vec<usize>>>);
/// Epochs whose order is kept.
const KEPT: usize = 2;

/// A store of pairs cut into batches by a [`TokenBatcher`]; how many they are may differ by epoch.
pub struct TranslationBatches {
    store: PairStore,
    batcher: TokenBatcher,
    lengths: Vec<(usize, usize)>,
    pad: u32,
    device: Device,
    /// The newest ones: who makes batches ahead is in the next epoch while the loop is still in this one.
    last: Mutex<VecDeque<Epoch>>,
    /// The batches of an epoch, where all have as many.
    count: OnceLock<usize>,
}

impl TranslationBatches {
    /// The batches of this store on this device; `pad` is the id that fills up shorter sentences.
    ///
    /// # Errors
    /// If the batcher cannot cut the store, see [`TokenBatcher::order`].
    pub fn new(store: PairStore, batcher: TokenBatcher, pad: u32, device: &Device) -> Result<Self> {
        let lengths = store.lengths();
        batcher.check(&lengths)?;
        Ok(Self {
            store,
            batcher,
            lengths,
            pad,
            device: device.clone(),
            last: Mutex::default(),
            count: OnceLock::new(),
        })
    }

    /// The store.
    pub fn store(&self) -> &PairStore {
        &self.store
    }

    /// The pairs of each batch of an epoch, as indices into the store.
    ///
    /// # Errors
    /// Never after [`TranslationBatches::new`].
    pub fn order(&self, epoch: usize) -> Result<Arc<Vec<Vec<usize>>>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = last.iter().find(|(of, _)| *of == epoch) {
            return Ok(Arc::clone(order));
        }
        let order = Arc::new(self.batcher.order(&self.lengths, epoch)?);
        last.truncate(KEPT - 1);
        last.push_front((epoch, Arc::clone(&order)));
        Ok(order)
    }

    /// A batch of these pairs, in this order.
    ///
    /// # Errors
    /// If there are none, the store has no such pair, or the device refuses the tensors.
    pub fn batch(&self, pairs: &[usize]) -> Result<TranslationBatch> {
        let ids = pairs.iter().map(|&pair| {
            let sides = self.store.source(pair).zip(self.store.target(pair));
            sides.ok_or_else(|| Error::Batch {
                reason: format!("pair {pair} of {}", self.store.len()),
            })
        });
        TranslationBatch::new(&ids.collect::<Result<Vec<_>>>()?, self.pad, &self.device)
    }
}

impl Batches for TranslationBatches {
    type Batch = TranslationBatch;

    fn len(&self, epoch: usize) -> usize {
        let count = |epoch| self.order(epoch).map_or(0, |order| order.len());
        match self.batcher.counts_alike(self.lengths.len()) {
            // A run that its patience ends asks for a million epochs before its first step.
            true => *self.count.get_or_init(|| count(0)),
            false => count(epoch),
        }
    }

    fn get(&self, epoch: usize, index: usize) -> Result<TranslationBatch> {
        let order = self.order(epoch)?;
        let pairs = order.get(index);
        self.batch(pairs.ok_or_else(|| no_such_batch(index, order.len()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared_between_threads<T: Send + Sync>(_: &T) {}

    #[test]
    fn batches_are_those_of_the_order() {
        let pairs: Vec<_> = (0..50u32)
            .map(|i| (vec![4 + i % 7; 1 + i as usize % 5], i))
            .collect();
        let pairs = pairs.into_iter().map(|(mut source, i)| {
            source.push(2);
            (source, vec![100 + i, 2])
        });
        let store = PairStore::in_memory(pairs.collect()).unwrap();
        let batcher = TokenBatcher {
            max_tokens: 24,
            ..TokenBatcher::default()
        };
        let batches = TranslationBatches::new(store, batcher, 1, &Device::Cpu).unwrap();
        shared_between_threads(&batches);
        for epoch in 0..2 {
            let mut seen = Vec::new();
            for index in 0..batches.len(epoch) {
                let batch = batches.get(epoch, index).unwrap();
                assert!(batch.source.elem_count() <= 24 && batch.labels.elem_count() <= 24);
                let labels = batch.labels.to_vec2::<u32>().unwrap();
                seen.extend(labels.iter().map(|row| row[0] as usize - 100));
            }
            assert_eq!(seen, batches.order(epoch).unwrap().concat());
        }
        // Sorted by length all epochs have as many, whichever pairs they hold; in windows they need not.
        for bucket in [Some(usize::MAX), Some(7)] {
            let batcher = TokenBatcher {
                bucket,
                max_tokens: 24,
                ..TokenBatcher::default()
            };
            let store = batches.store().clone();
            let batches = TranslationBatches::new(store, batcher, 1, &Device::Cpu).unwrap();
            for epoch in 0..9 {
                assert_eq!(batches.len(epoch), batches.order(epoch).unwrap().len());
            }
        }
        // Both are there still, and a third one drops the first.
        let kept = [0, 1].map(|epoch| batches.order(epoch).unwrap());
        let again = [0, 1].map(|epoch| batches.order(epoch).unwrap());
        assert!(kept.iter().zip(&again).all(|(a, b)| Arc::ptr_eq(a, b)));
        batches.order(2).unwrap();
        assert!(Arc::ptr_eq(&kept[1], &batches.order(1).unwrap()));
        assert!(!Arc::ptr_eq(&kept[0], &batches.order(0).unwrap()));
        assert!(batches.get(0, 1000).is_err() && batches.batch(&[50]).is_err());
    }
}
