//! The tensors of sequences with hidden tokens.

use candle_core::{Device, Tensor};

use super::pairing::Parts;
use super::{Masking, Packed, Pairing};
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
    /// Of sequences in two parts, which they are.
    pub pairs: Option<Pairs>,
}

/// What the two parts of `B` sequences are to each other. On the CPU.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// 0 in the first part with its special tokens, 1 in the second, `[B, T]`, u32.
    pub token_type_ids: Tensor,
    /// What [`Pairing`] says, `[B]`, u32.
    pub labels: Tensor,
    /// Sequences for each hidden token of the batch of which this is the whole or a part.
    pub share: f64,
}

impl Pairs {
    fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        Ok(Self {
            token_type_ids: self.token_type_ids.narrow(0, start, len)?.contiguous()?,
            labels: self.labels.narrow(0, start, len)?.contiguous()?,
            share: self.share,
        })
    }
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
            pairs: (self.pairs.as_ref())
                .map(|pairs| pairs.narrow(start, len))
                .transpose()?,
        })
    }

    fn labels(&self) -> Result<&Tensor> {
        Ok(&self.labels)
    }
}

/// A text in batches of sequences with hidden tokens.
pub struct MaskedBatches {
    text: Packed,
    masking: Masking,
    pairing: Option<Pairing>,
    order: Order,
}

impl MaskedBatches {
    /// The sequences of a text in the batcher's order, each epoch with hidden tokens of its own.
    pub fn new(text: Packed, masking: Masking, batcher: Batcher) -> Self {
        let lengths = vec![text.length(); text.len()];
        Self {
            order: Order::new(batcher, lengths),
            text,
            masking,
            pairing: None,
        }
    }

    /// Makes two parts of each sequence, `[CLS] … [SEP] … [SEP]`, as a function of (seed of the masking, epoch, sequence).
    ///
    /// # Errors
    /// If sequences have no room for two parts, or there is only one.
    pub fn paired(mut self, pairing: Pairing) -> Result<Self> {
        // A tokenizer's own pairs may have fewer special tokens, and a text of its own a shorter sequence.
        let length = self.text.length();
        if length < Pairing::SHORTEST {
            return Err(Error::Setting {
                name: "max_length",
                got: format!("{length} for sequences in two parts"),
                expected: format!(
                    "at least {}: three special tokens, and one of text in each part",
                    Pairing::SHORTEST
                ),
            });
        }
        if self.text.len() < 2 {
            return Err(Error::Setting {
                name: "text",
                got: "one sequence".into(),
                expected:
                    "at least two for sequences in two parts; give more text or a smaller length"
                        .into(),
            });
        }
        self.pairing = Some(pairing);
        Ok(self)
    }

    /// A sequence's tokens of text, in two parts where that was asked for.
    fn parts(&self, epoch: usize, sequence: usize) -> Result<Parts> {
        match self.pairing {
            Some(pairing) => pairing.parts(&self.text, self.masking.seed(), epoch, sequence),
            None => {
                let tokens = self.text.body(sequence)?;
                Ok(Parts {
                    first: tokens.len(),
                    tokens,
                    label: 0,
                })
            }
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
        let (mut types, mut relations) = (Vec::new(), Vec::new());
        for (row, sequence) in sequences.into_iter().enumerate() {
            let Parts {
                mut tokens,
                first,
                label,
            } = self.parts(epoch, sequence)?;
            let chosen = self
                .masking
                .apply_to_parts(pieces, &mut tokens, first, (epoch, sequence));
            hidden.push(chosen.len());
            for (place, stood) in chosen {
                // Behind the special token at the front and, in the second part, the one between the two.
                let before = 1 + usize::from(place >= first);
                positions.push((row * length + before + place) as u32);
                labels.push(stood);
            }
            ids.push(pieces.first);
            ids.extend(&tokens[..first]);
            ids.push(pieces.last);
            if self.pairing.is_some() {
                ids.extend(&tokens[first..]);
                ids.push(pieces.last);
                types.extend((0..length).map(|at| u32::from(at >= first + 2)));
                relations.push(label);
            }
        }
        let count = labels.len();
        let pairs = || -> Result<Pairs> {
            Ok(Pairs {
                token_type_ids: Tensor::from_vec(types, (rows, length), &Device::Cpu)?,
                labels: Tensor::from_vec(relations, rows, &Device::Cpu)?,
                share: rows as f64 / count as f64,
            })
        };
        Ok(MaskedBatch {
            input_ids: Tensor::from_vec(ids, (rows, length), &Device::Cpu)?,
            positions: Tensor::from_vec(positions, count, &Device::Cpu)?,
            labels: Tensor::from_vec(labels, count, &Device::Cpu)?,
            hidden,
            pairs: self.pairing.map(|_| pairs()).transpose()?,
        })
    }
}
