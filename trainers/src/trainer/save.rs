//! When a run saves what.

use super::Trainer;
use crate::checkpoint::{Checkpoints, Content};
use crate::error::Result;
use crate::task::Task;
use datasets::Batches;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So many times as long as a checkpoint takes are the steps that one more is saved for.
const DEAR: u32 = 20;

impl<T: Task, B: Batches<Batch = T::Batch>> Trainer<T, B> {
    /// The newest one of this run.
    pub(super) fn last_checkpoint(&self) -> Option<PathBuf> {
        self.saved.as_ref().map(|(_, path)| path.clone())
    }

    /// Saves a checkpoint of the present step, unless there is one that knows of its evaluation.
    pub(super) fn save(&mut self) -> Result<()> {
        self.save_is_due = false;
        if let Some(checkpoints) = self.checkpoints.clone()
            && !self.is_saved_in(checkpoints.folder())
        {
            let path = self.write(|content| checkpoints.save(content))?;
            self.saved = Some((self.progress.step, path));
            self.saved_is_behind = false;
        }
        Ok(())
    }

    /// Saves one of a run that stops here, unless there is a checkpoint of the present step.
    pub(super) fn save_stop(&mut self) -> Result<Option<PathBuf>> {
        // What it was resumed from has not the steps that it has taken since.
        let Some(checkpoints) = self.checkpoints.clone() else {
            return Ok(None);
        };
        if !self.is_saved_in(checkpoints.folder()) {
            let path = self.write(|content| checkpoints.save_stop(content))?;
            self.saved = Some((self.progress.step, path));
            self.saved_is_behind = false;
        }
        Ok(self.last_checkpoint())
    }

    /// Saves the steps since the last checkpoint, if they took long: a kill, or a failure, in the evaluation would lose
    /// them. What errors name as the last checkpoint stays the one before it until the evaluation is made. It is an
    /// insurance: without it the run goes on.
    pub(super) fn save_before_evaluation(&mut self) {
        let Some(checkpoints) = self.checkpoints.clone() else {
            return;
        };
        let least = match self.unsaved_at_most {
            Duration::ZERO => Duration::ZERO,
            most => most.max(self.last_write * DEAR),
        };
        if self.skipping || self.unsaved_since.elapsed() < least {
            return;
        }
        match self.write(|content| checkpoints.save_unevaluated(content)) {
            Ok(path) => self.unevaluated = Some((self.progress.step, path)),
            Err(error) => {
                tracing::warn!(%error, "the steps before the evaluation are not saved");
                // Half a checkpoint fills a disk.
                let _ = checkpoints.tidy();
            }
        }
    }

    /// Those of a best evaluation or a stop, from which a run may have gone on, are none of the steps'.
    fn is_saved_in(&self, folder: &Path) -> bool {
        let saved = self.saved.as_ref();
        saved.is_some_and(|(step, path)| {
            let is_here = path.parent() == Some(folder) && Checkpoints::is_step(path);
            *step == self.progress.step && is_here && !self.saved_is_behind
        })
    }

    /// It is the newest then: of several the older ones go.
    pub(super) fn save_best(&mut self) -> Result<()> {
        if let Some(checkpoints) = self.checkpoints.clone() {
            let path = self.write(|content| checkpoints.save_best(content))?;
            (self.saved, self.unevaluated) = (Some((self.progress.step, path)), None);
        }
        Ok(())
    }

    fn write(&mut self, save: impl FnOnce(Content) -> Result<PathBuf>) -> Result<PathBuf> {
        self.callbacks
            .iter_mut()
            .try_for_each(|c| c.before_checkpoint())?;
        self.progress.elapsed_seconds = self.elapsed();
        let began = Instant::now();
        let path = save(Content {
            vars: &self.vars,
            tables: &self.optimizer.tables(),
            optimizer: &self.optimizer.state()?,
            progress: &self.progress,
            config: &self.config_text,
        })?;
        tracing::debug!(step = self.progress.step, path = %path.display(), "saved a checkpoint");
        (self.unsaved_since, self.last_write) = (Instant::now(), began.elapsed());
        Ok(path)
    }
}
