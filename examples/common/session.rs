//! One run from its parts to its summary: its folder, its checkpoints, what follows it.

use crate::card::{self, Card};
use crate::experiment::{Export, Parts};
use crate::flags::Settings;
use crate::grid::Cell;
use crate::layers::{self, Own};
use crate::plateau;
use crate::program;
use crate::same::{self, MARK};
use crate::say;
use adahessian::{NamedVars, VarVec};
use anyhow::{Context, Result, bail};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use toml::Table;
use trainers::callbacks::{Curves, JsonLines, ProgressBar, StatusLines, SummaryFile, TensorBoard};
use trainers::{
    Batches, Callback, Evaluated, Outcome, RunFolder, Summary, Task, TrainConfig, Trainer,
    checkpoint, disk,
};

/// A model's card, in its folder.
const CARD: &str = "README.md";

/// How a run is begun or gone on with, and stopped.
pub struct Session {
    /// The run's folder, which need not exist.
    pub folder: PathBuf,
    /// The checkpoint to go on from; with none the run begins.
    pub from: Option<PathBuf>,
    /// Whether it was named, and is not the folder's newest: that is asked for again when the folder is this
    /// process's, for another may have saved there.
    pub named: bool,
    /// Whether the folder's configuration and this one have to lead to the same steps.
    pub resumes: bool,
    /// Ends the run after a step.
    pub stop: Arc<AtomicBool>,
    /// The run's name.
    pub label: String,
    /// All its settings.
    pub settings: Table,
    /// What the loop is told; `log_every` is completed.
    pub config: TrainConfig,
    /// Whether the settings name `log_every`.
    pub log_every: Option<u64>,
    /// Whether derivatives are checked first.
    pub audit: bool,
    /// What stays of it when it is complete: `all`, `models` or `figures`.
    pub keep: String,
    /// Another run of the comparison on the same data, and the checksum of what it was made on.
    pub other: Option<(PathBuf, String)>,
}

impl Session {
    /// The session of a cell.
    ///
    /// # Errors
    /// For a schedule that is none.
    pub fn new<A: Own>(
        cell: &Cell<A>,
        from: Option<PathBuf>,
        resumes: bool,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let run = &cell.settings.run;
        Ok(Self {
            folder: cell.folder.clone(),
            from,
            named: false,
            resumes,
            stop: Arc::clone(stop),
            label: cell.label(),
            settings: layers::table(&cell.settings)?,
            config: config(&cell.settings, cell.seed)?,
            log_every: run.log_every,
            audit: run.audit,
            keep: run.keep.clone(),
            other: None,
        })
    }

    /// Trains, evaluates and saves.
    ///
    /// # Errors
    /// With whatever part of it fails; checkpoints that were saved stay.
    pub fn train<T, B>(mut self, parts: Parts<T, B>) -> Result<Summary>
    where
        T: Task,
        B: Batches<Batch = T::Batch>,
    {
        program::reset_peak_memory();
        let steps = parts.batches.len(0) as u64;
        self.config.log_every = self.log_every.unwrap_or((steps / 50).clamp(1, 10));
        self.config.keep_checkpoints = parts.keep_checkpoints;
        if let Some(mark) = &parts.mark {
            same::data(mark, self.other.as_ref())?;
            let mark = toml::Value::String(mark.clone());
            self.settings.insert(MARK.into(), mark);
        }
        let text = toml::to_string(&self.settings)?;
        let (folder, begun) = self.claim(&text)?;
        say!("{}: {}", self.label, parts.announce);
        let trainer = Trainer::new(
            parts.task,
            parts.batches,
            &parts.vars,
            parts.optimizer,
            self.config.clone(),
        )?;
        if self.keep == "models" && parts.export.is_none() {
            bail!(
                "--keep models: this program saves no model apart from its checkpoints, and nothing would be left to \
                 evaluate; expected all or figures"
            );
        }
        let mut trainer = trainer
            .run_folder(&folder, text.as_str())
            .stop_flag(self.stop.clone())
            .callback(JsonLines::new(folder.metrics()))
            .callback(TensorBoard::new(folder.path()))
            .callback(Curves::new(folder.curves(), folder.metrics(), &self.label));
        if let Some(export) = parts.export.filter(|_| self.keep != "figures") {
            // Before the summary, which says that the run is complete.
            trainer = trainer.callback(Exported {
                run: folder.clone(),
                vars: parts.vars.clone(),
                export,
                card: parts.card,
                label: self.label.clone(),
                settings: self.settings.clone(),
            });
        }
        let summary = SummaryFile::new(folder.summary());
        let summary = summary.version("examples", env!("CARGO_PKG_VERSION"));
        let mut trainer = trainer.callback(summary).boxed_callback(follower());
        if let Some(from) = &self.from {
            trainer.resume(from)?;
            let (taken, total) = (trainer.progress().step, trainer.total_steps());
            if taken > total {
                bail!(
                    "{}: the run has taken {taken} steps already: expected at least as many, got {total}; give it more \
                     with --epochs or --max-steps",
                    folder.path().display()
                );
            }
        }
        if self.audit {
            let audit = trainer.audit().context("--audit")?;
            say!("  audit: {audit}");
        }
        if begun {
            self.rewrite(&folder, &text)?;
        }
        let summary = trainer.fit()?;
        drop(trainer);
        if !matches!(summary.outcome, Outcome::Interrupted { .. }) {
            // A model is there, too, of a shorter run that had to keep it.
            let gone = superfluous(&folder, &self.keep);
            gone.iter().try_for_each(|folder| remove(folder))?;
        }
        Ok(summary)
    }

    /// The folder, this process's alone, and whether a run was begun in it before. Its files stay as they are.
    fn claim(&mut self, text: &str) -> Result<(RunFolder, bool)> {
        let begun = self.resumes && RunFolder::open(&self.folder).is_ok();
        if !begun {
            return Ok((RunFolder::create(&self.folder, text)?, false));
        }
        let folder = RunFolder::resume(&self.folder)?;
        if !self.named {
            self.from = folder.checkpoints().newest()?;
        }
        let before = match &self.from {
            // The checkpoint's copy is what its steps were made with.
            Some(from) => checkpoint::configuration(from)?,
            None => folder.settings()?,
        };
        same::steps(&self.folder, &layers::of_run(&before)?, &self.settings)?;
        Ok((folder, true))
    }

    /// Gives a run that was begun this configuration, once nothing speaks against going on.
    fn rewrite(&self, folder: &RunFolder, text: &str) -> Result<()> {
        // It says that the run is complete, which with another length it is not; cut off, it would be taken for that.
        remove_file(&folder.summary())?;
        folder.set_settings(text)?;
        if self.from.is_none() {
            folder.begin_again()?;
        }
        Ok(())
    }
}

/// Of a complete run, removes what is not to stay.
///
/// # Errors
/// If a run is at work in the folder, if it has no model that could stay, and if something cannot be removed.
pub fn slim(folder: &Path, keep: &str) -> Result<()> {
    let run = RunFolder::open(folder)?;
    let gone = superfluous(&run, keep);
    // Nothing would be left to evaluate.
    let has_no_other = keep == "models" && !run.model().is_dir();
    if has_no_other || gone.iter().all(|folder| !folder.exists()) {
        return Ok(());
    }
    let _held = RunFolder::resume(folder)?;
    gone.iter().try_for_each(|folder| remove(folder))
}

/// The folders of a complete run that are not to stay.
fn superfluous(run: &RunFolder, keep: &str) -> Vec<PathBuf> {
    let checkpoints = run.path().join("checkpoint");
    match keep {
        "models" => vec![checkpoints],
        "figures" => vec![checkpoints, run.model(), run.best_model()],
        _ => Vec::new(),
    }
}

/// Removes a folder, which need not be there.
fn remove(folder: &Path) -> Result<()> {
    removed(folder, std::fs::remove_dir_all(folder))
}

/// Removes a file, which need not be there.
fn remove_file(file: &Path) -> Result<()> {
    removed(file, std::fs::remove_file(file))
}

fn removed(path: &Path, outcome: std::io::Result<()>) -> Result<()> {
    match outcome {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("{}: cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

/// A bar on a terminal, lines elsewhere.
fn follower() -> Box<dyn Callback> {
    match std::io::stderr().is_terminal() {
        true => Box::new(ProgressBar::new()),
        false => Box::new(StatusLines::new(Box::new(std::io::stderr()))),
    }
}

/// What the loop is told.
fn config<A: Own>(settings: &Settings<A>, seed: u64) -> Result<TrainConfig> {
    let (training, run) = (&settings.training, &settings.run);
    let (schedule, plateau) = plateau::parts(&training.schedule)?;
    Ok(TrainConfig {
        epochs: training.epochs,
        max_steps: training.max_steps,
        micro_batches: training.micro_batches,
        curvature_fraction: settings.optimizer.curvature_fraction,
        schedule: schedule.parse()?,
        plateau,
        eval_every: run.eval_every,
        checkpoint_every: run.checkpoint_every,
        patience: training.patience.map(|n| n.min(u32::MAX as usize) as u32),
        seed,
        ..TrainConfig::default()
    })
}

/// Exports the model at the end of a run that was not interrupted, and that of its best evaluation where that was an
/// earlier one.
struct Exported {
    run: RunFolder,
    vars: NamedVars,
    export: Export,
    card: Card,
    label: String,
    settings: Table,
}

impl Exported {
    fn write(&mut self, folder: &Path, evaluated: Option<&Evaluated>) -> trainers::Result<()> {
        let (export, program) = (&mut self.export, program::short_name());
        let card =
            evaluated.map(|of| card::text(&self.card, &self.label, &program, of, &self.settings));
        disk::write_folder(folder, |folder| {
            let written = export(folder).and_then(|()| match &card {
                Some(text) => Ok(std::fs::write(folder.join(CARD), text)?),
                None => Ok(()),
            });
            written.map_err(|e| trainers::Error::user(e.context("saving the model")))
        })
    }

    /// With the variables as a checkpoint has them; afterwards they are what they were.
    fn write_of(
        &mut self,
        checkpoint: &Path,
        folder: &Path,
        evaluated: Option<&Evaluated>,
    ) -> trainers::Result<()> {
        let loaded = checkpoint::load(checkpoint)?;
        let last = self.vars.snapshot()?;
        let best = self
            .vars
            .iter()
            .map(|(name, var)| match loaded.model.get(name) {
                Some(value) => value.to_device(var.device())?.to_dtype(var.dtype()),
                None => candle_core::bail!("the best checkpoint has no variable `{name}`"),
            });
        let best = best.collect::<candle_core::Result<_>>();
        let best = VarVec::new(&self.vars, best.map_err(adahessian::Error::from)?)?;
        let written = self.vars.assign(&best).map_err(Into::into);
        let written = written.and_then(|()| self.write(folder, evaluated));
        self.vars.assign(&last)?;
        written
    }
}

impl Callback for Exported {
    fn on_end(&mut self, summary: &Summary) -> trainers::Result<()> {
        if let Outcome::Interrupted { .. } = summary.outcome {
            return Ok(());
        }
        self.write(&self.run.model(), summary.last.as_ref())?;
        let folder = self.run.best_model();
        let earlier = summary
            .best
            .as_ref()
            .is_some_and(|best| best.step < summary.steps);
        match self.run.checkpoints().best()? {
            Some(checkpoint) if earlier => {
                return self.write_of(&checkpoint, &folder, summary.best.as_ref());
            }
            None if earlier => say!(
                "the best evaluation was that of step {}, whose model is not there any more: a better one had taken its \
                 place, behind the step that the run went on from",
                summary.best.as_ref().map_or(0, |best| best.step)
            ),
            _ => {}
        }
        match folder.exists() {
            // What an earlier, shorter run has left.
            true => {
                let removed = std::fs::remove_dir_all(&folder);
                removed.map_err(trainers::Error::user)
            }
            false => Ok(()),
        }
    }
}
