//! The runs of a plan, one after the other.

use super::plan::Plan;
use super::resume::{checkpoint, has, strangers};
use super::shared::{self, Shared};
use super::shown;
use crate::experiment::{Experiment, Remarks};
use crate::find_lr;
use crate::flags::{EXPORT, LENGTH};
use crate::grid::Cell;
use crate::halving;
use crate::layers::Own;
use crate::outcome::{self, Beside};
use crate::program;
use crate::results::{Place, Run, is_complete};
use crate::same;
use crate::session::{self, Session};
use crate::{say, say_error};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use trainers::{Outcome, RunFolder, Summary};

/// How the runs ended.
pub(super) struct Ended {
    /// How many failed.
    pub failed: usize,
    /// Whether something was left undone, as it was asked to stop.
    pub stopped: bool,
}

/// What became of some runs.
#[derive(Default)]
struct Made {
    /// Which failed, and why.
    failed: Vec<String>,
    /// The folders of those.
    lost: Vec<PathBuf>,
    stopped: bool,
}

impl Made {
    fn fail<A: Own>(&mut self, cell: &Cell<A>, what: String) {
        say_error!("{what}");
        self.failed.push(what);
        self.lost.push(cell.folder.clone());
    }

    fn ended(&self) -> Ended {
        Ended {
            failed: self.failed.len(),
            stopped: self.stopped,
        }
    }
}

/// Whether a run failed because of what its steps made of the model, which is what a range test looks for.
fn ran_away(error: &anyhow::Error) -> bool {
    use trainers::Error::{Decoder, Diverged, NonFiniteEvaluation};
    error.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<trainers::Error>(),
            Some(Diverged { .. } | NonFiniteEvaluation { .. } | Decoder { .. })
        )
    })
}

impl<A: Own> Plan<A> {
    /// Makes the runs that are not complete.
    pub fn run<E: Experiment<Args = A>>(
        &self,
        experiment: &E,
        stop: &Arc<AtomicBool>,
    ) -> Result<Ended> {
        // What is wrong with the last run's settings shows before the first one begins.
        let mut devices: Vec<&str> = Vec::new();
        for cell in &self.cells {
            let device = cell.settings.run.device.as_str();
            if !devices.contains(&device) {
                program::device(device)?;
                devices.push(device);
            }
            Session::new(cell, None, false, stop)?.config.check()?;
            experiment.check(cell)?;
        }
        if self.resume.is_none() {
            RunFolder::check_free(&self.out)?;
        }
        let mut shared = Shared::<E>::default();
        // Before anything is written, and before the first run takes its hours: a folder that is not there shows first. The
        // first run's last, so that it is there.
        let open = self.cells.iter().filter(|cell| !self.is_done(cell));
        for cell in shared::one_of_each_source(open)?.into_iter().rev() {
            shared.load(experiment, cell, &self.out)?;
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
        if self.halving {
            return self.rungs(experiment, &mut shared, stop);
        }
        let made = self.make_all(experiment, &self.cells, &mut shared, stop, (&self.out, &[]))?;
        match self.find_lr {
            Some(steps) => self.print_test::<E>(&made, steps),
            None => {
                self.print(experiment, &self.cells, &self.out, &made.failed)?;
                Ok(made.ended())
            }
        }
    }

    /// What the runs of a range test propose that were made, or given up because they ran away.
    fn print_test<E: Experiment<Args = A>>(&self, made: &Made, steps: u64) -> Result<Ended> {
        if made.stopped {
            return Ok(made.ended());
        }
        let tested = self.cells.iter();
        let tested = tested.filter(|cell| !made.lost.contains(&cell.folder));
        let tested: Vec<Cell<A>> = tested.cloned().collect();
        let without_step = find_lr::print::<E>(&tested, steps, &self.out)?;
        Ok(Ended {
            failed: made.failed.len() + without_step,
            stopped: false,
        })
    }

    /// Successive halving. The last rung's figures are the comparison's, those of the others lie with their runs.
    fn rungs<E: Experiment<Args = A>>(
        &self,
        experiment: &E,
        shared: &mut Shared<E>,
        stop: &Arc<AtomicBool>,
    ) -> Result<Ended> {
        let (mut failed, mut kept) = (Vec::new(), Vec::new());
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
            let made = self.make_all(experiment, &cells, shared, stop, (&folder, &failed))?;
            let of_rung = made.failed.into_iter();
            failed.extend(of_rung.map(|what| format!("rung {}: {what}", index + 1)));
            if made.stopped {
                return Ok(Ended {
                    failed: failed.len(),
                    stopped: true,
                });
            }
            // With those of the rungs before: a choice that failed there was not dropped for its score.
            self.print(experiment, &cells, &folder, &failed)?;
            if index + 1 < halving::RUNGS.len() {
                kept = halving::best(&self.cells, &cells, index + 1);
            }
        }
        Ok(Ended {
            failed: failed.len(),
            stopped: false,
        })
    }

    /// The choices that were asked for and are none of these runs': those of a search that others were better than.
    fn dropped(&self, cells: &[Cell<A>]) -> Vec<Place> {
        let mut dropped: Vec<Place> = Vec::new();
        for Cell { place, .. } in &self.cells {
            if !dropped.contains(place) && cells.iter().all(|cell| cell.place != *place) {
                dropped.push(place.clone());
            }
        }
        dropped
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
                say_error!("{}", shown(&error));
                Remarks::default()
            });
            let beside = Beside {
                command: &self.command,
                failed,
                dropped: &self.dropped(cells),
            };
            outcome::print::<E>(experiment, cells, folder, remarks, &beside)
        })
    }

    /// Makes those of these runs that are not complete. What is known of them all so far, and what had failed before them,
    /// lies in a folder.
    fn make_all<E: Experiment<Args = A>>(
        &self,
        experiment: &E,
        cells: &[Cell<A>],
        shared: &mut Shared<E>,
        stop: &Arc<AtomicBool>,
        (folder, before): (&Path, &[String]),
    ) -> Result<Made> {
        let (done, left): (Vec<_>, Vec<_>) = cells.iter().partition(|cell| self.is_done(cell));
        if !done.is_empty() {
            say!(
                "{} of {} runs are finished already",
                done.len(),
                cells.len()
            );
        }
        if self.several() {
            self.check_done(&done, left.is_empty())?;
        }
        let mut made = Made::default();
        for cell in done {
            session::slim(&cell.folder, &cell.settings.run.keep)?;
            self.note_unreadable(cell, &mut made);
        }
        for cell in left {
            // One by itself is begun all the same: there has to be something to go on with.
            if self.several() && stop.load(Ordering::SeqCst) {
                made.stopped = true;
                break;
            }
            match self.make(experiment, (cell, cells), shared, stop) {
                Ok(summary) if matches!(summary.outcome, Outcome::Interrupted { .. }) => {
                    made.stopped = true;
                    break;
                }
                Ok(_) => self.note_unreadable(cell, &mut made),
                // It has shown what it was made for.
                Err(error) if self.find_lr.is_some() && ran_away(&error) => {
                    say_error!("{} failed: {}", cell.label(), shown(&error));
                }
                Err(error) if self.several() || self.find_lr.is_some() => {
                    let what = format!("{} failed: {}", cell.label(), shown(&error));
                    made.fail(cell, what);
                }
                Err(error) => return Err(error),
            }
            if self.compares() {
                let beside = Beside {
                    command: &self.command,
                    failed: &[before, &made.failed].concat(),
                    dropped: &self.dropped(cells),
                };
                outcome::write::<E>(experiment, cells, folder, None, &beside)?;
            }
        }
        Ok(made)
    }

    /// Whether there are runs that are shown beside each other.
    fn compares(&self) -> bool {
        self.several() && self.find_lr.is_none()
    }

    /// Refuses complete runs that those to come could not be compared with, or where none are to come, each other.
    fn check_done(&self, done: &[&Cell<A>], is_all: bool) -> Result<()> {
        if !is_all {
            return done.iter().copied().try_for_each(same::run);
        }
        let mut others = done.iter().filter(|cell| !has(cell, &LENGTH));
        match (others.next(), others.count() + 1 < done.len()) {
            // Of all of them it is a default that has become another one since.
            (Some(cell), true) => bail!(
                "{}: the run has another length than the comparison's others: it was made longer or shorter by itself, with \
                 --epochs, --max-steps or --patience, or a default has changed since: move it elsewhere, so that --resume makes it again, or begin another \
                 comparison with another --out",
                cell.folder.display()
            ),
            _ => Ok(()),
        }
    }

    /// One of several whose files cannot be read is named with those that failed, and the others are shown.
    fn note_unreadable(&self, cell: &Cell<A>, made: &mut Made) {
        if !self.compares() {
            return;
        }
        if let Err(error) = Run::of(cell) {
            let what = format!(
                "{} cannot be shown: {}; remove {} and go on with --resume to make it again",
                cell.label(),
                shown(&error),
                cell.folder.display()
            );
            made.fail(cell, what);
        }
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
