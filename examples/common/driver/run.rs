//! The runs of a plan, one after the other.

use super::plan::Plan;
use super::resume::{checkpoint, has, strangers};
use super::shared::Shared;
use super::shown;
use crate::experiment::{Experiment, Remarks};
use crate::find_lr;
use crate::flags::EXPORT;
use crate::grid::Cell;
use crate::halving;
use crate::layers::Own;
use crate::outcome;
use crate::program;
use crate::results::is_complete;
use crate::same;
use crate::say;
use crate::session::{self, Session};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use trainers::{Outcome, RunFolder, Summary};

impl<A: Own> Plan<A> {
    /// Makes the runs that are not complete; how many failed.
    pub fn run<E: Experiment<Args = A>>(
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
                say!(
                    "{}: no run of what is asked for: it stays, and is not compared",
                    folder.display()
                );
            }
        }
        if let Some(steps) = self.find_lr {
            // A run that is given up because it ran away has shown what it was made for.
            let _failed = self.make_all(experiment, &self.cells, &mut shared, stop, &self.out)?;
            if stop.load(Ordering::SeqCst) {
                return Ok(0);
            }
            return find_lr::print::<E>(&self.cells, steps, &self.out);
        }
        if self.halving {
            return self.rungs(experiment, &mut shared, stop);
        }
        let failed = self.make_all(experiment, &self.cells, &mut shared, stop, &self.out)?;
        self.print(experiment, &self.cells, &self.out, &failed)?;
        Ok(failed.len())
    }

    /// Successive halving; how many runs failed. The last rung's figures are the comparison's, those of the others lie
    /// with their runs.
    fn rungs<E: Experiment<Args = A>>(
        &self,
        experiment: &E,
        shared: &mut Shared<E>,
        stop: &Arc<AtomicBool>,
    ) -> Result<usize> {
        let (mut count, mut kept) = (0, Vec::new());
        for index in 0..halving::RUNGS.len() {
            let cells = halving::rung(&self.cells, index, &kept);
            let folder = match index + 1 == halving::RUNGS.len() {
                true => self.out.clone(),
                false => halving::folder(&self.out, index),
            };
            say!(
                "rung {} of {}: {} runs",
                index + 1,
                halving::RUNGS.len(),
                cells.len()
            );
            let failed = self.make_all(experiment, &cells, shared, stop, &folder)?;
            count += failed.len();
            if stop.load(Ordering::SeqCst) {
                break;
            }
            self.print(experiment, &cells, &folder, &failed)?;
            if index + 1 < halving::RUNGS.len() {
                kept = halving::best(&self.cells, &cells, index + 1)?;
            }
        }
        Ok(count)
    }

    /// The table of these runs, as far as they are complete, and its files in a folder; what became of the others.
    fn print<E: Experiment<Args = A>>(
        &self,
        experiment: &E,
        cells: &[Cell<A>],
        folder: &Path,
        failed: &[String],
    ) -> Result<()> {
        let last = cells.iter().rfind(|cell| is_complete(&cell.folder));
        last.map_or(Ok(()), |cell| {
            // What was trained is shown without them, too.
            let remarks = experiment.remarks(cell).unwrap_or_else(|error| {
                eprintln!("{}", shown(&error));
                Remarks::default()
            });
            outcome::print::<E>(experiment, cells, folder, remarks, failed)
        })
    }

    /// Makes those of these runs that are not complete; which failed, and why. What is known of them all so far lies in a
    /// folder.
    fn make_all<E: Experiment<Args = A>>(
        &self,
        experiment: &E,
        cells: &[Cell<A>],
        shared: &mut Shared<E>,
        stop: &Arc<AtomicBool>,
        folder: &Path,
    ) -> Result<Vec<String>> {
        let finished = cells.iter().filter(|cell| self.is_done(cell)).count();
        if finished > 0 {
            say!("{finished} of {} runs are finished already", cells.len());
        }
        let (done, left): (Vec<_>, Vec<_>) = cells.iter().partition(|cell| self.is_done(cell));
        if self.several() && !left.is_empty() {
            done.iter().copied().try_for_each(same::run)?;
        }
        for cell in done {
            session::slim(&cell.folder, &cell.settings.run.keep)?;
        }
        let mut failed = Vec::new();
        for cell in left {
            match self.make(experiment, (cell, cells), shared, stop) {
                Ok(summary) if matches!(summary.outcome, Outcome::Interrupted { .. }) => break,
                Ok(_) => {}
                Err(error) if self.several() || self.find_lr.is_some() => {
                    let what = format!("{} failed: {}", cell.label(), shown(&error));
                    eprintln!("{what}");
                    failed.push(what);
                }
                Err(error) => return Err(error),
            }
            if self.several() && self.find_lr.is_none() {
                outcome::write::<E>(experiment, cells, folder, None, &failed)?;
            }
            if stop.load(Ordering::SeqCst) {
                break;
            }
        }
        Ok(failed)
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
