//! The tensors of a batch of pairs.

use candle_core::{Device, Tensor};

use super::texts::PairIds;
use crate::batches::{LabelledBatch, UNLABELLED};
use crate::error::{Error, Result};

/// The tensors of `B` pairs, padded on the right to the longest source of `S` tokens and target of `T` tokens.
///
/// At position `t` a decoder has seen `previous[.., ..=t]` and is to tell `labels[.., t]`.
#[derive(Debug, Clone)]
pub struct TranslationBatch {
    /// Source ids, `[B, S]`, u32: each source ends with `</s>`, then come those of padding.
    pub source: Tensor,
    /// What a decoder is given, `[B, T]`, u32: `</s>`, and the target without its own `</s>`, then padding.
    pub previous: Tensor,
    /// What it is to tell, `[B, T]`, u32: the target with its `</s>`, then [`UNLABELLED`](crate::UNLABELLED).
    pub labels: Tensor,
    /// The number of target tokens, `</s>` included: the weight of the mean loss.
    pub tokens: usize,
    /// The target tokens of each pair, `B` numbers.
    pub lengths: Vec<usize>,
}

impl TranslationBatch {
    /// Pads pairs of source and target ids, which all end with the id of `</s>`, and moves them to `device`.
    ///
    /// # Errors
    /// If there are none, a side has no ids, or the device refuses the tensors.
    pub fn new(pairs: &[PairIds], pad: u32, device: &Device) -> Result<Self> {
        let empty = |pair: &PairIds| pair.0.is_empty() || pair.1.is_empty();
        if pairs.is_empty() || pairs.iter().any(empty) {
            return Err(Error::Batch {
                reason: "no pairs, or a side without ids; give pairs that end with the id of </s>"
                    .to_string(),
            });
        }
        let previous: Vec<Vec<u32>> = pairs.iter().map(|pair| shifted(&pair.1)).collect();
        let lengths: Vec<usize> = pairs.iter().map(|pair| pair.1.len()).collect();
        Ok(Self {
            source: padded(pairs.iter().map(|pair| pair.0.as_slice()), pad, device)?,
            previous: padded(previous.iter().map(Vec::as_slice), pad, device)?,
            labels: padded(
                pairs.iter().map(|pair| pair.1.as_slice()),
                UNLABELLED,
                device,
            )?,
            tokens: lengths.iter().sum(),
            lengths,
        })
    }

    /// The number of pairs `B`.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether the batch has no pairs.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }
}

impl LabelledBatch for TranslationBatch {
    fn size(&self) -> usize {
        self.len()
    }

    /// The target tokens.
    fn weight(&self) -> Result<f64> {
        Ok(self.tokens as f64)
    }

    /// The widths `S` and `T` stay, so the micro-batches of a batch all have the same shapes.
    fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let source = self.source.narrow(0, start, len)?;
        let lengths = self
            .lengths
            .get(start..start + len)
            .unwrap_or_default()
            .to_vec();
        Ok(Self {
            source,
            previous: self.previous.narrow(0, start, len)?,
            labels: self.labels.narrow(0, start, len)?,
            tokens: lengths.iter().sum(),
            lengths,
        })
    }

    fn labels(&self) -> Result<&Tensor> {
        Ok(&self.labels)
    }
}

/// The last id, and all others behind it.
fn shifted(target: &[u32]) -> Vec<u32> {
    let mut previous = target.to_vec();
    previous.rotate_right(1);
    previous
}

/// Rows of ids, `[B, longest]`.
fn padded<'a>(
    rows: impl ExactSizeIterator<Item = &'a [u32]> + Clone,
    pad: u32,
    device: &Device,
) -> Result<Tensor> {
    let (count, width) = (
        rows.len(),
        rows.clone().map(<[u32]>::len).max().unwrap_or(0),
    );
    let mut ids = Vec::with_capacity(count * width);
    for row in rows {
        ids.extend(row);
        ids.resize(ids.len() + width - row.len(), pad);
    }
    Ok(Tensor::from_vec(ids, (count, width), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> TranslationBatch {
        let pairs = [
            (vec![5, 6, 2], vec![7, 2]),
            (vec![8, 2], vec![9, 10, 11, 2]),
        ];
        TranslationBatch::new(&pairs, 1, &Device::Cpu).unwrap()
    }

    fn rows(tensor: &Tensor) -> Vec<Vec<u32>> {
        tensor.to_vec2().unwrap()
    }

    #[test]
    fn a_decoder_is_given_the_end_first() {
        let batch = batch();
        assert_eq!(rows(&batch.source), [[5, 6, 2], [8, 2, 1]]);
        assert_eq!(rows(&batch.previous), [[2, 7, 1, 1], [2, 9, 10, 11]]);
        let none = UNLABELLED;
        assert_eq!(rows(&batch.labels), [[7, 2, none, none], [9, 10, 11, 2]]);
        assert_eq!(
            (batch.tokens, batch.size(), batch.weight().unwrap()),
            (6, 2, 6.0)
        );
    }

    #[test]
    fn parts_have_their_own_tokens() {
        let part = batch().narrow(1, 1).unwrap();
        assert_eq!(
            (part.tokens, part.lengths.clone(), part.size()),
            (4, vec![4], 1)
        );
        assert_eq!(rows(&part.source), [[8, 2, 1]]);
        assert_eq!(rows(part.labels().unwrap()), [[9, 10, 11, 2]]);
        assert!(batch().narrow(1, 2).is_err() && batch().narrow(usize::MAX, 2).is_err());
    }

    #[test]
    fn nothing_is_no_batch() {
        for pairs in [vec![], vec![(vec![], vec![2])], vec![(vec![2], vec![])]] {
            assert!(TranslationBatch::new(&pairs, 1, &Device::Cpu).is_err());
        }
    }
}
