//! From the first step to the last.

use super::{Outcome, Summary, Trainer, report, step};
use crate::callbacks::{EvalReport, StartReport, StepReport};
use crate::checkpoint::{Checkpoints, LastCurvature, Progress, settled};
use crate::error::{Error, Result};
use crate::task::Task;
use adahessian::StepInfo;
use datasets::Batches;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl<T: Task, B: Batches<Batch = T::Batch>> Trainer<T, B> {
    /// Runs from where the run stands to its end. Meanwhile no other run can save in its folder. After an
    /// error of a step a second call takes that step again, from its beginning.
    ///
    /// # Errors
    /// [`Error::RunFolder`] if the folder holds checkpoints and this trainer did not [`Trainer::resume`] one of them:
    /// they are another run's. [`Error::Batch`] if there is nothing to train on, [`Error::Diverged`] if the optimizer gave up, [`Error::NonFiniteEvaluation`], [`Error::InUse`] if
    /// another process trains in the run's folder, and the errors of the task, the batches, the callbacks
    /// and the checkpoints. The newest checkpoint stays; where a batch cannot be made, the steps before it are saved first.
    pub fn fit(&mut self) -> Result<Summary> {
        let lock = self.checkpoints.as_ref().map(Checkpoints::lock);
        let _held = lock.transpose()?;
        self.started = Instant::now();
        self.unsaved_since = self.started;
        self.elapsed_before = self.progress.elapsed_seconds;
        let (total, epochs) = self.length();
        if total == 0 && epochs > 0 {
            return Err(Error::Batch {
                expected: "at least one to train on".into(),
                got: format!(
                    "none in {epochs} epochs; are there fewer examples than a batch has, and is what is left dropped?"
                ),
            });
        }
        if self.progress.step > total {
            return Err(Error::Setting {
                what: "length of the run",
                expected: format!("at least the {} steps that were taken", self.progress.step),
                got: format!("{total}"),
            });
        }
        self.start(total, epochs)?;
        let outcome = self.run(total)?;
        self.finish(outcome)
    }

    fn start(&mut self, total_steps: u64, epochs: usize) -> Result<()> {
        if let Some(checkpoints) = self.checkpoints.clone() {
            if !self.owns_folder {
                self.check_own(&checkpoints)?;
                self.owns_folder = true;
            }
            if self.resumed {
                checkpoints.remove_after(self.progress.step)?;
                let saved = self.saved.take();
                self.saved = saved.map(|(step, path)| (step, settled(path)));
            }
        }
        if self.resumed && self.progress.step > 0 && !self.is_evaluated() {
            // From a checkpoint that was saved before an evaluation: that, and the checkpoint behind it, are to come.
            let due = self.is_due(self.config.eval_every, self.progress.position == 0);
            self.owed |= due || self.progress.step == total_steps;
            self.save_is_due |= self.owed && self.is_due(self.config.checkpoint_every, due);
        }
        self.skip_empty_epochs();
        let report = StartReport {
            total_steps,
            epochs,
            // A second call goes on, too: what was logged stays.
            resumed_at: (self.resumed || self.progress.step > 0).then_some(self.progress.step),
            owed: self.owed,
            seed: self.config.seed,
        };
        self.callbacks
            .iter_mut()
            .try_for_each(|c| c.on_start(&report))
    }

    /// Checkpoints in a folder from which this trainer does not go on are another run's, and stay.
    fn check_own(&self, checkpoints: &Checkpoints) -> Result<()> {
        let folder = checkpoints.folder();
        let from = self.saved.as_ref().and_then(|(_, path)| path.parent());
        let goes_on = from.is_some_and(|from| is_same(from, folder));
        match goes_on || checkpoints.newest()?.is_none() {
            true => Ok(()),
            false => Err(Error::RunFolder {
                path: folder.into(),
                what: "holds the checkpoints of a run that this trainer does not go on with: call resume \
                       with one of them first, or give it a folder of its own",
            }),
        }
    }

    fn run(&mut self, total: u64) -> Result<Outcome> {
        if self.owed {
            self.evaluate()?;
            if self.save_is_due && !self.skipping {
                self.save()?;
            }
        }
        if self.is_best_alone() && !self.skipping {
            self.save()?;
        }
        while self.progress.step < total {
            if self
                .config
                .patience
                .is_some_and(|p| self.progress.without_best >= p)
            {
                if self.is_evaluated() {
                    return Ok(Outcome::StoppedEarly);
                }
                // It was stopped between two evaluations and has less patience now; a better one goes on.
                self.evaluate()?;
                // Now, in the place of one that does not know of it: the run may be stopped before the next.
                self.save()?;
                continue;
            }
            if self.stop.load(Ordering::Relaxed) {
                let checkpoint = self.save_stop()?;
                return Ok(Outcome::Interrupted { checkpoint });
            }
            let report = self.step(total)?;
            let evaluate = self.is_due(self.config.eval_every, self.progress.position == 0);
            // Before the callbacks, which may fail: a further call makes it then.
            self.owed = evaluate || self.progress.step == total;
            self.save_is_due |= self.is_due(self.config.checkpoint_every, evaluate);
            self.callbacks
                .iter_mut()
                .try_for_each(|c| c.on_step(&report))?;
            if self.owed {
                self.save_before_evaluation();
                self.evaluate()?;
            }
            // While steps are skipped the variables may be beyond help: what was saved before is not removed for them.
            if self.save_is_due && !self.skipping {
                self.save()?;
            }
        }
        // A run that was made to end where it had stopped, between two evaluations.
        if !self.is_evaluated() {
            self.evaluate()?;
        }
        Ok(Outcome::Completed)
    }

    /// Whether the last evaluation is of the present step.
    fn is_evaluated(&self) -> bool {
        let last = self.progress.last.as_ref();
        last.is_some_and(|last| last.step == self.progress.step)
    }

    /// Whether the run goes on from a best evaluation beside which a checkpoint of the step was to be saved: the
    /// process died in between.
    fn is_best_alone(&self) -> bool {
        let saved = self.saved.as_ref();
        let from_best = saved
            .is_some_and(|(step, path)| *step == self.progress.step && Checkpoints::is_best(path));
        let evaluated = self.is_due(self.config.eval_every, self.progress.position == 0);
        from_best && self.is_due(self.config.checkpoint_every, evaluated)
    }

    fn is_due(&self, every: Option<u64>, otherwise: bool) -> bool {
        every.map_or(otherwise, |every| self.progress.step.is_multiple_of(every))
    }

    fn step(&mut self, total: u64) -> Result<StepReport> {
        let began = Instant::now();
        let Progress {
            step,
            epoch,
            position,
            ..
        } = self.progress;
        let schedule = self.config.schedule.factor(step, total);
        self.optimizer
            .set_lr_factor(schedule * self.progress.plateau_factor);
        let batch = match self.batches.get(epoch, position) {
            Ok(batch) => batch,
            Err(error) => {
                // The steps before it are whole.
                if !self.step_seconds.is_empty()
                    && !self.skipping
                    && let Err(error) = self.save_stop()
                {
                    tracing::warn!(%error, "the steps before a batch that cannot be made are not saved");
                }
                return Err(error.into());
            }
        };
        let before = self.statistics.snapshot()?;
        let optimizer = &mut *self.optimizer;
        let loss = step::accumulate(&self.task, &batch, optimizer, &self.config, step);
        let taken = loss.and_then(|loss| {
            let info = self.optimizer.apply();
            Ok((loss, info.map_err(|e| self.diverged(e))?))
        });
        if taken.is_err() {
            // The optimizer forgets what it has when it fails; here it may be the task that did, between two
            // micro-batches, after statistics have moved. A caller that goes on takes this step from its beginning.
            self.optimizer.discard();
            self.statistics.assign(&before)?;
        }
        let (loss, info) = taken?;
        if info.skipped.is_some() {
            // A skipped step changes nothing, and those of a batch that is not finite are beyond repair.
            self.statistics.assign(&before)?;
        }
        let seconds = began.elapsed().as_secs_f64();
        self.step_seconds.push(seconds);
        self.skipping = info.skipped.is_some();
        self.advance(&info);
        let number = step + 1;
        Ok(StepReport {
            step: number,
            total_steps: total,
            epoch,
            loss,
            seconds,
            skipped_total: self.progress.skipped,
            logged: step == 0 || number == total || number.is_multiple_of(self.config.log_every),
            curvature: self.progress.curvature,
            info,
        })
    }

    fn advance(&mut self, info: &StepInfo) {
        self.progress.step += 1;
        self.progress.position += 1;
        if let (Some(of), None) = (info.curvature, &info.skipped) {
            self.progress.curvature = Some(LastCurvature {
                step: self.progress.step,
                info: of,
            });
        }
        if let Some(name) = &info.skipped {
            self.progress.skipped += 1;
            tracing::warn!(step = self.progress.step, variable = %name, "skipped a step that is not finite");
        }
        if self.progress.position >= self.batches.len(self.progress.epoch) {
            (self.progress.epoch, self.progress.position) = (self.progress.epoch + 1, 0);
            self.skip_empty_epochs();
        }
    }

    fn skip_empty_epochs(&mut self) {
        while self.progress.epoch < self.config.epochs && self.batches.is_empty(self.progress.epoch)
        {
            self.progress.epoch += 1;
        }
    }

    fn diverged(&self, error: adahessian::Error) -> Error {
        match error {
            source @ adahessian::Error::NonFinite { .. } => Error::Diverged {
                source: Box::new(source),
                checkpoint: self.last_checkpoint(),
            },
            other => other.into(),
        }
    }

    /// Until it has come to its end a further call of [`Trainer::fit`] owes it.
    fn evaluate(&mut self) -> Result<()> {
        let before = self.progress.clone();
        let made = self.evaluate_and_keep();
        self.owed = made.is_err();
        self.saved_is_behind |= made.is_ok();
        if made.is_ok() {
            self.saved = self.unevaluated.take().or(self.saved.take());
        }
        // As if it had not been tried: the next one may be the best.
        made.inspect_err(|_| self.progress = before)
    }

    fn evaluate_and_keep(&mut self) -> Result<()> {
        self.callbacks
            .iter_mut()
            .try_for_each(|c| c.before_evaluation(self.progress.step))?;
        let began = Instant::now();
        let scores = self.task.evaluate()?;
        if let Some((metric, value)) = scores.iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::NonFiniteEvaluation {
                step: self.progress.step,
                metric: metric.into(),
                value,
                checkpoint: self.last_checkpoint(),
            });
        }
        let is_best = self.progress.note(scores.clone(), self.config.plateau);
        let report = EvalReport {
            step: self.progress.step,
            epoch: self.progress.epoch,
            scores,
            is_best,
            plateau_factor: self.progress.plateau_factor,
            seconds: began.elapsed().as_secs_f64(),
        };
        self.callbacks
            .iter_mut()
            .try_for_each(|c| c.on_evaluation(&report))?;
        // After it was recorded: a run that goes on from this checkpoint has the evaluation behind it.
        match is_best {
            true => self.save_best(),
            false => Ok(()),
        }
    }

    pub(super) fn elapsed(&self) -> f64 {
        self.elapsed_before + self.started.elapsed().as_secs_f64()
    }

    fn finish(&mut self, outcome: Outcome) -> Result<Summary> {
        if !matches!(outcome, Outcome::Interrupted { .. }) {
            self.save()?;
        }
        self.progress.elapsed_seconds = self.elapsed();
        let summary = Summary {
            outcome,
            steps: self.progress.step,
            epochs: self.progress.epoch,
            last: self.progress.last.clone(),
            best: self.progress.best.clone(),
            skipped: self.progress.skipped,
            elapsed_seconds: self.progress.elapsed_seconds,
            seconds_per_step: report::median(&self.step_seconds),
            seed: self.config.seed,
        };
        self.callbacks
            .iter_mut()
            .try_for_each(|c| c.on_end(&summary))?;
        Ok(summary)
    }
}

/// Whether two paths are one folder's.
fn is_same(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().ok();
    one == other || canonical(one).is_some_and(|one| canonical(other) == Some(one))
}
