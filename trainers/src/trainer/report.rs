//! How a run ended.

use crate::checkpoint::Evaluated;
use std::path::PathBuf;

/// Why the loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All steps were taken.
    Completed,
    /// Evaluations did not get better for as long as the patience lasts.
    StoppedEarly,
    /// The program asked to stop.
    Interrupted {
        /// The checkpoint to go on from; none without a run folder.
        checkpoint: Option<PathBuf>,
    },
}

impl Outcome {
    /// `completed`, `stopped_early` or `interrupted`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::StoppedEarly => "stopped_early",
            Self::Interrupted { .. } => "interrupted",
        }
    }
}

/// What came out of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Why it ended.
    pub outcome: Outcome,
    /// The number of steps taken, over all processes that took part.
    pub steps: u64,
    /// The number of whole epochs.
    pub epochs: usize,
    /// The last evaluation.
    pub last: Option<Evaluated>,
    /// The best evaluation.
    pub best: Option<Evaluated>,
    /// How many steps were skipped because something was not finite.
    pub skipped: u64,
    /// Seconds of training and evaluation, over all processes that took part.
    pub elapsed_seconds: f64,
    /// The median time of a step in seconds, without evaluations and checkpoints; of this process's
    /// steps only, `None` if it took none.
    pub seconds_per_step: Option<f64>,
    /// The seed of the configuration.
    pub seed: u64,
}

/// The median, `None` of nothing.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied()?;
    match sorted.len() % 2 {
        1 => Some(upper),
        _ => Some(0.5 * (sorted[middle - 1] + upper)),
    }
}
