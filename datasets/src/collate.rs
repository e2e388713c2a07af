//! From encoded examples to the tensors of one batch.

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::glue::Label;
use crate::text::Encoded;

/// The tensors of one batch of `B` examples, padded to its longest example of `T` tokens.
#[derive(Debug, Clone)]
pub struct TextBatch {
    /// Token ids, `[B, T]`, u32; the padding id after the end of a text.
    pub input_ids: Tensor,
    /// 0 for the first sentence, 1 for the second, `[B, T]`, u32; 0 in the padding.
    pub token_type_ids: Tensor,
    /// 1 where there is text, 0 in the padding, `[B, T]`, u32.
    pub attention_mask: Tensor,
    /// Classes `[B]` u32, or scores `[B]` f32; `None` for unlabelled examples.
    pub labels: Option<Tensor>,
}

impl TextBatch {
    /// The number of examples `B`.
    pub fn len(&self) -> usize {
        self.input_ids.dims().first().copied().unwrap_or(0)
    }

    /// Whether the batch has no examples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The examples `start .. start + len` as a batch of their own, for micro-batches.
    ///
    /// The width `T` stays, so the micro-batches of a batch all have the same shape.
    ///
    /// # Errors
    /// If the range does not lie within the batch.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let batch = self.len();
        if len == 0 || start.checked_add(len).is_none_or(|end| end > batch) {
            return Err(Error::Batch {
                reason: format!(
                    "examples {start} .. {start} + {len} of a batch of {batch}; choose a non-empty range inside it"
                ),
            });
        }
        Ok(Self {
            input_ids: self.input_ids.narrow(0, start, len)?,
            token_type_ids: self.token_type_ids.narrow(0, start, len)?,
            attention_mask: self.attention_mask.narrow(0, start, len)?,
            labels: match &self.labels {
                Some(labels) => Some(labels.narrow(0, start, len)?),
                None => None,
            },
        })
    }
}

/// Pads `examples` to the longest among them and moves them to `device`.
///
/// # Errors
/// If `examples` is empty, if all of them have no tokens, if an example has not as many types as
/// ids, or if some labels are classes and others scores or absent.
pub fn collate(examples: &[&Encoded], pad_id: u32, device: &Device) -> Result<TextBatch> {
    let rows = examples.len();
    let width = examples.iter().map(|e| e.ids.len()).max().unwrap_or(0);
    if width == 0 {
        return Err(Error::Batch {
            reason: format!("{rows} examples without a token; give at least one encoded text"),
        });
    }
    let mut ids = Vec::with_capacity(rows * width);
    let mut types = Vec::with_capacity(rows * width);
    let mut mask = Vec::with_capacity(rows * width);
    for (index, example) in examples.iter().enumerate() {
        if example.ids.len() != example.types.len() {
            return Err(Error::Batch {
                reason: format!(
                    "example {index} has {} ids but {} types; they must be equally many",
                    example.ids.len(),
                    example.types.len()
                ),
            });
        }
        let padding = width - example.ids.len();
        ids.extend_from_slice(&example.ids);
        ids.extend(std::iter::repeat_n(pad_id, padding));
        types.extend_from_slice(&example.types);
        types.extend(std::iter::repeat_n(0u32, padding));
        mask.extend(std::iter::repeat_n(1u32, example.ids.len()));
        mask.extend(std::iter::repeat_n(0u32, padding));
    }
    Ok(TextBatch {
        input_ids: Tensor::from_vec(ids, (rows, width), device)?,
        token_type_ids: Tensor::from_vec(types, (rows, width), device)?,
        attention_mask: Tensor::from_vec(mask, (rows, width), device)?,
        labels: labels(examples, device)?,
    })
}

/// The labels as one tensor, if all are of one kind.
fn labels(examples: &[&Encoded], device: &Device) -> Result<Option<Tensor>> {
    let rows = examples.len();
    let (mut classes, mut scores) = (Vec::new(), Vec::new());
    for example in examples {
        match example.label {
            Some(Label::Class(class)) => classes.push(class),
            Some(Label::Score(score)) => scores.push(score),
            None => {}
        }
    }
    match (classes.len(), scores.len()) {
        (0, 0) => Ok(None),
        (n, 0) if n == rows => Ok(Some(Tensor::from_vec(classes, rows, device)?)),
        (0, n) if n == rows => Ok(Some(Tensor::from_vec(scores, rows, device)?)),
        (classes, scores) => Err(Error::Batch {
            reason: format!(
                "of {rows} examples {classes} have a class, {scores} a score and {} no label; \
                 batch examples of one data set only",
                rows - classes - scores
            ),
        }),
    }
}
