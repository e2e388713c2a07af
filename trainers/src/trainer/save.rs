//! When a run saves what.

use super::Trainer;
use crate::checkpoint::{Checkpoints, Content};
use crate::error::Result;
use crate::task::Task;
use datasets::Batches;
use std::path::{Path, PathBuf};
use std::time::Instant;

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
    /// them. What errors name as the last checkpoint stays the one before it.
    pub(super) fn save_before_evaluation(&mut self) -> Result<()> {
        let took_long = self.unsaved_since.elapsed() >= self.unsaved_at_most;
        match self.checkpoints.clone() {
            Some(checkpoints) if took_long && !self.skipping => self
                .write(|content| checkpoints.save_stop(content))
                .map(drop),
            _ => Ok(()),
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

    pub(super) fn save_best(&mut self) -> Result<()> {
        match self.checkpoints.clone() {
            Some(checkpoints) => self
                .write(|content| checkpoints.save_best(content))
                .map(drop),
            None => Ok(()),
        }
    }

    fn write(&mut self, save: impl FnOnce(Content) -> Result<PathBuf>) -> Result<PathBuf> {
        self.callbacks
            .iter_mut()
            .try_for_each(|c| c.before_checkpoint())?;
        self.progress.elapsed_seconds = self.elapsed();
        let path = save(Content {
            vars: &self.vars,
            tables: &self.optimizer.tables(),
            optimizer: &self.optimizer.state()?,
            progress: &self.progress,
            config: &self.config_text,
        })?;
        tracing::debug!(step = self.progress.step, path = %path.display(), "saved a checkpoint");
        self.unsaved_since = Instant::now();
        Ok(path)
    }
}
