//! Regression: mean squared error, and correlations.

use super::{LabelledBatch, some_examples};
use crate::error::Result;
use crate::metrics::{Scores, correlations};
use crate::task::Task;
use adahessian::ops::{self, Mode};
use candle_core::{DType, Tensor};

/// Regression by a function from a batch to values `[size]` or `[size, 1]`.
///
/// The loss is the mean squared error. The evaluation reports Pearson, Spearman, their mean as the
/// main value, and the mean squared error as `loss`.
pub struct Regression<B, F> {
    forward: F,
    evaluation: Vec<B>,
}

impl<B: LabelledBatch, F: Fn(&B, &Mode) -> Result<Tensor>> Regression<B, F> {
    /// A task that is evaluated on these batches.
    pub fn new(forward: F, evaluation: Vec<B>) -> Self {
        Self {
            forward,
            evaluation,
        }
    }

    /// The predicted values of a batch.
    ///
    /// # Errors
    /// If the model fails.
    pub fn predict(&self, batch: &B) -> Result<Vec<f64>> {
        Ok(to_vec(&self.values(batch, &Mode::Eval)?)?)
    }

    fn values(&self, batch: &B, mode: &Mode) -> Result<Tensor> {
        Ok((self.forward)(batch, mode)?.flatten_all()?)
    }
}

fn to_vec(values: &Tensor) -> candle_core::Result<Vec<f64>> {
    values.detach().to_dtype(DType::F64)?.to_vec1()
}

impl<B: LabelledBatch, F: Fn(&B, &Mode) -> Result<Tensor>> Task for Regression<B, F> {
    type Batch = B;

    fn size(&self, batch: &B) -> usize {
        batch.size()
    }

    fn narrow(&self, batch: &B, start: usize, len: usize) -> Result<B> {
        batch.narrow(start, len)
    }

    fn loss(&self, batch: &B, mode: &Mode) -> Result<Tensor> {
        let values = self.values(batch, mode)?;
        let targets = batch.labels()?.to_dtype(values.dtype())?;
        Ok(ops::mse(&values, &targets)?)
    }

    fn evaluate(&self) -> Result<Scores> {
        let (mut predictions, mut targets) = (Vec::new(), Vec::new());
        for batch in self.evaluation.iter().filter(|batch| batch.size() > 0) {
            predictions.extend(self.predict(batch)?);
            targets.extend(to_vec(batch.labels()?)?);
        }
        some_examples(targets.len())?;
        let scores = correlations(&predictions, &targets)?;
        let squares = predictions
            .iter()
            .zip(&targets)
            .map(|(p, t)| (p - t).powi(2));
        Ok(scores.with("loss", squares.sum::<f64>() / targets.len() as f64))
    }
}
