//! The trainer: what takes part in a run, and where the run stands.

mod fit;
mod report;
mod save;
mod step;

pub use report::{Outcome, Summary};

use crate::callbacks::Callback;
use crate::checkpoint::{self, Checkpoints, Progress};
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::run_folder::{RunFolder, find_checkpoint};
use crate::task::Task;
use adahessian::check::{self, Audit};
use adahessian::ops::Mode;
use adahessian::{NamedVars, Optim};
use datasets::Batches;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Steps that took longer are not risked in an evaluation.
const UNSAVED_AT_MOST: Duration = Duration::from_secs(60);

/// Examples of an audit: an evaluation of their loss takes little time, and there are a hundred.
const AUDITED: usize = 8;

/// Trains a task's model. Without a run folder nothing is saved.
pub struct Trainer<T, B> {
    task: T,
    batches: B,
    vars: NamedVars,
    /// Those of the variables that forward passes move: running means and variances.
    statistics: NamedVars,
    optimizer: Box<dyn Optim>,
    config: TrainConfig,
    config_text: String,
    checkpoints: Option<Checkpoints>,
    callbacks: Vec<Box<dyn Callback>>,
    stop: Arc<AtomicBool>,
    progress: Progress,
    resumed: bool,
    /// An evaluation that is due: it failed, or the run goes on from a checkpoint of before it.
    owed: bool,
    /// The newest checkpoint of this run and its step.
    saved: Option<(u64, PathBuf)>,
    /// Whether there was an evaluation since.
    saved_is_behind: bool,
    /// A checkpoint that waits for a step that is not skipped.
    save_is_due: bool,
    /// Whether the last step was skipped.
    skipping: bool,
    /// Steps since the last checkpoint that took longer are saved before an evaluation.
    unsaved_at_most: Duration,
    /// When a checkpoint was saved, or the run begun.
    unsaved_since: Instant,
    /// How long that took.
    last_write: Duration,
    /// A checkpoint of this run that waits for its evaluation, and its step.
    unevaluated: Option<(u64, PathBuf)>,
    /// Whether the folder's checkpoints are known to be this run's.
    owns_folder: bool,
    /// Seconds of each step of this process.
    step_seconds: Vec<f64>,
    elapsed_before: f64,
    started: Instant,
}

impl<T: Task, B: Batches<Batch = T::Batch>> Trainer<T, B> {
    /// A trainer at the start of a run. `vars` are all variables to save (a `&VarMap` or
    /// `&NamedVars`, not `all_vars()` of a map, which is in no order); the optimizer may change fewer. Its sparse tables are saved, too.
    ///
    /// # Errors
    /// [`Error::Setting`] for a configuration out of range.
    pub fn new(
        task: T,
        batches: B,
        vars: impl Into<NamedVars>,
        optimizer: Box<dyn Optim>,
        config: TrainConfig,
    ) -> Result<Self> {
        config.check()?;
        let vars = vars.into();
        let trained = vars.trained();
        let (_, statistics) = vars.partition(|name| trained.get(name).is_ok());
        Ok(Self {
            task,
            batches,
            vars,
            statistics,
            optimizer,
            config,
            config_text: String::new(),
            checkpoints: None,
            callbacks: Vec::new(),
            stop: Arc::default(),
            progress: Progress::default(),
            resumed: false,
            owed: false,
            saved: None,
            saved_is_behind: false,
            save_is_due: false,
            skipping: false,
            unsaved_at_most: UNSAVED_AT_MOST,
            unsaved_since: Instant::now(),
            last_write: Duration::ZERO,
            unevaluated: None,
            owns_folder: false,
            step_seconds: Vec::new(),
            elapsed_before: 0.0,
            started: Instant::now(),
        })
    }

    /// Saves checkpoints in this folder, each with a copy of the configuration.
    pub fn run_folder(mut self, folder: &RunFolder, config: impl Into<String>) -> Self {
        self.checkpoints = Some(folder.checkpoints().keep(self.config.keep_checkpoints));
        self.config_text = config.into();
        self.owns_folder = false;
        self
    }

    /// Adds a callback; they are called in the order of their addition.
    pub fn callback(self, callback: impl Callback + 'static) -> Self {
        self.boxed_callback(Box::new(callback))
    }

    /// As [`Trainer::callback`], for one that was chosen at run time.
    pub fn boxed_callback(mut self, callback: Box<dyn Callback>) -> Self {
        self.callbacks.push(callback);
        self
    }

    /// Stops after the present step, with a checkpoint, once this flag is set, for example by
    /// Ctrl-C.
    pub fn stop_flag(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = stop;
        self
    }

    /// Saves before an evaluation, too, where the steps since the last checkpoint took longer than this, a minute if it is
    /// not set. An evaluation may take long, or fail, and who asks the run to stop does not wait for ever: its steps would
    /// be lost. The next checkpoint takes the place of that one; where a checkpoint takes more than a twentieth of these
    /// steps' time, and this is not zero, there is none.
    pub fn unsaved_at_most(mut self, most: Duration) -> Self {
        self.unsaved_at_most = most;
        self
    }

    /// Goes on from a checkpoint: the newest of a run's folder, or a given one. The variables, the
    /// optimizer, and the position in the epoch are then what they were, and the run ends with the
    /// same bits as one that was never interrupted.
    ///
    /// # Errors
    /// [`Error::NoCheckpoint`], [`Error::Corrupt`], [`Error::Mismatch`] and the optimizer's error
    /// for a state that does not fit; nothing is changed then.
    pub fn resume(&mut self, path: &Path) -> Result<()> {
        let loaded = checkpoint::load(&find_checkpoint(path)?)?;
        let (epoch, position) = (loaded.progress.epoch, loaded.progress.position);
        let batches = self.batches.len(epoch);
        if position > 0 && position >= batches {
            return Err(Error::Mismatch {
                path: loaded.path,
                what: format!("position in epoch {epoch}"),
                expected: format!("below {batches}, the number of batches"),
                got: position.to_string(),
            });
        }
        loaded.restore(&self.vars, &mut *self.optimizer)?;
        self.saved = Some((loaded.progress.step, loaded.path));
        self.progress = loaded.progress;
        self.resumed = true;
        self.saved_is_behind = false;
        (self.owns_folder, self.save_is_due, self.owed) = (false, false, false);
        (self.skipping, self.unevaluated) = (false, None);
        Ok(())
    }

    /// What [`check::audit`](adahessian::check::audit()) says of the task's loss, on the first
    /// examples of the next batch, for the variables that the optimizer changes: before a long run,
    /// whether any operation on the way cuts or falsifies derivatives. Nothing is changed.
    ///
    /// # Errors
    /// [`adahessian::Error::Audit`] with every finding; the errors of the batches and the task.
    pub fn audit(&mut self) -> Result<Audit> {
        let Progress {
            epoch, position, ..
        } = self.progress;
        let batch = self.batches.get(epoch, position)?;
        let few = self.task.size(&batch).min(AUDITED);
        let part = self.task.narrow(&batch, 0, few)?;
        let mode = Mode::Train {
            seed: self.config.seed,
            step: self.progress.step,
            micro: 0,
        };
        let before = self.statistics.snapshot()?;
        let outcome = check::audit(self.optimizer.vars(), || {
            let loss = self.task.loss(&part, &mode);
            loss.map_err(|e| candle_core::Error::wrap(e).into())
        });
        // Lookups in sparse tables, which wait for their gradients.
        self.optimizer.discard();
        // Of layers that know of no audit: candle's own batch normalisation.
        self.statistics.assign(&before)?;
        Ok(outcome?)
    }

    /// Where the run stands.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The task.
    pub fn task(&self) -> &T {
        &self.task
    }

    /// The variables that are saved.
    pub fn vars(&self) -> &NamedVars {
        &self.vars
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &dyn Optim {
        &*self.optimizer
    }

    /// How many steps the whole run has: the batches of all epochs, at most `max_steps`.
    pub fn total_steps(&self) -> u64 {
        self.length().0
    }

    /// The steps of the whole run, and the epochs that they begin.
    fn length(&self) -> (u64, usize) {
        let most = self.config.max_steps.unwrap_or(u64::MAX);
        let (mut steps, mut epochs) = (0u64, 0);
        while epochs < self.config.epochs && steps < most {
            steps = steps.saturating_add(self.batches.len(epochs) as u64);
            epochs += 1;
        }
        (steps.min(most), epochs)
    }
}
