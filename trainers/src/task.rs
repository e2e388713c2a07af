//! What a program gives to the loop beside its batches: what to do with one.

use crate::error::Result;
use crate::metrics::Scores;
use adahessian::ops::Mode;
use candle_core::Tensor;

/// From batches to losses, and from the model to an evaluation. The model lives in the task.
///
/// [`Supervised`](crate::Supervised) is one for everything that has labels. What has none, or several losses,
/// is written by hand; an autoencoder, say, whose batches are matrices of which it reconstructs the rows:
///
/// ```
/// use adahessian::{AdaHessian, nn, ops::Mode};
/// use candle_core::{DType, Device, Tensor};
/// use nn::{Module, VarBuilder, VarMap};
/// use trainers::{FixedBatches, Result, Scores, Task, TrainConfig, Trainer};
///
/// struct Autoencoder {
///     encode: nn::Linear,
///     decode: nn::Linear,
///     validation: Tensor,
/// }
///
/// impl Task for Autoencoder {
///     type Batch = Tensor; // [B, 6]
///
///     fn size(&self, batch: &Tensor) -> usize {
///         batch.dims()[0]
///     }
///
///     fn narrow(&self, batch: &Tensor, start: usize, len: usize) -> Result<Tensor> {
///         Ok(batch.narrow(0, start, len)?)
///     }
///
///     fn loss(&self, batch: &Tensor, _: &Mode) -> Result<Tensor> {
///         let code = self.encode.forward(batch)?.tanh()?; // [B, 2]
///         let again = self.decode.forward(&code)?; // [B, 6]
///         Ok(nn::loss::mse(&again, batch)?)
///     }
///
///     fn evaluate(&self) -> Result<Scores> {
///         let loss = self.loss(&self.validation, &Mode::Eval)?;
///         Ok(Scores::lower_is_better("loss", loss.to_scalar::<f32>()?.into()))
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let map = VarMap::new();
/// let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
/// let rows = Tensor::rand(0f32, 1.0, (32, 2), &Device::Cpu)?;
/// let rows = rows.matmul(&Tensor::rand(0f32, 1.0, (2, 6), &Device::Cpu)?)?; // of rank 2
/// let task = Autoencoder {
///     encode: nn::linear(6, 2, vb.pp("encode"))?,
///     decode: nn::linear(2, 6, vb.pp("decode"))?,
///     validation: rows.narrow(0, 0, 8)?,
/// };
/// let first = task.evaluate()?;
/// let batches = FixedBatches(vec![rows.narrow(0, 8, 12)?, rows.narrow(0, 20, 12)?]);
/// let optimizer = AdaHessian::builder().lr(0.1).build(&map)?;
/// let config = TrainConfig { epochs: 20, ..TrainConfig::default() };
/// let last = Trainer::new(task, batches, &map, Box::new(optimizer), config)?.fit()?.last;
/// assert!(last.is_some_and(|last| last.scores.better_than(&first)));
/// # Ok(())
/// # }
/// ```
pub trait Task {
    /// The type of a batch.
    type Batch;

    /// How many examples a batch has.
    fn size(&self, batch: &Self::Batch) -> usize;

    /// What a batch weighs against the other micro-batches of its step: the number of terms whose
    /// mean its loss is. That is its size, unless the loss is a mean over tokens.
    ///
    /// # Errors
    /// If it cannot be told.
    fn weight(&self, batch: &Self::Batch) -> Result<f64> {
        Ok(self.size(batch) as f64)
    }

    /// The examples `start .. start + len` as a batch of their own.
    ///
    /// # Errors
    /// If the batch cannot be cut.
    fn narrow(&self, batch: &Self::Batch, start: usize, len: usize) -> Result<Self::Batch>;

    /// The mean loss of a batch, one element, differentiable twice.
    ///
    /// # Errors
    /// If the model fails; wrap errors of your own with [`crate::Error::user`].
    fn loss(&self, batch: &Self::Batch, mode: &Mode) -> Result<Tensor>;

    /// Evaluates the model as it is now.
    ///
    /// # Errors
    /// As [`Task::loss`].
    fn evaluate(&self) -> Result<Scores>;
}
