//! Prediction of clicks: binary cross entropy, and AUC.

use super::{LabelledBatch, some_examples};
use crate::error::{Error, Result};
use crate::metrics::{Scores, clicks};
use crate::task::{Batches, Task};
use adahessian::ops::{Mode, binary_cross_entropy};
use candle_core::{DType, Device, Tensor};
use datasets::criteo::{ClickBatch, ClickBatches};

impl LabelledBatch for ClickBatch {
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

/// Rows of a store, put on a device.
impl Batches for (ClickBatches, Device) {
    type Batch = ClickBatch;

    fn len(&self, _epoch: usize) -> usize {
        self.0.len()
    }

    fn get(&self, epoch: usize, index: usize) -> Result<ClickBatch> {
        Ok(self.0.get(epoch, index, &self.1)?)
    }
}

/// Prediction of clicks by a function from a batch to logits `[size]` or `[size, 1]`; labels are 0 and 1.
/// It is evaluated on the first epoch of `evaluation`, one batch at a time.
///
/// The loss is the mean binary cross entropy. The evaluation reports what
/// [`metrics::clicks`](crate::metrics::clicks) does, AUC as the main value, and `says_nothing`: 1 where all
/// labels or all predictions are the same, so that neither AUC nor accuracy mean anything, else 0. Where
/// all labels are the same there is no AUC; 0.5 stands in its place, and the normalised entropy is left
/// out.
pub struct ClickPrediction<F, E> {
    forward: F,
    evaluation: E,
}

impl<F, E> ClickPrediction<F, E>
where
    E: Batches,
    E::Batch: LabelledBatch,
    F: Fn(&E::Batch, &Mode) -> Result<Tensor>,
{
    /// A task that is evaluated on these batches.
    pub fn new(forward: F, evaluation: E) -> Self {
        Self {
            forward,
            evaluation,
        }
    }

    /// The logits of a batch in evaluation mode.
    ///
    /// # Errors
    /// If the model fails.
    pub fn predict(&self, batch: &E::Batch) -> Result<Vec<f64>> {
        let logits = (self.forward)(batch, &Mode::Eval)?.detach().flatten_all()?;
        Ok(logits.to_dtype(DType::F64)?.to_vec1()?)
    }
}

impl<F, E> Task for ClickPrediction<F, E>
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
        let logits = (self.forward)(batch, mode)?.flatten_all()?;
        let labels = batch.labels()?.to_dtype(logits.dtype())?;
        Ok(binary_cross_entropy(&logits, &labels)?)
    }

    fn evaluate(&self) -> Result<Scores> {
        let (mut logits, mut labels) = (Vec::new(), Vec::new());
        for index in 0..self.evaluation.len(0) {
            let batch = self.evaluation.get(0, index)?;
            if batch.size() == 0 {
                continue;
            }
            logits.extend(self.predict(&batch)?);
            let values = batch.labels()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            for value in values {
                labels.push(is_click(value)?);
            }
        }
        some_examples(labels.len())?;
        let (scores, warnings) = clicks(&logits, &labels)?;
        let scores = match warnings.one_label {
            true => without_auc(&scores),
            false => scores,
        };
        let nothing = warnings.constant || warnings.one_label;
        Ok(scores.with("says_nothing", f64::from(u8::from(nothing))))
    }
}

/// The scores of rows of one label, which end no run: neither ranks nor entropy are defined.
fn without_auc(scores: &Scores) -> Scores {
    let defined = scores.iter().filter(|(_, value)| value.is_finite());
    defined.fold(Scores::new("auc", 0.5), |all, (name, value)| {
        all.with(name, value)
    })
}

fn is_click(label: f64) -> Result<bool> {
    match label {
        0.0 => Ok(false),
        1.0 => Ok(true),
        other => Err(Error::Batch {
            expected: "labels 0 and 1".into(),
            got: format!("{other}; rows of test.txt, say, have none"),
        }),
    }
}
