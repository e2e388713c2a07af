//! What sees every step and evaluation: files, pictures, the bar on the screen, and lines where there is
//! none. Nothing else in this crate shows anything.

mod event_file;
mod jsonl;
mod plot;
mod progress;
mod running;
mod status;
mod summary;
mod tensorboard;

pub use event_file::{EventFile, crc32c, masked_crc32c};
pub use jsonl::JsonLines;
pub use plot::{Curve, Curves, draw};
pub use progress::ProgressBar;
pub use status::StatusLines;
pub use summary::{SummaryFile, peak_memory_mib};
pub use tensorboard::TensorBoard;

use crate::checkpoint::LastCurvature;
use crate::error::Result;
use crate::metrics::Scores;
use crate::trainer::Summary;
use adahessian::StepInfo;

/// A run begins or goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct StartReport {
    /// How many steps the whole run has.
    pub total_steps: u64,
    /// How many epochs it begins.
    pub epochs: usize,
    /// The number of steps already taken, if the run goes on from a checkpoint. What a callback
    /// recorded of later steps belongs to a process that was cut off.
    pub resumed_at: Option<u64>,
    /// Whether the evaluation of that step is made once more: what a callback recorded of it belongs to one that
    /// failed.
    pub owed: bool,
    /// The seed of the configuration.
    pub seed: u64,
}

/// A step was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The number of steps taken, this one included.
    pub step: u64,
    /// How many steps the whole run has.
    pub total_steps: u64,
    /// The epoch of this step's batch, from 0.
    pub epoch: usize,
    /// The mean loss of the batch.
    pub loss: f64,
    /// What the optimizer did, with the learning rate in force.
    pub info: StepInfo,
    /// The newest statistics of the curvature: where a Hessian is computed on some of the steps only, those of an earlier one.
    pub curvature: Option<LastCurvature>,
    /// Seconds from the making of the batch to the end of the update.
    pub seconds: f64,
    /// How many steps were skipped so far because something was not finite.
    pub skipped_total: u64,
    /// Whether this is one of the steps to be logged.
    pub logged: bool,
}

/// The model was evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalReport {
    /// The number of steps taken.
    pub step: u64,
    /// The epoch of the next batch, from 0.
    pub epoch: usize,
    /// The result.
    pub scores: Scores,
    /// Whether it is the best so far.
    pub is_best: bool,
    /// What plateaus have made of the learning rate, this evaluation taken in.
    pub plateau_factor: f64,
    /// Seconds of the evaluation.
    pub seconds: f64,
}

/// Follows a run. An error ends it.
pub trait Callback {
    /// Before the first step of this process.
    ///
    /// # Errors
    /// Whatever should end the run.
    fn on_start(&mut self, _report: &StartReport) -> Result<()> {
        Ok(())
    }

    /// After each step, logged or not.
    ///
    /// # Errors
    /// Whatever should end the run.
    fn on_step(&mut self, _report: &StepReport) -> Result<()> {
        Ok(())
    }

    /// Before each evaluation, with the number of steps taken: it may take long.
    ///
    /// # Errors
    /// Whatever should end the run.
    fn before_evaluation(&mut self, _step: u64) -> Result<()> {
        Ok(())
    }

    /// After each evaluation.
    ///
    /// # Errors
    /// Whatever should end the run.
    fn on_evaluation(&mut self, _report: &EvalReport) -> Result<()> {
        Ok(())
    }

    /// Before a checkpoint is written: what was recorded up to now has to be on the disk.
    ///
    /// # Errors
    /// Whatever should end the run.
    fn before_checkpoint(&mut self) -> Result<()> {
        Ok(())
    }

    /// After the last step of this process and its checkpoint.
    ///
    /// # Errors
    /// Whatever the caller of the loop should know.
    fn on_end(&mut self, _summary: &Summary) -> Result<()> {
        Ok(())
    }
}
