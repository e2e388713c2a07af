//! What a run saves before an evaluation and before a batch that cannot be made, and how it goes on from there.

use crate::trainer::{Record, scripted, steps, trainer, weight};
use adahessian::{Rule, Sgd};
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use testing::assert_says;
use trainers::callbacks::JsonLines;
use trainers::{Batches, Outcome, Plateau, RunFolder, TrainConfig, Trainer};

/// What a process leaves that dies in an evaluation, here by an error: all steps before it. A run that goes on from there
/// makes the evaluation, and ends as one that was left in peace.
#[test]
fn an_evaluation_begins_with_all_steps_saved() -> Result<()> {
    let scores = [0.5, 0.4, 0.6, 0.45];
    for (eval_every, checkpoint_every) in [(None, None), (Some(2), None), (Some(3), Some(2))] {
        let config = TrainConfig {
            eval_every,
            checkpoint_every,
            epochs: 2,
            max_steps: Some(7),
            plateau: Some(Plateau {
                factor: 0.5,
                patience: 1,
            }),
            keep_checkpoints: 9,
            ..TrainConfig::default()
        };
        let run = |evaluations: &[f64], run: &RunFolder, resume: bool| -> Result<_> {
            let task = scripted(evaluations)?;
            let vars = task.vars.clone();
            let trainer = trainer(task, config.clone())?.run_folder(run, "");
            let mut trainer = trainer
                .callback(JsonLines::new(run.metrics()))
                .unsaved_at_most(Duration::ZERO);
            if resume {
                trainer.resume(run.path())?;
            }
            let ended = trainer.fit().map(|summary| summary.best);
            Ok((ended, weight(&vars)?, trainer.progress().step))
        };
        let folder = tempfile::tempdir()?;
        let peace = RunFolder::create(folder.path().join("peace"), "")?;
        let (best, expected, _) = run(&scores, &peace, false)?;
        let best = best?;
        let evaluations = evaluated(&peace)?;
        for died in 0..evaluations.len() {
            let war = RunFolder::create(folder.path().join(format!("war-{died}")), "")?;
            let mut cut = scores[..=died].to_vec();
            cut[died] = f64::NAN;
            let (ended, _, step) = run(&cut, &war, false)?;
            assert!(ended.is_err());
            let newest = war.checkpoints().newest()?;
            let newest = newest.context("a checkpoint")?;
            assert!(newest.ends_with(format!("stop-{step:08}")), "{newest:?}");
            let (ended, weights, _) = run(&scores[died..], &war, true)?;
            assert_eq!((ended?, weights), (best.clone(), expected));
            assert_eq!(evaluated(&war)?, evaluations);
            assert_eq!(steps(&war)?, steps(&peace)?);
            let stopped = war.checkpoints().folder().join(format!("stop-{step:08}"));
            assert!(!stopped.exists(), "{stopped:?}");
        }
    }
    Ok(())
}

/// An error names a checkpoint that is there: the one that the run went on from, and not the steps since, which may be beyond
/// help.
#[test]
fn a_failed_evaluation_names_a_checkpoint_that_is_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let flag = Arc::new(AtomicBool::new(false));
    let record = Record {
        stop: Some((3, flag.clone())),
        ..Record::default()
    };
    let new = |scores: &[f64]| -> Result<_> {
        let trainer = trainer(scripted(scores)?, TrainConfig::default())?.run_folder(&run, "");
        Ok(trainer.unsaved_at_most(Duration::ZERO))
    };
    let mut first = new(&[0.5])?.callback(record).stop_flag(flag);
    assert!(matches!(first.fit()?.outcome, Outcome::Interrupted { .. }));
    let mut second = new(&[f64::NAN])?;
    second.resume(run.path())?;
    let stopped = run.checkpoints().folder().join("stop-00000003");
    for _ in 0..2 {
        assert_says(second.fit(), &[&stopped.display().to_string()]);
        assert!(stopped.is_dir());
    }
    let mut again = new(&[f64::NAN])?;
    again.resume(run.path())?;
    assert!(again.fit().is_err());
    assert!(stopped.is_dir());
    // Once it is evaluated, the step's own one takes the place of both.
    let mut third = new(&[0.5])?;
    third.resume(run.path())?;
    third.fit()?;
    let names = |kind: &str| -> Result<usize> {
        let entries = std::fs::read_dir(run.checkpoints().folder())?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<Result<Vec<String>>>()?;
        Ok(names.iter().filter(|name| name.starts_with(kind)).count())
    };
    assert_eq!((names("stop")?, names("step")?), (0, 1));
    // Of a process that died before it had removed it.
    let newest = run.checkpoints().latest()?.context("a checkpoint")?;
    let left = newest.with_file_name("stop-00000004");
    std::fs::create_dir(&left)?;
    for file in std::fs::read_dir(&newest)? {
        let file = file?;
        std::fs::copy(file.path(), left.join(file.file_name()))?;
    }
    let mut fourth = new(&[0.5])?;
    fourth.resume(run.path())?;
    fourth.fit()?;
    assert!(!left.exists());
    Ok(())
}

/// (step, score) of each line of an evaluation.
fn evaluated(run: &RunFolder) -> Result<Vec<(Option<u64>, Option<f64>)>> {
    let text = std::fs::read_to_string(run.metrics())?;
    let lines = text.lines().map(serde_json::from_str::<serde_json::Value>);
    let lines = lines.collect::<std::result::Result<Vec<_>, _>>()?;
    let evaluations = lines.iter().filter(|line| line["kind"] == "evaluation");
    let numbers = evaluations.map(|line| (line["step"].as_u64(), line["scores"]["score"].as_f64()));
    Ok(numbers.collect())
}

/// A file that cannot be read in the midst of an epoch: the steps before it are whole, and saved.
#[test]
fn the_steps_before_a_batch_that_cannot_be_made_are_saved() -> Result<()> {
    struct Lost(u64);
    impl Batches for Lost {
        type Batch = f64;
        fn len(&self, _: usize) -> usize {
            4
        }
        fn get(&self, epoch: usize, index: usize) -> datasets::Result<f64> {
            match 4 * epoch as u64 + index as u64 == self.0 {
                true => Err(datasets::Error::user("the disk is gone")),
                false => Ok(1.0 / (1 + index) as f64),
            }
        }
    }
    let fit = |lost: u64, run: &RunFolder, resume: bool| -> Result<_> {
        let task = scripted(&[0.5])?;
        let vars = task.vars.clone();
        let optimizer = Sgd::default().lr(0.1).build(&vars)?;
        let config = TrainConfig {
            epochs: 2,
            ..TrainConfig::default()
        };
        let trainer = Trainer::new(task, Lost(lost), &vars, Box::new(optimizer), config)?;
        let mut trainer = trainer.run_folder(run, "");
        if resume {
            trainer.resume(run.path())?;
        }
        let ended = trainer.fit().map(drop);
        Ok((ended, weight(&vars)?))
    };
    let folder = tempfile::tempdir()?;
    let peace = RunFolder::create(folder.path().join("peace"), "")?;
    let (ended, expected) = fit(99, &peace, false)?;
    ended?;
    for (lost, saved) in [
        (0, None),
        (2, Some("stop-00000002")),
        (6, Some("stop-00000006")),
    ] {
        let war = RunFolder::create(folder.path().join(format!("war-{lost}")), "")?;
        let (ended, _) = fit(lost, &war, false)?;
        assert_says(ended, &["the disk is gone"]);
        let newest = war.checkpoints().newest()?;
        let name = newest.as_ref().and_then(|path| path.file_name());
        assert_eq!(name, saved.map(OsStr::new));
        let (ended, weights) = fit(99, &war, newest.is_some())?;
        ended?;
        assert_eq!(weights, expected);
    }
    Ok(())
}
