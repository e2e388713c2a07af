//! Learning from labels: a model, a loss, and metrics by name.

mod loss;

pub use loss::Loss;

use crate::error::{Error, Result};
use crate::metrics::{Metric, Scores, metric_by_name};
use crate::task::Task;
use adahessian::ops::Mode;
use adahessian::without_graph;
use candle_core::{DType, Tensor};
use datasets::{Batches, LabelledBatch};

/// A task whose examples have labels: classification (of texts, images, tokens, the next word), regression,
/// prediction of clicks.
///
/// The model is a function from a batch and a [`Mode`] to outputs. An evaluation goes through the first
/// epoch of its batches, one at a time, without graph (a model that differentiates in its own forward pass does so
/// in [`adahessian::with_graph`]). It reports the metrics in their order (the first one's main value
/// decides what is best) and `loss`, the mean over all labels, without label smoothing; without metrics, the
/// loss alone, which should be low.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use trainers::{FixedBatches, Loss, Supervised, Task, TensorBatch};
/// # fn main() -> trainers::Result<()> {
/// let batch = TensorBatch {
///     inputs: Tensor::new(&[[2f32, 0.], [0., 3.], [0., 1.]], &Device::Cpu)?,
///     labels: Tensor::new(&[0u32, 1, 0], &Device::Cpu)?,
/// };
/// let model = |batch: &TensorBatch, _: &_| Ok(batch.inputs.clone());
/// let task = Supervised::new(model, Loss::CROSS_ENTROPY, FixedBatches(vec![batch])).metrics(&["f1", "accuracy"])?;
/// let scores = task.evaluate()?;
/// assert_eq!((scores.main_name(), scores.get("accuracy")), ("f1", Some(2.0 / 3.0)));
/// # Ok(())
/// # }
/// ```
pub struct Supervised<F, E> {
    forward: F,
    loss: Loss,
    metrics: Vec<Box<dyn Metric>>,
    /// What is evaluated, each with what its scores' names end with.
    evaluations: Vec<(String, E)>,
}

impl<F, E> Supervised<F, E>
where
    E: Batches,
    E::Batch: LabelledBatch,
    F: Fn(&E::Batch, &Mode) -> Result<Tensor>,
{
    /// A task that is evaluated on these batches, without metrics.
    pub fn new(forward: F, loss: Loss, evaluation: E) -> Self {
        Self {
            forward,
            loss,
            metrics: Vec::new(),
            evaluations: vec![(String::new(), evaluation)],
        }
    }

    /// Reports these, too. See [`metric_by_name`].
    ///
    /// # Errors
    /// [`Error::Setting`] for a name that is none.
    pub fn metrics(mut self, names: &[&str]) -> Result<Self> {
        for name in names {
            self.metrics.push(metric_by_name(name)?);
        }
        Ok(self)
    }

    /// Reports a metric of the program's own, too.
    pub fn metric(mut self, metric: impl Metric + 'static) -> Self {
        self.metrics.push(Box::new(metric));
        self
    }

    /// Is evaluated on other batches, too, whose scores' names end with `suffix`.
    pub fn also(mut self, suffix: impl Into<String>, evaluation: E) -> Self {
        self.evaluations.push((suffix.into(), evaluation));
        self
    }

    /// The outputs of a batch in evaluation mode, without graph ([`adahessian::without_graph`]).
    ///
    /// # Errors
    /// If the model fails.
    pub fn outputs(&self, batch: &E::Batch) -> Result<Tensor> {
        Ok(without_graph(|| (self.forward)(batch, &Mode::Eval))?.detach())
    }

    fn scores(&self, evaluation: &E) -> Result<Scores> {
        let mut metrics: Vec<_> = self.metrics.iter().map(|metric| metric.fresh()).collect();
        let (mut loss, mut labels) = (0.0, 0.0);
        for index in 0..evaluation.len(0) {
            let batch = evaluation.get(0, index)?;
            let weight = match batch.size() {
                0 => 0.0,
                _ => batch.weight()?,
            };
            if weight == 0.0 {
                continue; // its mean loss would be 0 / 0
            }
            let outputs = self.outputs(&batch)?;
            for metric in &mut metrics {
                metric.add(&outputs, batch.labels()?)?;
            }
            let mean = self.loss.evaluated().of(&outputs, batch.labels()?)?;
            loss += mean.to_dtype(DType::F64)?.to_scalar::<f64>()? * weight;
            labels += weight;
        }
        if labels == 0.0 {
            return Err(Error::Batch {
                expected: "at least one example to evaluate on".into(),
                got: "none".into(),
            });
        }
        let reports = metrics.iter().map(|metric| metric.scores());
        Ok(joined(reports.collect::<Result<_>>()?, loss / labels))
    }
}

/// All scores in one report; a metric may have its own loss.
fn joined(reports: Vec<Scores>, loss: f64) -> Scores {
    let mut reports = reports.into_iter();
    let Some(first) = reports.next() else {
        return Scores::lower_is_better("loss", loss);
    };
    let all = reports.fold(first, |all, report| all.and(&report, ""));
    match all.get("loss") {
        Some(_) => all,
        None => all.with("loss", loss),
    }
}

impl<F, E> Task for Supervised<F, E>
where
    E: Batches,
    E::Batch: LabelledBatch,
    F: Fn(&E::Batch, &Mode) -> Result<Tensor>,
{
    type Batch = E::Batch;

    fn size(&self, batch: &E::Batch) -> usize {
        batch.size()
    }

    fn weight(&self, batch: &E::Batch) -> Result<f64> {
        Ok(batch.weight()?)
    }

    fn narrow(&self, batch: &E::Batch, start: usize, len: usize) -> Result<E::Batch> {
        Ok(batch.narrow(start, len)?)
    }

    fn loss(&self, batch: &E::Batch, mode: &Mode) -> Result<Tensor> {
        let outputs = (self.forward)(batch, mode)?;
        self.loss.of(&outputs, batch.labels()?)
    }

    fn evaluate(&self) -> Result<Scores> {
        let mut evaluations = self.evaluations.iter();
        let first = evaluations
            .next()
            .map(|(_, evaluation)| self.scores(evaluation));
        let first = first.unwrap_or_else(|| Ok(Scores::lower_is_better("loss", f64::NAN)))?;
        evaluations.try_fold(first, |all, (suffix, evaluation)| {
            Ok(all.and(&self.scores(evaluation)?, suffix))
        })
    }
}
