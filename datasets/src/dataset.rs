//! A data set in memory: encoded examples and how to make batches of them.

use candle_core::Device;

use crate::collate::{TextBatch, collate};
use crate::error::{Error, Result};
use crate::glue::Row;
use crate::text::{Encoded, TextEncoder};

/// Encoded examples of one split.
#[derive(Debug, Clone, Default)]
pub struct TextDataset {
    /// The examples, in the order of the file.
    pub examples: Vec<Encoded>,
    /// The id that fills up shorter examples of a batch.
    pub pad_id: u32,
}

impl TextDataset {
    /// Encodes `rows`, keeping their order.
    ///
    /// # Errors
    /// If the tokenizer refuses a row.
    pub fn encode(encoder: &TextEncoder, rows: &[Row]) -> Result<Self> {
        Ok(Self {
            examples: encoder.encode_many(rows)?,
            pad_id: encoder.pad_id(),
        })
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Keeps the first `n` examples at most.
    pub fn limit(mut self, n: usize) -> Self {
        self.examples.truncate(n);
        self
    }

    /// The number of tokens of each example, as [`Batcher::order`](crate::Batcher::order) wants it.
    pub fn lengths(&self) -> Vec<usize> {
        self.examples.iter().map(|e| e.ids.len()).collect()
    }

    /// The examples with these indices as tensors on `device`.
    ///
    /// # Errors
    /// If an index is out of range, or for the reasons of [`collate`].
    pub fn batch(&self, indices: &[usize], device: &Device) -> Result<TextBatch> {
        let examples = indices
            .iter()
            .map(|&index| {
                self.examples.get(index).ok_or_else(|| Error::Batch {
                    reason: format!("index {index} in a data set of {} examples", self.len()),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        collate(&examples, self.pad_id, device)
    }
}
