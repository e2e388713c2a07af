//! What runs are to be made, and where.

use super::effect;
use super::resume::{checkpoint, has, resumed, stays};
use crate::experiment::Experiment;
use crate::find_lr;
use crate::flags::{EXPORT, LENGTH};
use crate::grid::{self, Cell};
use crate::halving;
use crate::layers::{self, Asked, Own};
use crate::program;
use crate::results::is_complete;
use crate::same::MARK;
use crate::say;
use crate::study;
use anyhow::{Result, bail};
use clap::ArgMatches;
use std::path::{Path, PathBuf};
use trainers::RunFolder;

/// The runs to make.
pub(super) struct Plan<A: Own> {
    /// What was asked for, as the text of a comparison's configuration.
    pub asked: String,
    /// The command that makes the runs.
    pub command: String,
    pub cells: Vec<Cell<A>>,
    pub out: PathBuf,
    /// The run, comparison or checkpoint to go on with.
    pub resume: Option<PathBuf>,
    /// Steps of a range test of the learning rate in the place of the runs.
    pub find_lr: Option<u64>,
    pub halving: bool,
    pub dry_run: bool,
}

impl<A: Own> Plan<A> {
    pub fn read<E: Experiment<Args = A>>(experiment: &E, matches: &ArgMatches) -> Result<Self> {
        let mut asked = Asked::<A>::read(matches)?;
        let on_the_command_line = asked.given.clone();
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
            find_lr::say_unused(&asked);
        }
        if invocation.find_lr.is_some() && asked.invocation.halving {
            bail!(
                "--find-lr: the settings have `halving`, which would search at its rates; take one of the two out"
            );
        }
        if asked.invocation.halving {
            halving::check(&cells)?;
        }
        if resume.is_none() {
            effect::check(&on_the_command_line, &cells)?;
        }
        if let (Some(_), [cell]) = (&resume, cells.as_slice())
            && is_complete(&cell.folder)
            && !has(cell, &LENGTH)
        {
            say!(
                "{}: it was complete, and goes on to another length; the schedule of the steps to come is that length's",
                cell.folder.display()
            );
        }
        let halving = asked.invocation.halving;
        let asked = asked.text()?;
        Ok(Self {
            command: match resume {
                None => program::command_line(),
                Some(_) => from_nothing(&asked, &cells, &out)?,
            },
            asked,
            cells,
            out,
            resume,
            find_lr: invocation.find_lr,
            halving,
            dry_run: invocation.dry_run,
        })
    }

    /// The runs with all their settings.
    pub fn text(&self) -> Result<String> {
        let mut text = format!("# {} runs\n", self.cells.len());
        let cells = match self.halving {
            true => {
                text += "# --halving: these, with a quarter of the epochs; then the better half with half of them, and the best \
                         quarter with all\n";
                halving::rung(&self.cells, 0, &[])
            }
            false => self.cells.clone(),
        };
        for cell in &cells {
            let state = match self.resume {
                Some(_) if self.is_done(cell) => "finished already",
                Some(_) if checkpoint(&cell.folder)?.is_some() => "goes on",
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

    pub fn several(&self) -> bool {
        self.cells.len() > 1
    }

    pub fn is_done(&self, cell: &Cell<A>) -> bool {
        // A run on its own can be of another length.
        let is_as_long = self.several() || has(cell, &LENGTH);
        self.resume.is_some() && is_complete(&cell.folder) && is_as_long && has(cell, &EXPORT)
    }

    /// A comparison's own folder, this process's alone.
    pub fn claim(&self) -> Result<Option<RunFolder>> {
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
}

/// The command that would make from nothing what was gone on with, which says nothing of how it was begun.
fn from_nothing<A: Own>(asked: &str, cells: &[Cell<A>], out: &Path) -> Result<String> {
    let mut asked = layers::parse(asked)?;
    // A run's settings are all there, those too that would be refused as they have no effect.
    asked.retain(|name, _| name != MARK && effect::is_read(name, cells));
    let mut command = program::command_name();
    for word in layers::arguments(&asked)? {
        command += &format!(" {}", program::quoted(&word.to_string_lossy()));
    }
    let out = program::quoted(&out.display().to_string());
    Ok(format!("{command} --out {out}"))
}

/// `runs/NAME`, or the first of `runs/NAME-2`, `runs/NAME-3` … that is not there yet.
fn free(name: &str) -> PathBuf {
    let first = PathBuf::from(format!("runs/{name}"));
    let numbered = (2..).map(|n| PathBuf::from(format!("runs/{name}-{n}")));
    let mut folders = std::iter::once(first.clone()).chain(numbered);
    folders.find(|f| !f.exists()).unwrap_or(first)
}
