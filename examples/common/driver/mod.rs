//! From a command line to a report: the one driver of all programs.

mod resume;
mod shared;

use crate::experiment::Experiment;
use crate::find_lr;
use crate::flags::{EXPORT, LENGTH};
use crate::grid::{self, Cell};
use crate::halving;
use crate::layers::{self, Asked, Own};
use crate::outcome;
use crate::program;
use crate::results::is_complete;
use crate::same;
use crate::session::Session;
use crate::study;
use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use resume::{checkpoint, has, resumed, stays, strangers};
use shared::Shared;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use trainers::{Outcome, RunFolder, Summary};

/// What a process ends with that was interrupted, as shells have it: 128 and SIGINT's number.
const INTERRUPTED: u8 = 130;

/// A program without subcommands, from its process's arguments to its exit code.
pub fn main<E: Experiment>(experiment: &E, command: clap::Command) -> ExitCode {
    let matches = E::Args::augment(command).get_matches();
    exit(train(experiment, &matches))
}

/// The exit code of a result: errors are shown.
pub fn exit(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {}", shown(&error));
        ExitCode::FAILURE
    })
}

/// An error and its causes, without those whose text the one before ends with already.
fn shown(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .fold(String::new(), |text, cause| {
            match (text.is_empty(), text.ends_with(&cause)) {
                (true, _) => cause,
                (false, true) => text,
                (false, false) => format!("{text}: {cause}"),
            }
        })
}

/// Adds the flags of a program to its command.
pub trait Augment {
    /// The command with all flags.
    fn augment(command: clap::Command) -> clap::Command;
}

impl<A: Own> Augment for A {
    fn augment(command: clap::Command) -> clap::Command {
        layers::augment::<A>(command)
    }
}

/// Makes the runs that the matches of [`Augment`]ed flags ask for, and their report.
///
/// With `--resume` runs that are complete stay, one that was interrupted goes on from its newest checkpoint, and
/// the rest is made. Of several, one that fails, for example because its loss is not a number any more, is
/// reported, and the others are made all the same.
///
/// # Errors
/// For settings that do not fit, data that cannot be loaded, and at the end if a run failed.
pub fn train<E: Experiment>(experiment: &E, matches: &ArgMatches) -> Result<ExitCode> {
    let plan = Plan::read(experiment, matches)?;
    if plan.dry_run {
        print!("{}", plan.text()?);
        return Ok(ExitCode::SUCCESS);
    }
    program::start(
        plan.cells
            .first()
            .and_then(|cell| cell.settings.run.threads),
    )?;
    let stop = program::stop_flag()?;
    let failed = plan.run(experiment, &stop)?;
    if stop.load(Ordering::SeqCst) && plan.find_lr.is_some() {
        println!("stopped; a range test is begun again, with another --out");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if stop.load(Ordering::SeqCst) {
        println!(
            "stopped; go on with: {} --resume {}",
            program::command_name(),
            plan.out.display()
        );
        return Ok(ExitCode::from(INTERRUPTED));
    }
    match failed {
        0 => Ok(ExitCode::SUCCESS),
        _ => bail!("{failed} of {} runs failed", plan.cells.len()),
    }
}

/// The runs to make.
struct Plan<A: Own> {
    /// What was asked for, as the text of a comparison's configuration.
    asked: String,
    cells: Vec<Cell<A>>,
    out: PathBuf,
    /// The run, comparison or checkpoint to go on with.
    resume: Option<PathBuf>,
    /// Steps of a range test of the learning rate in the place of the runs.
    find_lr: Option<u64>,
    halving: bool,
    dry_run: bool,
}

impl<A: Own> Plan<A> {
    fn read<E: Experiment<Args = A>>(experiment: &E, matches: &ArgMatches) -> Result<Self> {
        let mut asked = Asked::<A>::read(matches)?;
        let invocation = asked.invocation.clone();
        if let Some(file) = &invocation.config {
            let table = layers::read(file)?;
            asked = asked.over(&table, &file.display().to_string())?;
        }
        asked = study::applied(asked)?;
        let resume = match (&invocation.resume, &invocation.out) {
            (None, _) => None,
            (Some(Some(path)), _) => Some(path.clone()),
            (Some(None), Some(out)) => Some(out.clone()),
            (Some(None), None) => bail!("--resume without a folder needs --out"),
        };
        let out = match &resume {
            None => invocation.out.clone().unwrap_or_else(|| free(E::NAME)),
            Some(path) => {
                let folder = RunFolder::open(path)?;
                stays(path, &folder, invocation.out.as_deref())?;
                let settings = folder.settings()?;
                asked = resumed(asked, &settings, &folder)?;
                folder.path().to_path_buf()
            }
        };
        let mut cells = grid::cells(experiment, &asked, &out)?;
        if let Some(steps) = invocation.find_lr {
            cells = find_lr::cells(cells, steps)?;
        }
        if asked.invocation.halving {
            halving::check(&cells)?;
        }
        if let (Some(_), [cell]) = (&resume, cells.as_slice())
            && is_complete(&cell.folder)
            && !has(cell, &LENGTH)
        {
            println!(
                "{}: it was complete, and goes on to another length; the schedule of the steps to come is that length's",
                cell.folder.display()
            );
        }
        Ok(Self {
            asked: asked.text()?,
            cells,
            out,
            resume,
            find_lr: invocation.find_lr,
            halving: asked.invocation.halving,
            dry_run: invocation.dry_run,
        })
    }

    /// The runs with all their settings.
    fn text(&self) -> Result<String> {
        let mut text = format!("# {} runs\n", self.cells.len());
        if self.halving {
            text += "# --halving: first with a quarter of the epochs, the better half with half, the best quarter whole\n";
        }
        for cell in &self.cells {
            let state = match (is_complete(&cell.folder), &self.resume) {
                (true, Some(_)) if has(cell, &EXPORT) => "finished already",
                (false, Some(_)) if checkpoint(&cell.folder)?.is_some() => "goes on",
                _ => "begins",
            };
            let settings = toml::to_string(&layers::table(&cell.settings)?)?;
            text += &format!(
                "\n# {}, in {}: {state}\n{settings}",
                cell.label(),
                cell.folder.display()
            );
        }
        Ok(text)
    }

    fn several(&self) -> bool {
        self.cells.len() > 1
    }

    /// Makes the runs that are not complete; how many failed.
    fn run<E: Experiment<Args = A>>(
        &self,
        experiment: &E,
        stop: &Arc<AtomicBool>,
    ) -> Result<usize> {
        // What is wrong with the last run's settings shows before the first one begins.
        let mut devices: Vec<&str> = Vec::new();
        for cell in &self.cells {
            let device = cell.settings.run.device.as_str();
            if !devices.contains(&device) {
                program::device(device)?;
                devices.push(device);
            }
            Session::new(cell, None, false, stop)?.config.check()?;
        }
        if self.resume.is_none() {
            RunFolder::check_free(&self.out)?;
        }
        let mut shared = Shared::<E>::default();
        if let Some(first) = self.cells.iter().find(|cell| !self.is_done(cell)) {
            // Before anything is written: a folder that is not there shows first.
            shared.load(experiment, first, &self.out)?;
        }
        let _held = self.claim()?;
        if self.resume.is_some() && self.several() && !self.halving {
            for folder in strangers(&self.out, &self.cells) {
                println!(
                    "{}: no run of what is asked for: it stays, and is not compared",
                    folder.display()
                );
            }
        }
        if let Some(steps) = self.find_lr {
            // A run that is given up because it ran away has shown what it was made for.
            self.make_all(experiment, &self.cells, &mut shared, stop)?;
            if stop.load(Ordering::SeqCst) {
                return Ok(0);
            }
            return find_lr::print::<E>(&self.cells, steps, &self.out);
        }
        if self.halving {
            return self.rungs(experiment, &mut shared, stop);
        }
        let failed = self.make_all(experiment, &self.cells, &mut shared, stop)?;
        self.print(experiment, &self.cells)?;
        Ok(failed)
    }

    fn is_done(&self, cell: &Cell<A>) -> bool {
        // A run on its own can be of another length.
        let is_as_long = self.several() || has(cell, &LENGTH);
        self.resume.is_some() && is_complete(&cell.folder) && is_as_long && has(cell, &EXPORT)
    }

    /// Successive halving; how many runs failed.
    fn rungs<E: Experiment<Args = A>>(
        &self,
        experiment: &E,
        shared: &mut Shared<E>,
        stop: &Arc<AtomicBool>,
    ) -> Result<usize> {
        let (mut failed, mut kept) = (0, Vec::new());
        for index in 0..halving::RUNGS.len() {
            let cells = halving::rung(&self.cells, index, &kept);
            println!(
                "rung {} of {}: {} runs",
                index + 1,
                halving::RUNGS.len(),
                cells.len()
            );
            failed += self.make_all(experiment, &cells, shared, stop)?;
            if stop.load(Ordering::SeqCst) {
                break;
            }
            self.print(experiment, &cells)?;
            if index + 1 < halving::RUNGS.len() {
                kept = halving::best(&self.cells, &cells, index + 1)?;
            }
        }
        Ok(failed)
    }

    /// The table of these runs, as far as they are complete.
    fn print<E: Experiment<Args = A>>(&self, experiment: &E, cells: &[Cell<A>]) -> Result<()> {
        let last = cells.iter().rfind(|cell| is_complete(&cell.folder));
        last.map_or(Ok(()), |cell| {
            let remarks = experiment.remarks(cell)?;
            outcome::print::<E>(experiment, cells, &self.out, remarks)
        })
    }

    /// Makes those of these runs that are not complete; how many failed.
    fn make_all<E: Experiment<Args = A>>(
        &self,
        experiment: &E,
        cells: &[Cell<A>],
        shared: &mut Shared<E>,
        stop: &Arc<AtomicBool>,
    ) -> Result<usize> {
        let finished = cells.iter().filter(|cell| self.is_done(cell)).count();
        if finished > 0 {
            println!("{finished} of {} runs are finished already", cells.len());
        }
        let (done, left): (Vec<_>, Vec<_>) = cells.iter().partition(|cell| self.is_done(cell));
        if self.several() && !left.is_empty() {
            done.into_iter().try_for_each(same::run)?;
        }
        let mut failed = 0;
        for cell in left {
            match self.make(experiment, (cell, cells), shared, stop) {
                Ok(summary) if matches!(summary.outcome, Outcome::Interrupted { .. }) => break,
                Ok(_) => {}
                Err(error) if self.several() || self.find_lr.is_some() => {
                    eprintln!("{} failed: {}", cell.label(), shown(&error));
                    failed += 1;
                }
                Err(error) => return Err(error),
            }
            if self.several() && self.find_lr.is_none() {
                outcome::write::<E>(experiment, cells, &self.out, None)?;
            }
            if stop.load(Ordering::SeqCst) {
                break;
            }
        }
        Ok(failed)
    }

    /// A comparison's own folder, this process's alone.
    fn claim(&self) -> Result<Option<RunFolder>> {
        let folder = match (self.several(), &self.resume) {
            (false, _) => return Ok(None),
            (true, None) => RunFolder::create(&self.out, &self.asked)?,
            (true, Some(_)) => {
                let folder = RunFolder::resume(&self.out)?;
                folder.set_settings(&self.asked)?;
                folder
            }
        };
        Ok(Some(folder))
    }

    fn make<E: Experiment<Args = A>>(
        &self,
        experiment: &E,
        (cell, all): (&Cell<A>, &[Cell<A>]),
        shared: &mut Shared<E>,
        stop: &Arc<AtomicBool>,
    ) -> Result<Summary> {
        let named = match &self.resume {
            Some(path) if !self.several() && path.join("manifest").is_file() => Some(path.clone()),
            _ => None,
        };
        let from = match (&named, &self.resume) {
            (None, Some(_)) => checkpoint(&cell.folder)?,
            _ => named.clone(),
        };
        if from.is_none()
            && self.resume.is_some()
            && is_complete(&cell.folder)
            && !has(cell, &EXPORT)
        {
            bail!(
                "--half: {} is complete, and no checkpoint of it is left to save the model from",
                cell.folder.display()
            );
        }
        let mut session = Session::new(cell, from, self.resume.is_some(), stop)?;
        session.named = named.is_some();
        session.other = same::other(all, cell);
        let data = shared.load(experiment, cell, &self.out)?;
        let summary = experiment.run(cell, data, session);
        summary.with_context(|| cell.label())
    }
}

/// `runs/NAME`, or the first of `runs/NAME-2`, `runs/NAME-3` … that is not there yet.
fn free(name: &str) -> PathBuf {
    let first = PathBuf::from(format!("runs/{name}"));
    let numbered = (2..).map(|n| PathBuf::from(format!("runs/{name}-{n}")));
    let mut folders = std::iter::once(first.clone()).chain(numbered);
    folders.find(|f| !f.exists()).unwrap_or(first)
}
