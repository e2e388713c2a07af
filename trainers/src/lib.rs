//! The training loop around AdaHessian for candle.
//!
//! One loop for every task and every optimizer: gradient accumulation in which each micro-batch
//! contributes its own gradient and its own Hessian-vector product, learning-rate schedules,
//! evaluation, early stopping, and checkpoints from which a run goes on bit for bit.
//!
//! ```text
//! Batches ──batch──> Task::loss ──loss──> Optim::accumulate_loss, apply ──StepReport──> Callbacks
//!                    Task::evaluate ──Scores──> best checkpoint, patience, plateau ───> Callbacks
//! ```
//!
//! * [`Task`] is what a program implements, or has ready-made: [`Supervised`] for everything with labels;
//!   [`Batches`] and [`Ahead`], which makes batches of any kind ahead of the step, are those of `datasets`;
//! * [`config`] is the loop's configuration, [`trainer`] the loop;
//! * [`metrics`], by name, are those of GLUE and more, equal to scikit-learn's and SciPy's;
//! * [`generation`] searches for sequences and scores them: beam search, BLEU, means of checkpoints;
//! * [`checkpoint`] writes folders that a crash cannot spoil, [`run_folder`] knows where, [`disk`] how;
//! * [`callbacks`] see every step and evaluation: progress bar, status lines, JSON lines, TensorBoard, curves and
//!   summary. Nothing is written or shown but by them.
//!
//! ```
//! use adahessian::{AdaHessian, ops::Mode};
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{Module, VarBuilder, VarMap, linear};
//! use trainers::{FixedBatches, Loss, Supervised, TensorBatch, TrainConfig, Trainer};
//!
//! # fn main() -> trainers::Result<()> {
//! let device = Device::Cpu;
//! let inputs = Tensor::new(&[[0f32, 1.], [1., 0.], [1., 1.], [0., 0.]], &device)?;
//! let labels = Tensor::new(&[1u32, 0, 1, 0], &device)?;
//! let batch = TensorBatch { inputs, labels };
//!
//! let varmap = VarMap::new();
//! let model = linear(2, 2, VarBuilder::from_varmap(&varmap, DType::F32, &device))?;
//! let forward = move |batch: &TensorBatch, _: &Mode| Ok(model.forward(&batch.inputs)?);
//! let task = Supervised::new(forward, Loss::CROSS_ENTROPY, FixedBatches(vec![batch.clone()])).metrics(&["accuracy"])?;
//! let optimizer = AdaHessian::builder().lr(0.1).build(&varmap)?;
//!
//! let config = TrainConfig { epochs: 100, ..TrainConfig::default() };
//! let mut trainer = Trainer::new(task, FixedBatches(vec![batch]), &varmap, Box::new(optimizer), config)?;
//! let summary = trainer.fit()?;
//! assert_eq!(summary.last.map(|last| last.scores.main()), Some(1.0));
//! # Ok(())
//! # }
//! ```

pub mod callbacks;
pub mod checkpoint;
pub mod config;
pub mod disk;
pub mod error;
pub mod generation;
pub mod metrics;
pub mod run_folder;
mod supervised;
mod task;
pub mod trainer;

pub use callbacks::{Callback, EvalReport, StartReport, StepReport};
pub use checkpoint::{Checkpoints, Evaluated, LastCurvature, Progress};
pub use config::{Plateau, TrainConfig};
pub use datasets::{Ahead, Batches, FixedBatches, LabelledBatch, TensorBatch};
pub use error::{Error, Result};
pub use metrics::{Metric, Scores};
pub use run_folder::RunFolder;
pub use supervised::{Loss, Supervised};
pub use task::Task;
pub use trainer::{Outcome, Summary, Trainer};
