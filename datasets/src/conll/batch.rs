//! The tensors of labelled words.

use candle_core::{Device, Tensor};

use super::TokenExample;
use crate::batches::{LabelledBatch, UNLABELLED};
use crate::collate::{TextBatch, collate};
use crate::error::{Error, Result};

/// The tensors of one batch of `B` sentences, padded to its longest one of `T` pieces.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    /// Token ids, `[B, T]`, u32; the padding id after the end of a sentence.
    pub input_ids: Tensor,
    /// `[B, T]`, u32, 0 throughout.
    pub token_type_ids: Tensor,
    /// 1 where there is text, 0 in the padding, `[B, T]`, u32.
    pub attention_mask: Tensor,
    /// Classes, `[B, T]`, u32: a word's at its first piece, [`UNLABELLED`](crate::UNLABELLED) elsewhere.
    pub labels: Tensor,
    /// How many pieces of each sentence have a class, `B` numbers.
    pub words: Vec<usize>,
}

/// The pieces of a batch that have a class, sentence after sentence.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Where they are among the `B·T` pieces, `[N]`, u32: for `index_select` on logits `[B·T, C]`.
    pub positions: Tensor,
    /// Their classes, `[N]`, u32.
    pub classes: Tensor,
}

impl LabelledBatch for TokenBatch {
    fn size(&self) -> usize {
        self.len()
    }

    /// The pieces that have a class.
    fn weight(&self) -> Result<f64> {
        Ok(self.labelled() as f64)
    }

    fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        self.narrow(start, len)
    }

    fn labels(&self) -> Result<&Tensor> {
        Ok(&self.labels)
    }
}

impl TokenBatch {
    /// The number of sentences `B`.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether the batch has no sentences.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The number `N` of pieces that have a class: the weight of the batch's mean loss.
    pub fn labelled(&self) -> usize {
        self.words.iter().sum()
    }

    /// The sentences `start .. start + len` as a batch of their own, for micro-batches.
    ///
    /// The width `T` stays, so the micro-batches of a batch all have the same shape.
    ///
    /// # Errors
    /// If the range does not lie within the batch.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let text = self.text().narrow(start, len)?;
        let words = self.words.get(start..start + len);
        Ok(Self {
            input_ids: text.input_ids,
            token_type_ids: text.token_type_ids,
            attention_mask: text.attention_mask,
            labels: self.labels.narrow(0, start, len)?,
            words: words.unwrap_or_default().to_vec(),
        })
    }

    /// The sentences without labels, as models for texts take them; nothing is copied.
    pub fn text(&self) -> TextBatch {
        TextBatch {
            input_ids: self.input_ids.clone(),
            token_type_ids: self.token_type_ids.clone(),
            attention_mask: self.attention_mask.clone(),
            labels: None,
        }
    }

    /// The pieces that have a class, on the batch's device.
    ///
    /// # Errors
    /// If there is none, or a tensor cannot be made.
    pub fn targets(&self) -> Result<Targets> {
        let labels = self.labels.flatten_all()?.to_vec1::<u32>()?;
        let labelled = (0u32..)
            .zip(labels)
            .filter(|(_, class)| *class != UNLABELLED);
        let (positions, classes): (Vec<u32>, Vec<u32>) = labelled.unzip();
        if positions.is_empty() {
            return Err(Error::Batch {
                reason: format!(
                    "{} sentences without a labelled piece; give a larger max_length or sentences with words",
                    self.len()
                ),
            });
        }
        let (count, device) = (positions.len(), self.labels.device());
        Ok(Targets {
            positions: Tensor::from_vec(positions, count, device)?,
            classes: Tensor::from_vec(classes, count, device)?,
        })
    }

    /// Cuts what belongs to the `N` pieces of [`TokenBatch::targets`] into sentences.
    ///
    /// # Errors
    /// If there are not `N`.
    pub fn by_sentence<'a, T>(&self, values: &'a [T]) -> Result<Vec<&'a [T]>> {
        if values.len() != self.labelled() {
            return Err(Error::Batch {
                reason: format!(
                    "{} values for {} labelled pieces; give one for each, in their order",
                    values.len(),
                    self.labelled()
                ),
            });
        }
        let mut rest = values;
        let cut = self.words.iter().map(|words| {
            let (sentence, tail) = rest.split_at(*words);
            rest = tail;
            sentence
        });
        Ok(cut.collect())
    }
}

/// Pads `examples` to the longest among them and moves them to `device`.
pub(super) fn collate_tokens(
    examples: &[&TokenExample],
    pad_id: u32,
    device: &Device,
) -> Result<TokenBatch> {
    let encoded: Vec<_> = examples.iter().map(|example| &example.encoded).collect();
    let text = collate(&encoded, pad_id, device)?;
    let (rows, width) = text.input_ids.dims2()?;
    let mut labels = Vec::with_capacity(rows * width);
    for (index, example) in examples.iter().enumerate() {
        let (pieces, own) = (example.encoded.ids.len(), example.labels.len());
        if pieces != own {
            return Err(Error::Batch {
                reason: format!(
                    "example {index} has {pieces} ids but {own} labels; they must be equally many"
                ),
            });
        }
        labels.extend_from_slice(&example.labels);
        labels.extend(std::iter::repeat_n(UNLABELLED, width - own));
    }
    Ok(TokenBatch {
        input_ids: text.input_ids,
        token_type_ids: text.token_type_ids,
        attention_mask: text.attention_mask,
        labels: Tensor::from_vec(labels, (rows, width), device)?,
        words: examples.iter().map(|example| example.words()).collect(),
    })
}
