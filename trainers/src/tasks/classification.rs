//! Classification: cross-entropy, and a metric on the most probable class.

use super::{LabelledBatch, some_examples};
use crate::error::Result;
use crate::metrics::{ClassMetric, Scores};
use crate::task::Task;
use adahessian::ops::{self, Mode};
use candle_core::{D, DType, Tensor};

/// Classification by a function from a batch to logits `[size, classes]`.
///
/// The loss is the mean cross-entropy. The evaluation reports the metric and, as `loss`, the mean
/// cross-entropy without label smoothing over all evaluation examples.
pub struct Classification<B, F> {
    forward: F,
    evaluation: Vec<B>,
    /// What an evaluation reports.
    pub metric: ClassMetric,
    /// The probability mass that is spread evenly over all classes while training, in 0..1.
    pub label_smoothing: f64,
}

impl<B: LabelledBatch, F: Fn(&B, &Mode) -> Result<Tensor>> Classification<B, F> {
    /// A task that reports accuracy on these batches and smooths no labels.
    pub fn new(forward: F, evaluation: Vec<B>) -> Self {
        Self {
            forward,
            evaluation,
            metric: ClassMetric::Accuracy,
            label_smoothing: 0.0,
        }
    }

    /// Reports another metric.
    pub fn metric(self, metric: ClassMetric) -> Self {
        Self { metric, ..self }
    }

    /// Smooths the labels while training.
    pub fn label_smoothing(self, label_smoothing: f64) -> Self {
        Self {
            label_smoothing,
            ..self
        }
    }

    /// The most probable classes of a batch.
    ///
    /// # Errors
    /// If the model fails.
    pub fn predict(&self, batch: &B) -> Result<Vec<u32>> {
        Ok(most_probable(&(self.forward)(batch, &Mode::Eval)?)?)
    }
}

fn most_probable(logits: &Tensor) -> candle_core::Result<Vec<u32>> {
    logits.detach().argmax(D::Minus1)?.to_vec1()
}

impl<B: LabelledBatch, F: Fn(&B, &Mode) -> Result<Tensor>> Task for Classification<B, F> {
    type Batch = B;

    fn size(&self, batch: &B) -> usize {
        batch.size()
    }

    fn narrow(&self, batch: &B, start: usize, len: usize) -> Result<B> {
        batch.narrow(start, len)
    }

    fn loss(&self, batch: &B, mode: &Mode) -> Result<Tensor> {
        let logits = (self.forward)(batch, mode)?;
        let (labels, smoothing) = (batch.labels()?, self.label_smoothing);
        Ok(ops::cross_entropy(&logits, labels, smoothing, None)?)
    }

    fn evaluate(&self) -> Result<Scores> {
        let (mut predictions, mut targets, mut loss) = (Vec::new(), Vec::new(), 0.0);
        // The mean loss of a batch of nothing would be 0 / 0.
        for batch in self.evaluation.iter().filter(|batch| batch.size() > 0) {
            let logits = (self.forward)(batch, &Mode::Eval)?.detach();
            let labels = batch.labels()?;
            predictions.extend(most_probable(&logits)?);
            targets.extend(labels.to_dtype(DType::U32)?.to_vec1::<u32>()?);
            let mean = ops::cross_entropy(&logits, labels, 0.0, None)?;
            loss += mean.to_dtype(DType::F64)?.to_scalar::<f64>()? * batch.size() as f64;
        }
        some_examples(targets.len())?;
        let scores = self.metric.scores(&predictions, &targets)?;
        Ok(scores.with("loss", loss / targets.len() as f64))
    }
}
