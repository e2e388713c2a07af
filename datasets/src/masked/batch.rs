//! The tensors of sequences with hidden tokens.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{Masking, Packed};
use crate::Batcher;
use crate::batches::{Batches, LabelledBatch, Order};
use crate::error::{Error, Result};

/// `B` sequences of `T` tokens, of which `N` are to be said. All on the CPU, where models look ids up.
#[derive(Debug, Clone)]
pub struct MaskedBatch {
    /// Token ids, `[B, T]`, u32, all of them text: nothing is padded.
    pub input_ids: Tensor,
    /// Where the hidden tokens are among the `B·T`, `[N]`, u32, ascending.
    pub positions: Tensor,
    /// What stood there, `[N]`, u32.
    pub labels: Tensor,
    /// How many tokens of each sequence are to be said, `B` numbers.
    pub hidden: Vec<usize>,
}

impl LabelledBatch for MaskedBatch {
    fn size(&self) -> usize {
        self.hidden.len()
    }

    /// The tokens that are to be said.
    fn weight(&self) -> Result<f64> {
        Ok(self.hidden.iter().sum::<usize>() as f64)
    }

    fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let end = start
            .checked_add(len)
            .filter(|end| *end <= self.size() && len > 0);
        let Some(end) = end else {
            return Err(Error::Batch {
                reason: format!(
                    "sequences {start} .. {start} + {len} of a batch of {}; choose a non-empty range inside it",
                    self.size()
                ),
            });
        };
        let length = self.input_ids.dim(1)?;
        let before: usize = self.hidden[..start].iter().sum();
        let own: usize = self.hidden[start..end].iter().sum();
        let positions = self.positions.narrow(0, before, own)?.to_vec1::<u32>()?;
        let moved = (start * length) as u32;
        let positions: Vec<u32> = positions.into_iter().map(|at| at - moved).collect();
        Ok(Self {
            input_ids: self.input_ids.narrow(0, start, len)?.contiguous()?,
            positions: Tensor::from_vec(positions, own, &Device::Cpu)?,
            labels: self.labels.narrow(0, before, own)?.contiguous()?,
            hidden: self.hidden[start..end].to_vec(),
        })
    }

    fn labels(&self) -> Result<&Tensor> {
        Ok(&self.labels)
    }
}

/// A text in batches of sequences with hidden tokens.
pub struct MaskedBatches {
    text: Arc<Packed>,
    masking: Masking,
    order: Order,
}

impl MaskedBatches {
    /// The sequences of a text in the batcher's order, each epoch with hidden tokens of its own.
    pub fn new(text: Arc<Packed>, masking: Masking, batcher: Batcher) -> Self {
        let lengths = vec![text.length(); text.len()];
        Self {
            order: Order::new(batcher, lengths),
            text,
            masking,
        }
    }
}

impl Batches for MaskedBatches {
    type Batch = MaskedBatch;

    fn len(&self, _epoch: usize) -> usize {
        self.order.batches()
    }

    fn get(&self, epoch: usize, index: usize) -> Result<MaskedBatch> {
        let sequences = self.order.batch(epoch, index)?;
        let (rows, length) = (sequences.len(), self.text.length());
        let pieces = self.text.pieces();
        let mut ids = Vec::with_capacity(rows * length);
        let (mut positions, mut labels) = (Vec::new(), Vec::new());
        let mut hidden = Vec::with_capacity(rows);
        for (row, sequence) in sequences.into_iter().enumerate() {
            let mut body = self.text.body(sequence)?.to_vec();
            let chosen = self.masking.apply(pieces, &mut body, epoch, sequence);
            hidden.push(chosen.len());
            for (place, stood) in chosen {
                positions.push((row * length + 1 + place) as u32);
                labels.push(stood);
            }
            ids.push(pieces.first);
            ids.append(&mut body);
            ids.push(pieces.last);
        }
        let count = labels.len();
        Ok(MaskedBatch {
            input_ids: Tensor::from_vec(ids, (rows, length), &Device::Cpu)?,
            positions: Tensor::from_vec(positions, count, &Device::Cpu)?,
            labels: Tensor::from_vec(labels, count, &Device::Cpu)?,
            hidden,
        })
    }
}
