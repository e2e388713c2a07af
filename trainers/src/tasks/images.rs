//! Classification of images: top-1 and top-5 accuracy over data that need not fit into memory.

use super::{LabelledBatch, some_examples};
use crate::error::Result;
use crate::metrics::{Scores, top_k_hits};
use crate::task::{Batches, Task};
use adahessian::ops::{self, Mode};
use candle_core::{DType, Tensor};
use datasets::{ImageBatch, ImageBatches};

impl LabelledBatch for ImageBatch {
    fn size(&self) -> usize {
        self.len()
    }

    fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        Ok(self.narrow(start, len)?)
    }

    fn labels(&self) -> Result<&Tensor> {
        Ok(&self.labels)
    }
}

/// Batches made ahead of the step.
impl Batches for ImageBatches {
    type Batch = ImageBatch;

    fn len(&self, _epoch: usize) -> usize {
        self.len()
    }

    fn get(&self, epoch: usize, index: usize) -> Result<ImageBatch> {
        Ok(self.get(epoch, index)?)
    }
}

/// Classification by a function from a batch to logits `[size, classes]`, evaluated on the first
/// epoch of `evaluation`, one batch at a time: [`ImageBatches`], or
/// [`FixedBatches`](crate::FixedBatches) of a plain `Vec`.
///
/// The loss is the mean cross-entropy. An evaluation reports `accuracy` and, as `loss`, the mean
/// cross-entropy without label smoothing over all evaluation examples.
pub struct ImageClassification<F, E> {
    forward: F,
    evaluation: E,
    /// Reports also how often the right class is among the k most probable, as `top5` for k = 5.
    pub top: Option<usize>,
    /// The probability mass that is spread evenly over all classes while training, in 0..1.
    pub label_smoothing: f64,
}

impl<F, E> ImageClassification<F, E>
where
    E: Batches,
    E::Batch: LabelledBatch,
    F: Fn(&E::Batch, &Mode) -> Result<Tensor>,
{
    /// A task that reports the accuracy on these batches and smooths no labels.
    pub fn new(forward: F, evaluation: E) -> Self {
        Self {
            forward,
            evaluation,
            top: None,
            label_smoothing: 0.0,
        }
    }

    /// Reports also the share of examples whose class is among the `k` most probable.
    pub fn top(self, k: usize) -> Self {
        Self {
            top: Some(k),
            ..self
        }
    }

    /// Smooths the labels while training.
    pub fn label_smoothing(self, label_smoothing: f64) -> Self {
        Self {
            label_smoothing,
            ..self
        }
    }

    /// The logits of a batch in evaluation mode, without graph.
    ///
    /// # Errors
    /// If the model fails.
    pub fn logits(&self, batch: &E::Batch) -> Result<Tensor> {
        Ok((self.forward)(batch, &Mode::Eval)?.detach())
    }
}

impl<F, E> Task for ImageClassification<F, E>
where
    E: Batches,
    E::Batch: LabelledBatch,
    F: Fn(&E::Batch, &Mode) -> Result<Tensor>,
{
    type Batch = E::Batch;

    fn size(&self, batch: &E::Batch) -> usize {
        batch.size()
    }

    fn narrow(&self, batch: &E::Batch, start: usize, len: usize) -> Result<E::Batch> {
        batch.narrow(start, len)
    }

    fn loss(&self, batch: &E::Batch, mode: &Mode) -> Result<Tensor> {
        let logits = (self.forward)(batch, mode)?;
        let smoothing = self.label_smoothing;
        Ok(ops::cross_entropy(
            &logits,
            batch.labels()?,
            smoothing,
            None,
        )?)
    }

    fn evaluate(&self) -> Result<Scores> {
        let (mut count, mut first, mut among, mut loss) = (0, 0, 0, 0.0);
        for index in 0..self.evaluation.len(0) {
            let batch = self.evaluation.get(0, index)?;
            if batch.size() == 0 {
                continue; // its mean loss would be 0 / 0
            }
            let (logits, labels) = (self.logits(&batch)?, batch.labels()?);
            first += top_k_hits(&logits, labels, 1)?;
            if let Some(k) = self.top {
                among += top_k_hits(&logits, labels, k)?;
            }
            let mean = ops::cross_entropy(&logits, labels, 0.0, None)?;
            loss += mean.to_dtype(DType::F64)?.to_scalar::<f64>()? * batch.size() as f64;
            count += batch.size();
        }
        some_examples(count)?;
        let share = |hits: usize| hits as f64 / count as f64;
        let scores = Scores::new("accuracy", share(first));
        let scores = match self.top {
            Some(k) => scores.with(&format!("top{k}"), share(among)),
            None => scores,
        };
        Ok(scores.with("loss", loss / count as f64))
    }
}
