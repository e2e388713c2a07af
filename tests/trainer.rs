//! The loop: early stopping, plateaus, steps that are not finite, interruption.

use adahessian::ops::Mode;
use adahessian::{Common, NamedVars, Rule, Schedule, Sgd};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor, Var};
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testing::{assert_number, assert_says};
use trainers::callbacks::JsonLines;
use trainers::generation::average_newest;
use trainers::{
    Callback, Error, EvalReport, FixedBatches, Outcome, Plateau, RunFolder, Scores, StepReport,
    Task, TrainConfig, Trainer, disk,
};

/// A quadratic in one variable, with evaluations and losses as written down.
pub(crate) struct Scripted {
    pub(crate) vars: NamedVars,
    evaluations: Vec<f64>,
    next: Cell<usize>,
    /// Steps, from 0, whose loss is not a number.
    bad: std::ops::Range<u64>,
}

pub(crate) fn scripted(evaluations: &[f64]) -> Result<Scripted> {
    Ok(Scripted {
        vars: NamedVars::new([("w".to_string(), Var::new(&[3f64], &Device::Cpu)?)])?,
        evaluations: evaluations.into(),
        next: Cell::new(0),
        bad: 0..0,
    })
}

impl Task for Scripted {
    type Batch = f64;

    fn size(&self, _: &f64) -> usize {
        1
    }

    fn narrow(&self, batch: &f64, _: usize, _: usize) -> trainers::Result<f64> {
        Ok(*batch)
    }

    fn loss(&self, batch: &f64, mode: &Mode) -> trainers::Result<Tensor> {
        let Mode::Train { step, .. } = mode else {
            return Err(Error::user("not a training step"));
        };
        let factor = if self.bad.contains(step) {
            f64::NAN
        } else {
            *batch
        };
        Ok((self.vars.get("w")?.sqr()? * factor)?.sum_all()?)
    }

    fn evaluate(&self) -> trainers::Result<Scores> {
        let value = self
            .evaluations
            .get(self.next.get())
            .or(self.evaluations.last());
        self.next.set(self.next.get() + 1);
        Ok(Scores::new("score", value.copied().unwrap_or(0.0)))
    }
}

pub(crate) fn trainer(
    task: Scripted,
    config: TrainConfig,
) -> Result<Trainer<Scripted, FixedBatches<f64>>> {
    let vars = task.vars.clone();
    let common = Common {
        max_skipped: 2,
        ..Common::new(0.1)
    };
    let optimizer = Sgd::default().with(common).build(&vars)?;
    let batches = FixedBatches(vec![1.0, 0.5, 0.25, 0.125]);
    Ok(Trainer::new(
        task,
        batches,
        &vars,
        Box::new(optimizer),
        config,
    )?)
}

/// Keeps what it sees; stops or fails at a step.
#[derive(Clone, Default)]
pub(crate) struct Record {
    pub(crate) steps: Rc<RefCell<Vec<StepReport>>>,
    pub(crate) evaluations: Rc<RefCell<Vec<EvalReport>>>,
    pub(crate) stop: Option<(u64, Arc<AtomicBool>)>,
    pub(crate) fail: Option<u64>,
}

impl Callback for Record {
    fn on_step(&mut self, report: &StepReport) -> trainers::Result<()> {
        self.steps.borrow_mut().push(report.clone());
        if let Some((_, flag)) = self.stop.as_ref().filter(|(step, _)| *step == report.step) {
            flag.store(true, Ordering::Relaxed);
        }
        match self.fail == Some(report.step) {
            true => Err(Error::user("the lights went out")),
            false => Ok(()),
        }
    }

    fn on_evaluation(&mut self, report: &EvalReport) -> trainers::Result<()> {
        self.evaluations.borrow_mut().push(report.clone());
        Ok(())
    }
}

#[test]
fn steps_epochs_and_logging() -> Result<()> {
    let record = Record::default();
    let config = TrainConfig {
        epochs: 3,
        max_steps: Some(10),
        log_every: 4,
        ..TrainConfig::default()
    };
    let config = TrainConfig {
        schedule: "linear".parse()?,
        ..config
    };
    let mut trainer = trainer(scripted(&[0.1, 0.2, 0.3])?, config)?.callback(record.clone());
    let summary = trainer.fit()?;
    let steps = record.steps.borrow();
    assert_eq!(
        steps.iter().map(|s| s.step).collect::<Vec<_>>(),
        (1..=10).collect::<Vec<_>>()
    );
    assert_eq!(
        steps.iter().map(|s| s.epoch).collect::<Vec<_>>(),
        [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    );
    let logged = steps.iter().filter(|s| s.logged).map(|s| s.step);
    assert_eq!(logged.collect::<Vec<_>>(), [1, 4, 8, 10]);
    assert_number("lr of the sixth step", steps[5].info.lr, 0.1 * 0.5, 1e-15)?;
    assert_number("loss of the first step", steps[0].loss, 9.0, 1e-15)?;
    // After each whole epoch and at the end.
    let evaluations = record.evaluations.borrow();
    assert_eq!(
        evaluations.iter().map(|e| e.step).collect::<Vec<_>>(),
        [4, 8, 10]
    );
    assert_eq!(
        (summary.outcome, summary.steps, summary.epochs),
        (Outcome::Completed, 10, 2)
    );
    assert!(summary.seconds_per_step.is_some());
    Ok(())
}

#[test]
fn early_stop() -> Result<()> {
    let config = TrainConfig {
        epochs: 9,
        eval_every: Some(2),
        patience: Some(3),
        ..TrainConfig::default()
    };
    let task = scripted(&[0.5, 0.6, 0.6, 0.55, 0.59, 0.9])?;
    let summary = trainer(task, config)?.fit()?;
    assert_eq!(
        (summary.outcome, summary.steps),
        (Outcome::StoppedEarly, 10)
    );
    assert_eq!(summary.best.context("a best one")?.step, 4);
    Ok(())
}

#[test]
fn plateau_lowers_the_learning_rate() -> Result<()> {
    let record = Record::default();
    let plateau = Some(Plateau {
        factor: 0.5,
        patience: 2,
    });
    let config = TrainConfig {
        epochs: 2,
        eval_every: Some(1),
        plateau,
        ..TrainConfig::default()
    };
    let task = scripted(&[0.5, 0.4, 0.5, 0.4, 0.6, 0.1, 0.1, 0.1])?;
    trainer(task, config)?.callback(record.clone()).fit()?;
    let lr: Vec<f64> = record.steps.borrow().iter().map(|s| s.info.lr).collect();
    assert_eq!(lr, [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025]);
    let best: Vec<bool> = record
        .evaluations
        .borrow()
        .iter()
        .map(|e| e.is_best)
        .collect();
    assert_eq!(best, [true, false, false, false, true, false, false, false]);
    Ok(())
}

#[test]
fn steps_that_are_not_finite() -> Result<()> {
    // Two in a row are skipped and counted.
    let record = Record::default();
    let task = Scripted {
        bad: 1..3,
        ..scripted(&[0.5])?
    };
    let summary = trainer(task, TrainConfig::default())?
        .callback(record.clone())
        .fit()?;
    assert_eq!(summary.skipped, 2);
    let skipped: Vec<_> = record
        .steps
        .borrow()
        .iter()
        .map(|s| (s.info.skipped.clone(), s.skipped_total))
        .collect();
    let w = Some("w".to_string());
    assert_eq!(skipped, [(None, 0), (w.clone(), 1), (w, 2), (None, 2)]);
    assert!(record.steps.borrow()[1].loss.is_nan());

    // Three in a row are an error; the checkpoint stays and is named.
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let config = TrainConfig {
        epochs: 5,
        checkpoint_every: Some(2),
        ..TrainConfig::default()
    };
    let task = Scripted {
        bad: 5..99,
        ..scripted(&[0.5])?
    };
    let outcome = trainer(task, config)?.run_folder(&run, "").fit();
    let checkpoint = run.checkpoints().latest()?.context("a checkpoint")?;
    // That of step 6, which was skipped, was due and is not there: those before it are not removed for its like.
    assert!(checkpoint.ends_with("step-00000004"), "{checkpoint:?}");
    assert_eq!(run.checkpoints().list()?.len(), 2);
    assert_says(
        outcome,
        &["3 steps in a row", "`w`", &checkpoint.display().to_string()],
    );
    trainers::checkpoint::load(&checkpoint)?;
    Ok(())
}

/// The checkpoint of a step that was skipped is that of the next one that is taken.
#[test]
fn a_checkpoint_waits_for_a_step_that_is_taken() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let config = TrainConfig {
        epochs: 2,
        checkpoint_every: Some(2),
        keep_checkpoints: 9,
        ..TrainConfig::default()
    };
    let task = Scripted {
        bad: 3..4,
        ..scripted(&[0.5])?
    };
    trainer(task, config)?.run_folder(&run, "").fit()?;
    assert_eq!(steps(&run)?, [2, 5, 6, 8]);
    Ok(())
}

/// The steps of a run's checkpoints, without those of a best evaluation and a stop.
pub(crate) fn steps(run: &RunFolder) -> Result<Vec<u64>> {
    let list = run.checkpoints().list()?;
    let step = |path: &PathBuf| -> Result<u64> {
        let name = path.file_name().context("a name")?.to_string_lossy();
        Ok(name.trim_start_matches("step-").parse()?)
    };
    list.iter().map(step).collect()
}

/// A stop leaves no trace behind: the mean over the last checkpoints is that of a run without one.
#[test]
fn a_stop_takes_no_checkpoints_place() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = TrainConfig {
        epochs: 3,
        checkpoint_every: Some(2),
        keep_checkpoints: 3,
        ..TrainConfig::default()
    };
    let whole = RunFolder::create(folder.path().join("whole"), "")?;
    trainer(scripted(&[0.5])?, config.clone())?
        .run_folder(&whole, "")
        .fit()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let stopped = |at: u64| -> Result<Trainer<Scripted, FixedBatches<f64>>> {
        let stop = Arc::new(AtomicBool::new(false));
        let record = Record {
            stop: Some((at, stop.clone())),
            ..Record::default()
        };
        let trainer = trainer(scripted(&[0.5])?, config.clone())?;
        Ok(trainer
            .run_folder(&run, "")
            .callback(record)
            .stop_flag(stop))
    };
    stopped(7)?.fit()?;
    let stop = |step: u64| run.checkpoints().folder().join(format!("stop-{step:08}"));
    assert_eq!(run.checkpoints().newest()?, Some(stop(7)));
    assert_eq!(steps(&run)?, [2, 4, 6]);
    // Twice before the next one.
    let mut again = stopped(8)?;
    again.resume(run.path())?;
    assert_eq!(again.progress().step, 7);
    again.fit()?;
    assert!(!stop(7).exists() && !stop(8).exists(), "step 8 was due");
    let mut last = stopped(99)?;
    last.resume(run.path())?;
    last.fit()?;
    assert_eq!(
        (steps(&run)?, steps(&whole)?),
        (vec![8, 10, 12], vec![8, 10, 12])
    );
    let means: Vec<_> = [&run, &whole]
        .map(|run| {
            let to = folder.path().join("mean.safetensors");
            average_newest(run, 3, &to)?;
            Ok(std::fs::read(&to)?)
        })
        .into_iter()
        .collect::<Result<_>>()?;
    assert_eq!(means[0], means[1]);
    Ok(())
}

/// A best evaluation between two checkpoints is not lost by a crash before the second: the run goes on from it.
#[test]
fn a_best_checkpoint_outlives_a_crash() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = TrainConfig {
        epochs: 3,
        eval_every: Some(3),
        checkpoint_every: Some(4),
        ..TrainConfig::default()
    };
    let scores = [0.1, 0.9, 0.3, 0.2];
    let whole = RunFolder::create(folder.path().join("whole"), "")?;
    let mut uninterrupted = trainer(scripted(&scores)?, config.clone())?.run_folder(&whole, "");
    let expected = uninterrupted.fit()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let fail = Record {
        fail: Some(7),
        ..Record::default()
    };
    let first = trainer(scripted(&scores)?, config.clone())?.run_folder(&run, "");
    assert!(first.callback(fail).fit().is_err());
    let best = run.checkpoints().folder().join("best-00000006");
    assert_eq!(steps(&run)?, [4]);
    assert_eq!(run.checkpoints().newest()?, Some(best.clone()));
    let mut second = trainer(scripted(&scores[2..])?, config)?.run_folder(&run, "");
    second.resume(run.path())?;
    assert_eq!(second.progress().step, 6);
    let summary = second.fit()?;
    assert!(best.is_dir());
    assert_eq!((summary.best, summary.last), (expected.best, expected.last));
    assert_eq!(steps(&run)?, steps(&whole)?);
    assert_eq!(weight(second.vars())?, weight(uninterrupted.vars())?);
    Ok(())
}

/// Where the process died between the best evaluation's checkpoint and that of the same step, the latter is made.
#[test]
fn a_checkpoint_beside_the_best_one_is_made_up_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let config = TrainConfig {
        epochs: 2,
        keep_checkpoints: 5,
        ..TrainConfig::default()
    };
    let scores = [0.5, 0.6];
    trainer(scripted(&scores)?, config.clone())?
        .run_folder(&run, "")
        .fit()?;
    assert_eq!(steps(&run)?, [4, 8]);
    std::fs::remove_dir_all(run.checkpoints().folder().join("step-00000008"))?;
    let longer = TrainConfig {
        epochs: 3,
        ..config
    };
    let mut again = trainer(scripted(&[0.7])?, longer)?.run_folder(&run, "");
    again.resume(run.path())?;
    again.fit()?;
    assert_eq!(steps(&run)?, [4, 8, 12]);
    Ok(())
}

/// Going on from one run's checkpoint in a folder that holds another's would remove those.
#[test]
fn another_runs_checkpoints_are_not_removed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = TrainConfig {
        epochs: 2,
        checkpoint_every: Some(3),
        ..TrainConfig::default()
    };
    let [one, other] = ["one", "other"].map(|name| RunFolder::create(folder.path().join(name), ""));
    let (one, other) = (one?, other?);
    for run in [&one, &other] {
        trainer(scripted(&[0.5])?, config.clone())?
            .run_folder(run, "")
            .fit()?;
    }
    let before = steps(&other)?;
    let from = one.checkpoints().list()?[0].clone();
    let mut foreign = trainer(scripted(&[0.5])?, config.clone())?.run_folder(&other, "");
    foreign.resume(&from)?;
    assert_says(foreign.fit(), &["holds the checkpoints of a run", "other"]);
    assert_eq!(steps(&other)?, before);
    // A folder of its own is as good as the first one, also for a second call.
    let third = RunFolder::create(folder.path().join("third"), "")?;
    let fail = Record {
        fail: Some(7),
        ..Record::default()
    };
    let mut branch = trainer(scripted(&[0.5])?, config)?
        .run_folder(&third, "")
        .callback(fail);
    branch.resume(&from)?;
    assert!(branch.fit().is_err());
    branch.fit()?;
    assert_eq!(steps(&third)?.last(), Some(&8));
    Ok(())
}

/// Made again, and as if it had not been tried: the best score is still the best.
#[test]
fn an_evaluation_that_failed_is_owed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let config = TrainConfig {
        eval_every: Some(2),
        ..TrainConfig::default()
    };
    let mut trainer = trainer(scripted(&[0.5, f64::NAN, 0.75, 0.6])?, config)?.run_folder(&run, "");
    assert!(trainer.fit().is_err());
    trainer.fit()?;
    let best = trainer.progress().best.clone();
    assert_eq!(best.map(|best| best.step), Some(4));
    assert!(run.checkpoints().folder().join("best-00000004").is_dir());
    Ok(())
}

/// From a checkpoint that lies before it a failed evaluation is no longer owed: that of the checkpoint is not made again.
#[test]
fn what_is_owed_is_forgotten_with_the_steps() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let config = TrainConfig {
        eval_every: Some(2),
        patience: Some(1),
        epochs: 1,
        ..TrainConfig::default()
    };
    let mut trainer = trainer(scripted(&[0.5, f64::NAN, 0.75])?, config)?.run_folder(&run, "");
    assert!(trainer.fit().is_err());
    trainer.resume(run.path())?;
    assert_eq!(trainer.progress().step, 2);
    let summary = trainer.fit()?;
    assert!(matches!(summary.outcome, Outcome::Completed), "{summary:?}");
    assert_eq!(trainer.progress().step, 4);
    Ok(())
}

/// The checkpoint beside an evaluation that failed is made up for.
#[test]
fn a_checkpoint_beside_a_failed_evaluation_is_owed_too() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let config = TrainConfig {
        eval_every: Some(2),
        checkpoint_every: Some(2),
        epochs: 2,
        keep_checkpoints: 9,
        ..TrainConfig::default()
    };
    let task = scripted(&[0.5, f64::NAN, 0.4, 0.6, 0.5])?;
    let mut trainer = trainer(task, config)?.run_folder(&run, "");
    assert!(trainer.fit().is_err());
    trainer.fit()?;
    assert_eq!(steps(&run)?, [2, 4, 6, 8]);
    Ok(())
}

/// A run that stopped between two evaluations, and has less patience than it has waited when it goes on, is evaluated where
/// it stopped: its scores are those of its weights.
#[test]
fn a_run_with_less_patience_is_evaluated_where_it_stopped() -> Result<()> {
    for (score, ends) in [(0.3, 5), (0.9, 6)] {
        let folder = tempfile::tempdir()?;
        let run = RunFolder::create(folder.path().join("run"), "")?;
        let config = |patience| TrainConfig {
            eval_every: Some(2),
            epochs: 3,
            patience: Some(patience),
            ..TrainConfig::default()
        };
        let stop = Arc::new(AtomicBool::new(false));
        let record = Record {
            stop: Some((5, stop.clone())),
            ..Record::default()
        };
        let first = trainer(scripted(&[0.5, 0.4])?, config(9))?.run_folder(&run, "");
        first.callback(record).stop_flag(stop).fit()?;
        let mut second = trainer(scripted(&[score, 0.2])?, config(1))?;
        second.resume(run.path())?;
        let summary = second.fit()?;
        assert_eq!(summary.outcome, Outcome::StoppedEarly);
        assert_eq!(summary.steps, ends);
        assert_eq!(summary.last.context("an evaluation")?.step, ends);
    }
    Ok(())
}

/// A run that stopped between two evaluations and is made to end there has one of its last step; a shorter one is refused.
#[test]
fn a_run_that_ends_where_it_stopped_is_evaluated() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let config = |max_steps| TrainConfig {
        eval_every: Some(2),
        max_steps,
        ..TrainConfig::default()
    };
    let stop = Arc::new(AtomicBool::new(false));
    let record = Record {
        stop: Some((3, stop.clone())),
        ..Record::default()
    };
    let first = trainer(scripted(&[0.5])?, config(None))?.run_folder(&run, "");
    first.callback(record).stop_flag(stop).fit()?;
    let mut ended = trainer(scripted(&[0.75])?, config(Some(3)))?;
    ended.resume(run.path())?;
    let summary = ended.fit()?;
    let last = summary.last.context("an evaluation")?;
    assert_eq!((last.step, last.scores.main()), (3, 0.75));
    let mut shorter = trainer(scripted(&[0.75])?, config(Some(2)))?;
    shorter.resume(run.path())?;
    assert_says(shorter.fit().map(drop), &["at least the 3 steps", "got 2"]);
    Ok(())
}

/// What a run that goes on from a checkpoint finds out of its step is in that step's checkpoint at the end.
#[test]
fn an_evaluation_of_the_step_to_go_on_from_is_kept() -> Result<()> {
    for (last, best) in [(0.75, 3), (0.25, 2)] {
        let folder = tempfile::tempdir()?;
        let run = RunFolder::create(folder.path().join("run"), "")?;
        let config = |max_steps| TrainConfig {
            eval_every: Some(2),
            checkpoint_every: Some(1),
            max_steps,
            ..TrainConfig::default()
        };
        let record = Record {
            fail: Some(4),
            ..Record::default()
        };
        let first = trainer(scripted(&[0.5])?, config(None))?.run_folder(&run, "");
        assert!(first.callback(record).fit().is_err());
        assert_eq!(steps(&run)?, [2, 3]);
        let mut ended = trainer(scripted(&[last])?, config(Some(3)))?.run_folder(&run, "");
        ended.resume(run.path())?;
        ended.fit()?;
        let newest = run.checkpoints().latest()?.context("a checkpoint")?;
        let progress = trainers::checkpoint::load(&newest)?.progress;
        let [last_step, best_step] =
            [progress.last, progress.best].map(|evaluated| evaluated.map(|e| e.step));
        assert_eq!(
            (progress.step, last_step, best_step),
            (3, Some(3), Some(best))
        );
        assert_eq!(steps(&run)?, [2, 3]);
    }
    Ok(())
}

/// A callback fails behind the last step, before its evaluation: that is made at the second call, and its line is
/// there once.
#[test]
fn an_evaluation_behind_a_callback_that_failed_is_owed() -> Result<()> {
    for eval_every in [Some(2), None] {
        let config = TrainConfig {
            eval_every,
            epochs: 1,
            ..TrainConfig::default()
        };
        let record = Record {
            fail: Some(4),
            ..Record::default()
        };
        let evaluations = record.evaluations.clone();
        let mut trainer = trainer(scripted(&[0.5, 0.75])?, config)?.callback(record);
        assert!(trainer.fit().is_err());
        let summary = trainer.fit()?;
        let seen = evaluations.borrow();
        assert_eq!(seen.last().map(|report| report.step), Some(4));
        assert_eq!(summary.last.map(|last| last.step), Some(4));
    }
    Ok(())
}

/// An evaluation whose line was written before a later callback failed is made again, and has one line.
#[test]
fn an_evaluation_that_is_made_again_has_one_line() -> Result<()> {
    struct FailsOnce(bool);
    impl Callback for FailsOnce {
        fn on_evaluation(&mut self, _: &EvalReport) -> trainers::Result<()> {
            match std::mem::take(&mut self.0) {
                true => Err(Error::user("the disk is full")),
                false => Ok(()),
            }
        }
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("metrics.jsonl");
    let config = TrainConfig {
        eval_every: Some(2),
        ..TrainConfig::default()
    };
    let mut trainer = trainer(scripted(&[0.5, 0.6, 0.75])?, config)?
        .callback(JsonLines::new(&path))
        .callback(FailsOnce(true));
    assert!(trainer.fit().is_err());
    trainer.fit()?;
    let text = std::fs::read_to_string(&path)?;
    let mut steps = Vec::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        if line["kind"] == "evaluation" {
            steps.push(line["step"].as_u64());
        }
    }
    assert_eq!(steps, [Some(2), Some(4)]);
    Ok(())
}

/// Without `resume` its first checkpoint would take the place of the other's.
#[test]
fn a_run_of_others_is_not_trained_over() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let mut first = trainer(scripted(&[0.5])?, TrainConfig::default())?.run_folder(&run, "");
    first.fit()?;
    let before = run.checkpoints().list()?;
    let mut second = trainer(scripted(&[0.5])?, TrainConfig::default())?.run_folder(&run, "");
    assert_says(second.fit(), &["does not go on with", "resume"]);
    assert_eq!(run.checkpoints().list()?, before);
    second.resume(run.path())?;
    second.fit()?;
    // The first one's own second call is none of this.
    first.fit()?;
    Ok(())
}

#[test]
fn an_evaluation_that_is_not_finite() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let config = TrainConfig {
        eval_every: Some(2),
        ..TrainConfig::default()
    };
    let mut trainer = trainer(scripted(&[0.5, f64::NAN])?, config)?.run_folder(&run, "");
    let pieces = ["evaluation at step 4", "score = NaN", "step-00000002"];
    assert_says(trainer.fit(), &pieces);
    Ok(())
}

pub(crate) fn weight(vars: &NamedVars) -> Result<u64> {
    Ok(vars.get("w")?.to_vec1::<f64>()?[0].to_bits())
}

#[test]
fn interrupted_and_resumed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let plateau = Some(Plateau {
        factor: 0.5,
        patience: 1,
    });
    let config = TrainConfig {
        epochs: 3,
        eval_every: Some(2),
        plateau,
        ..TrainConfig::default()
    };
    let config = TrainConfig {
        schedule: "warmup:3+cosine".parse()?,
        ..config
    };
    let evaluations = [0.1, 0.4, 0.3, 0.2, 0.5, 0.4];
    let mut whole = trainer(scripted(&evaluations)?, config.clone())?;
    let expected = whole.fit()?;

    let stop = Arc::new(AtomicBool::new(false));
    let record = Record {
        stop: Some((7, stop.clone())),
        ..Record::default()
    };
    let run = RunFolder::create(folder.path().join("run"), "lr = 0.1")?;
    let first = trainer(scripted(&evaluations)?, config.clone())?.run_folder(&run, "lr = 0.1");
    let summary = first.callback(record).stop_flag(stop).fit()?;
    let Outcome::Interrupted {
        checkpoint: Some(checkpoint),
    } = summary.outcome
    else {
        anyhow::bail!("{:?}", summary.outcome);
    };
    assert_eq!(checkpoint, run.checkpoints().folder().join("stop-00000007"));

    // Three ways to name it.
    for path in [run.path(), run.checkpoints().folder(), &checkpoint] {
        assert_eq!(RunFolder::open(path)?.path(), run.path());
        // The evaluations at steps 2, 4 and 6 have happened.
        let mut second = trainer(scripted(&evaluations[3..])?, config.clone())?;
        second.resume(path)?;
        assert_eq!(
            (second.progress().epoch, second.progress().position),
            (1, 3)
        );
        let summary = second.fit()?;
        assert_eq!(weight(second.vars())?, weight(whole.vars())?);
        assert_eq!(
            (summary.best, summary.last),
            (expected.best.clone(), expected.last.clone())
        );
        assert!(summary.elapsed_seconds > 0.0);
    }
    // Without a folder of its own nothing of what is done further is saved: there is nothing to go on with.
    let stop = Arc::new(AtomicBool::new(false));
    let record = Record {
        stop: Some((9, stop.clone())),
        ..Record::default()
    };
    let second = trainer(scripted(&evaluations[3..])?, config.clone())?;
    let mut second = second.callback(record).stop_flag(stop);
    second.resume(run.path())?;
    assert_eq!(
        second.fit()?.outcome,
        Outcome::Interrupted { checkpoint: None }
    );
    Ok(())
}

#[test]
fn an_earlier_checkpoint_leaves_the_later_ones_behind() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let config = TrainConfig {
        epochs: 2,
        checkpoint_every: Some(2),
        ..TrainConfig::default()
    };
    trainer(scripted(&[0.5])?, config.clone())?
        .run_folder(&run, "")
        .fit()?;
    let list = run.checkpoints().list()?;
    assert_eq!(list.len(), 2);
    let fail = Record {
        fail: Some(7),
        ..Record::default()
    };
    let mut again = trainer(scripted(&[0.5])?, config)?
        .run_folder(&run, "")
        .callback(fail);
    again.resume(&list[0])?;
    assert_says(again.fit(), &["the lights went out"]);
    assert_eq!(
        run.checkpoints().list()?,
        list[..1],
        "step 8 is to be made anew"
    );
    Ok(())
}

#[test]
fn resuming_with_fewer_batches_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let config = TrainConfig {
        max_steps: Some(3),
        ..TrainConfig::default()
    };
    trainer(scripted(&[0.5])?, config.clone())?
        .run_folder(&run, "")
        .fit()?;
    let task = scripted(&[0.5])?;
    let vars = task.vars.clone();
    let optimizer = Sgd::default().lr(0.1).build(&vars)?;
    let mut other = Trainer::new(
        task,
        FixedBatches(vec![1.0]),
        &vars,
        Box::new(optimizer),
        config,
    )?;
    assert_says(
        other.resume(run.path()),
        &["position in epoch 0", "below 1", "got 3"],
    );
    assert_eq!(weight(&vars)?, 3f64.to_bits(), "nothing has changed");
    Ok(())
}

#[test]
fn run_folders_are_not_written_over() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a/run");
    let run = RunFolder::create(&path, "x = 1\n")?;
    assert!(std::fs::read_to_string(run.config())?.starts_with("x = 1\n"));
    assert_eq!(RunFolder::open(&path)?.settings()?, "x = 1");
    assert_says(RunFolder::open(folder.path()), &["run", "neither"]);
    assert_says(RunFolder::create(&path, ""), &["another run", "at work"]);
    trainer(scripted(&[0.5])?, TrainConfig::default())?
        .run_folder(&run, "")
        .fit()?;
    assert_says(
        RunFolder::create(&path, ""),
        &["holds a run", "--resume", "--out"],
    );
    let mut other = trainer(scripted(&[0.5])?, TrainConfig::default())?;
    assert_says(other.resume(folder.path()), &["no checkpoint here"]);
    Ok(())
}

/// What has the names of a run's files, and no run's configuration beside it, is somebody's.
#[test]
fn files_that_are_called_like_a_runs_are_not_taken_for_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let somebodys: [(&str, &[u8]); 4] = [
        ("events.out.tfevents.1700000000.host", b"theirs"),
        ("metrics.jsonl", b"{}"),
        ("config.toml", b"lr = 0.1"),
        ("config.toml", b"\xff\xfe not a text"),
    ];
    for (number, (name, content)) in somebodys.into_iter().enumerate() {
        let path = folder.path().join(number.to_string());
        std::fs::create_dir(&path)?;
        std::fs::write(path.join(name), content)?;
        assert_says(RunFolder::create(&path, ""), &["holds no run"]);
        assert_eq!(std::fs::read(path.join(name))?, content);
    }
    // A run that was cut off before its first checkpoint is begun again, however often.
    let path = folder.path().join("cut");
    for _ in 0..2 {
        let run = RunFolder::create(&path, "")?;
        std::fs::write(run.metrics(), "{}")?;
        drop(run);
    }
    assert!(!RunFolder::create(&path, "")?.metrics().exists());
    // Or gone on with, as far as there is something.
    let run = RunFolder::create(folder.path().join("again"), "x = 1")?;
    let events = run.path().join("events.out.tfevents.1.adahessian");
    std::fs::write(&events, "")?;
    run.begin_again()?;
    assert!(!events.exists() && run.settings()? == "x = 1");
    trainer(scripted(&[0.5])?, TrainConfig::default())?
        .run_folder(&run, "")
        .fit()?;
    std::fs::write(&events, "")?;
    run.begin_again()?;
    assert!(events.exists());
    Ok(())
}

/// Whole or not at all: what a process that died between two renames has put aside comes back.
#[test]
fn a_folder_that_was_put_aside_comes_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model");
    let write = |text: &'static str| {
        disk::write_folder(&path, |folder| {
            disk::write_whole(&folder.join("file"), text.as_bytes())
        })
    };
    write("one")?;
    let fails = disk::write_folder(&path, |_| Err(Error::user("no")));
    assert!(fails.is_err());
    assert_eq!(std::fs::read_to_string(path.join("file"))?, "one");
    std::fs::rename(&path, folder.path().join(".model.replaced"))?;
    let fails = disk::write_folder(&path, |_| Err(Error::user("no")));
    assert!(fails.is_err());
    assert_eq!(std::fs::read_to_string(path.join("file"))?, "one");
    write("two")?;
    assert_eq!(std::fs::read_to_string(path.join("file"))?, "two");
    let left: Vec<_> = std::fs::read_dir(folder.path())?.collect();
    assert_eq!(left.len(), 1, "{left:?}");
    Ok(())
}

#[test]
fn configurations_out_of_range() -> Result<()> {
    let refused =
        |config: TrainConfig, piece: &str| assert_says(config.check(), &[piece, "expected"]);
    let default = TrainConfig::default;
    refused(
        TrainConfig {
            epochs: 0,
            ..default()
        },
        "epochs",
    );
    refused(
        TrainConfig {
            micro_batches: 0,
            ..default()
        },
        "micro_batches",
    );
    refused(
        TrainConfig {
            eval_every: Some(0),
            ..default()
        },
        "eval_every",
    );
    let negative = Schedule::Polynomial {
        power: -1.0,
        end: 0.0,
    };
    for schedule in [negative, Schedule::Linear.after_warmup(f64::NAN)] {
        let config = TrainConfig {
            schedule,
            ..default()
        };
        refused(config, "schedule");
    }
    refused(
        TrainConfig {
            curvature_fraction: 0.0,
            ..default()
        },
        "curvature_fraction",
    );
    refused(
        TrainConfig {
            curvature_fraction: f64::NAN,
            ..default()
        },
        "curvature_fraction",
    );
    refused(
        TrainConfig {
            plateau: Some(Plateau {
                factor: 1.0,
                patience: 1,
            }),
            ..default()
        },
        "plateau.factor",
    );
    let text = r#"{"epochs": 2, "schedule": "warmup:10+linear", "plateau": {"factor": 0.5, "patience": 1}}"#;
    let config: TrainConfig = serde_json::from_str(text)?;
    assert_eq!(
        serde_json::from_str::<TrainConfig>(&serde_json::to_string(&config)?)?,
        config
    );
    assert_says(
        serde_json::from_str::<TrainConfig>(r#"{"epoch": 2}"#),
        &["unknown field `epoch`"],
    );
    assert_says(
        serde_json::from_str::<TrainConfig>(r#"{"schedule": "lienar"}"#),
        &["lienar"],
    );
    Ok(())
}
