//! Prediction of clicks: binary cross entropy, and AUC.

use super::LabelledBatch;
use crate::error::Result;
use crate::metrics::{Scores, clicks};
use crate::task::Task;
use adahessian::ops::recommend::binary_cross_entropy;
use adahessian::ops::{Handle, Mode};
use candle_core::{DType, Tensor};

/// Prediction of clicks by a function from a batch to logits `[size]` or `[size, 1]`; labels are 0 and 1.
///
/// The loss is the mean binary cross entropy. The evaluation reports what
/// [`metrics::clicks`](crate::metrics::clicks) does, AUC as the main value, and `says_nothing`: 1 where all
/// labels or all predictions are the same, so that neither AUC nor accuracy mean anything, else 0.
pub struct ClickPrediction<B, F> {
    forward: F,
    evaluation: Vec<B>,
}

impl<B: LabelledBatch, F: Fn(&B, &Mode) -> Result<Tensor>> ClickPrediction<B, F> {
    /// A task that is evaluated on these batches.
    pub fn new(forward: F, evaluation: Vec<B>) -> Self {
        Self {
            forward,
            evaluation,
        }
    }

    /// The logits of a batch.
    ///
    /// # Errors
    /// If the model fails.
    pub fn predict(&self, batch: &B) -> Result<Vec<f64>> {
        let logits = (self.forward)(batch, &Mode::Eval)?.detach().flatten_all()?;
        Ok(logits.to_dtype(DType::F64)?.to_vec1()?)
    }
}

impl<B: LabelledBatch, F: Fn(&B, &Mode) -> Result<Tensor>> Task for ClickPrediction<B, F> {
    type Batch = B;

    fn size(&self, batch: &B) -> usize {
        batch.size()
    }

    fn narrow(&self, batch: &B, start: usize, len: usize) -> Result<B> {
        batch.narrow(start, len)
    }

    fn loss(&self, batch: &B, mode: &Mode) -> Result<Tensor> {
        let logits = (self.forward)(batch, mode)?.flatten_all()?;
        let labels = batch.labels()?.to_dtype(logits.dtype())?;
        Ok(binary_cross_entropy(&Handle::enter(&logits)?, &labels)?.exit()?)
    }

    fn evaluate(&self) -> Result<Scores> {
        let (mut logits, mut labels) = (Vec::new(), Vec::new());
        for batch in &self.evaluation {
            logits.extend(self.predict(batch)?);
            let batch = batch.labels()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            labels.extend(batch.into_iter().map(|label| label > 0.5));
        }
        let (scores, warnings) = clicks(&logits, &labels)?;
        let nothing = warnings.constant || warnings.one_label;
        Ok(scores.with("says_nothing", f64::from(u8::from(nothing))))
    }
}
