//! Checkpoints of processes that die at any moment, and of two processes in one folder.

use adahessian::ops::Mode;
use adahessian::{NamedVars, Optim, Rule, Sgd};
use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor, Var};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use testing::assert_says;
use trainers::callbacks::JsonLines;
use trainers::checkpoint::{Content, load};
use trainers::{
    Callback, Checkpoints, EvalReport, Evaluated, FixedBatches, Progress, RunFolder, Scores,
    StepReport, Task, TrainConfig, Trainer,
};

const FOLDER: &str = "ADAHESSIAN_CRASH_FOLDER";

/// w² with evaluations that rise.
struct Square(NamedVars);

impl Task for Square {
    type Batch = f64;

    fn size(&self, _: &f64) -> usize {
        1
    }

    fn narrow(&self, batch: &f64, _: usize, _: usize) -> trainers::Result<f64> {
        Ok(*batch)
    }

    fn loss(&self, batch: &f64, _: &Mode) -> trainers::Result<Tensor> {
        Ok((self.0.get("w")?.sqr()? * *batch)?.sum_all()?)
    }

    fn evaluate(&self) -> trainers::Result<Scores> {
        let w = self
            .0
            .get("w")?
            .to_vec1::<f64>()
            .map_err(trainers::Error::from)?;
        Ok(Scores::new("score", 1.0 - w[0]))
    }
}

fn vars(value: f64) -> Result<NamedVars> {
    let w = Var::new(&[value], &Device::Cpu)?;
    Ok(NamedVars::new([("w".to_string(), w)])?)
}

fn trainer(run: &RunFolder, epochs: usize) -> Result<Trainer<Square, FixedBatches<f64>>> {
    trainer_with(run, epochs, Some(1))
}

fn trainer_with(
    run: &RunFolder,
    epochs: usize,
    checkpoint_every: Option<u64>,
) -> Result<Trainer<Square, FixedBatches<f64>>> {
    let vars = vars(0.9)?;
    let optimizer = Sgd::default().lr(0.01).build(&vars)?;
    let config = TrainConfig {
        epochs,
        eval_every: Some(2),
        checkpoint_every,
        keep_checkpoints: 9,
        ..TrainConfig::default()
    };
    let (task, batches) = (Square(vars.clone()), FixedBatches(vec![1.0, 0.5]));
    let trainer = Trainer::new(task, batches, &vars, Box::new(optimizer), config)?;
    Ok(trainer.run_folder(run, ""))
}

fn content<T>(value: f64, step: u64, act: impl FnOnce(Content) -> T) -> Result<T> {
    let vars = vars(value)?;
    let optimizer = Sgd::default().lr(0.1).build(&vars)?;
    let scores = Scores::new("score", 0.5);
    let progress = Progress {
        step,
        best: Some(Evaluated { step, scores }),
        ..Progress::default()
    };
    Ok(act(Content {
        vars: &vars,
        tables: &[],
        optimizer: &optimizer.state()?,
        progress: &progress,
        config: "",
    }))
}

fn save(checkpoints: &Checkpoints, value: f64, step: u64) -> Result<PathBuf> {
    Ok(content(value, step, |content| checkpoints.save(content))??)
}

fn save_best(checkpoints: &Checkpoints, value: f64, step: u64) -> Result<PathBuf> {
    Ok(content(value, step, |content| {
        checkpoints.save_best(content)
    })??)
}

fn weight(path: &Path) -> Result<f64> {
    let w = load(path)?.model["w"].to_dtype(DType::F64)?;
    Ok(w.to_vec1::<f64>()?[0])
}

/// The names that hold something; the file of the lock holds nothing and stays.
fn names(folder: &Path) -> Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.retain(|name| name != ".lock");
    names.sort();
    Ok(names)
}

/// Tries to save beside a run at work.
struct Intruder {
    folder: PathBuf,
}

impl Callback for Intruder {
    fn on_step(&mut self, report: &StepReport) -> trainers::Result<()> {
        if report.step != 3 {
            return Ok(());
        }
        // What the run would be writing just now.
        let writing = self.folder.join(".step-00000099.partial");
        fs::create_dir(&writing).map_err(trainers::Error::user)?;
        let folder = self.folder.display().to_string();
        let pieces = ["another run", folder.as_str()];
        for act in [Checkpoints::save, Checkpoints::save_best] {
            let other = Checkpoints::new(&self.folder);
            let outcome = content(0.1, 77, |content| act(&other, content));
            assert_says(outcome.map_err(trainers::Error::user)?, &pieces);
        }
        assert_says(Checkpoints::new(&self.folder).remove_after(0), &pieces);
        // Reading needs no lock.
        let latest = Checkpoints::new(&self.folder).latest()?;
        assert!(latest.is_some_and(|path| load(&path).is_ok()));
        assert!(writing.is_dir(), "the other process has removed it");
        Ok(())
    }
}

#[test]
fn a_run_at_work_keeps_others_out_of_its_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"), "")?;
    let checkpoints = run.checkpoints();
    let intruder = Intruder {
        folder: checkpoints.folder().into(),
    };
    trainer(&run, 3)?.callback(intruder).fit()?;
    assert!(
        checkpoints
            .latest()?
            .is_some_and(|p| p.ends_with("step-00000006"))
    );
    // It has ended, and so has its claim.
    save(&checkpoints, 0.5, 99)?;
    assert!(
        !names(checkpoints.folder())?
            .iter()
            .any(|n| n.starts_with('.'))
    );
    Ok(())
}

struct Slow;

impl Callback for Slow {
    fn on_step(&mut self, _: &StepReport) -> trainers::Result<()> {
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    }
}

/// Not a test by itself: the process that is killed.
#[test]
fn child() -> Result<()> {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return Ok(());
    };
    let run = RunFolder::create(PathBuf::from(folder), "")?;
    trainer(&run, 100_000)?.callback(Slow).fit()?;
    Ok(())
}

fn at_work(folder: &Path) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "checkpoint_crashes::child", "--test-threads=1"]);
    let mut child = command.env(FOLDER, folder).stdout(Stdio::null()).spawn()?;
    let began = Instant::now();
    let checkpoints = Checkpoints::new(folder.join("checkpoint"));
    while checkpoints.latest()?.is_none() {
        if began.elapsed() > Duration::from_secs(60) || child.try_wait()?.is_some() {
            child.kill()?;
            bail!("the child saves nothing");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(child)
}

#[test]
fn two_processes_cannot_train_in_one_folder_until_one_is_dead() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run");
    let mut child = at_work(&path)?;
    let run = RunFolder::open(&path)?;
    let mut second = trainer(&run, 1)?;
    let resumed = second.resume(&path);
    let outcome = second.fit();
    child.kill()?; // SIGKILL
    child.wait()?;
    resumed?;
    let shown = run.checkpoints().folder().display().to_string();
    assert_says(outcome, &["another run", &shown]);
    let latest = run.checkpoints().latest()?;
    let mut third = trainer(&run, 10)?;
    third.resume(&path)?;
    assert!(latest.is_some_and(|p| load(&p).is_ok()));
    third.fit()?;
    Ok(())
}

/// The two moments of a replacement at which the process may have died: only the old one was put aside,
/// or the new one was put in its place, too.
fn replacement(kind: &str, act: fn(&Checkpoints, f64, u64) -> Result<PathBuf>) -> Result<()> {
    for new_in_place in [false, true] {
        let folder = tempfile::tempdir()?;
        let checkpoints = Checkpoints::new(folder.path());
        let target = act(&checkpoints, 0.25, 7)?;
        let aside = folder
            .path()
            .join(format!(".{kind}-00000007.replaced.partial"));
        fs::rename(&target, &aside)?;
        act(&checkpoints_elsewhere(folder.path())?, 0.75, 7)?;
        let new = folder
            .path()
            .join("elsewhere")
            .join(format!("{kind}-00000007"));
        let place = match new_in_place {
            true => target.clone(),
            false => folder.path().join(format!(".{kind}-00000007.partial")),
        };
        fs::rename(new, place)?;
        fs::remove_dir_all(folder.path().join("elsewhere"))?;

        // Whoever goes on from here finds the old one or the new one, before and after the next save.
        let expected = if new_in_place { 0.75 } else { 0.25 };
        let found = || match kind {
            "best" => checkpoints.best(),
            _ => checkpoints.latest(),
        };
        let Some(path) = found()? else {
            bail!("{kind}: nothing to go on from, {new_in_place}");
        };
        assert_eq!(weight(&path)?, expected, "{kind}");
        assert_eq!(load(&path)?.progress.step, 7);
        // The other kind, which leaves this one alone.
        match kind {
            "best" => save(&checkpoints, 0.1, 8)?,
            _ => save_best(&checkpoints, 0.1, 8)?,
        };
        assert_eq!(found()?, Some(target.clone()));
        assert_eq!(weight(&target)?, expected, "{kind} after a save");
        assert_eq!(
            names(folder.path())?.len(),
            2,
            "{:?}",
            names(folder.path())?
        );
    }
    Ok(())
}

fn checkpoints_elsewhere(folder: &Path) -> Result<Checkpoints> {
    Ok(Checkpoints::new(folder.join("elsewhere")))
}

#[test]
fn a_crash_while_a_checkpoint_is_replaced_loses_nothing() -> Result<()> {
    replacement("step", save)?;
    replacement("best", save_best)
}

#[test]
fn a_run_goes_on_after_a_crash_while_its_only_checkpoint_was_replaced() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run");
    let run = RunFolder::create(&path, "")?;
    let checkpoints = run.checkpoints();
    trainer(&run, 1)?.fit()?;
    for entry in names(checkpoints.folder())? {
        if entry != "step-00000002" {
            fs::remove_dir_all(checkpoints.folder().join(entry))?;
        }
    }
    let target = checkpoints.folder().join("step-00000002");
    let aside = checkpoints.folder().join(".step-00000002.replaced.partial");
    fs::rename(&target, aside)?;
    let mut again = trainer(&run, 1)?;
    again.resume(&path)?;
    assert_eq!(again.progress().step, 2);
    again.fit()?;
    assert_eq!(checkpoints.latest()?, Some(target.clone()));
    load(&target)?;
    Ok(())
}

/// A process may die between saving a checkpoint and removing the one before it.
#[test]
fn what_a_checkpoint_replaced_goes_when_the_run_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let careless = Checkpoints::new(folder.path()).keep(9);
    for step in [2, 4, 6] {
        save(&careless, 0.5, step)?;
    }
    save_best(&careless, 0.5, 4)?;
    let (best, aside) = (
        folder.path().join("best-00000004"),
        folder.path().join("aside"),
    );
    fs::rename(&best, &aside)?;
    save_best(&careless, 0.5, 6)?;
    fs::rename(&aside, &best)?;
    Checkpoints::new(folder.path()).keep(2).remove_after(6)?;
    let left = ["best-00000006", "step-00000004", "step-00000006"];
    assert_eq!(names(folder.path())?, left);
    Ok(())
}

#[test]
fn the_best_checkpoint_of_an_abandoned_branch_goes_with_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let checkpoints = Checkpoints::new(folder.path()).keep(9);
    for step in [2, 4, 6] {
        save(&checkpoints, 0.5, step)?;
    }
    save_best(&checkpoints, 0.5, 5)?;
    checkpoints.remove_after(5)?;
    let all = ["best-00000005", "step-00000002", "step-00000004"];
    assert_eq!(
        names(folder.path())?,
        all,
        "the step itself is no later one"
    );
    checkpoints.remove_after(4)?;
    assert_eq!(names(folder.path())?, all[1..]);

    // A whole run: its scores rise, so that each evaluation, of every second step, is the best.
    let run = RunFolder::create(folder.path().join("run"), "")?;
    trainer(&run, 4)?.fit()?;
    let checkpoints = run.checkpoints();
    let best = |step: &str| Some(checkpoints.folder().join(format!("best-0000000{step}")));
    assert_eq!(checkpoints.best()?, best("8"));
    let mut again = trainer(&run, 2)?;
    again.resume(&checkpoints.folder().join("step-00000003"))?;
    again.fit()?;
    assert_eq!(checkpoints.best()?, best("4"));
    Ok(())
}

/// Dies at the n-th of these moments: before a checkpoint is written, and before an evaluation is recorded.
struct DiesAt(usize);

impl DiesAt {
    fn moment(&mut self) -> trainers::Result<()> {
        self.0 -= 1;
        match self.0 {
            0 => Err(trainers::Error::user("died")),
            _ => Ok(()),
        }
    }
}

impl Callback for DiesAt {
    fn before_checkpoint(&mut self) -> trainers::Result<()> {
        self.moment()
    }

    fn on_evaluation(&mut self, _: &EvalReport) -> trainers::Result<()> {
        self.moment()
    }
}

/// The lines of `metrics.jsonl` without their times.
fn lines(run: &RunFolder) -> Result<Vec<serde_json::Value>> {
    let text = fs::read_to_string(run.metrics())?;
    let lines = text.lines().map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(line)?;
        for time in ["seconds", "seconds_per_step"] {
            line[time].take();
        }
        Ok(line)
    });
    lines.collect()
}

/// Whether the run's checkpoints are of steps, too, or of the best evaluation alone when it dies.
#[test]
fn a_run_that_dies_between_its_best_checkpoint_and_the_next_loses_nothing() -> Result<()> {
    for steps_too in [true, false] {
        let folder = tempfile::tempdir()?;
        let make = |run: &RunFolder, moment: usize| -> Result<_> {
            let every = steps_too.then_some(1);
            let trainer = trainer_with(run, 2, every)?.callback(DiesAt(moment));
            Ok(trainer.callback(JsonLines::new(run.metrics())))
        };
        let whole = RunFolder::create(folder.path().join("whole"), "")?;
        make(&whole, usize::MAX)?.fit()?;
        // Two evaluations and as many best checkpoints; four checkpoints of steps, or two.
        for died in 1..=if steps_too { 8 } else { 6 } {
            let path = folder.path().join(format!("run-{died}"));
            let run = RunFolder::create(&path, "")?;
            assert_says(make(&run, died)?.fit(), &["died"]);
            drop(run);
            let begun = Checkpoints::new(path.join("checkpoint")).newest()?;
            let run = match begun {
                Some(_) => RunFolder::resume(&path)?,
                None => RunFolder::create(&path, "")?,
            };
            let mut again = make(&run, usize::MAX)?;
            if run.checkpoints().newest()?.is_some() {
                again.resume(&path)?;
            }
            again.fit()?;
            assert_eq!(lines(&run)?, lines(&whole)?, "{steps_too}, {died}");
            let (left, expected) = (run.checkpoints(), whole.checkpoints());
            let (left, expected) = (names(left.folder())?, names(expected.folder())?);
            let last = |names: &[String]| names.last().cloned();
            assert_eq!(last(&left), last(&expected), "{steps_too}, {died}");
            let weights = [&run, &whole].map(|r| r.checkpoints().latest());
            let [Ok(Some(ours)), Ok(Some(theirs))] = weights else {
                bail!("{steps_too}, {died}: no checkpoint");
            };
            assert_eq!(weight(&ours)?.to_bits(), weight(&theirs)?.to_bits());
        }
    }
    Ok(())
}
