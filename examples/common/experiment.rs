//! What tells one program from another: its flags, its defaults, and how a run of it is put together.

use crate::card::Card;
use crate::flags::Settings;
use crate::grid::{Axis, Cell};
use crate::layers::{Asked, Own};
use adahessian::{NamedVars, Optim};
use anyhow::Result;
use std::path::Path;

/// A program that trains. The driver makes its runs: flags, files, comparisons, resumption, reports.
pub trait Experiment {
    /// The flags that the others do not have.
    type Args: Own;
    /// What runs with the same own flags share; loaded once for all of them.
    type Data;

    /// The program's name, and that of its folders below `runs`.
    const NAME: &'static str;

    /// Own flags that may name several values: tasks, say.
    ///
    /// # Errors
    /// For a value that is none.
    fn axes(_own: &Self::Args) -> Result<Vec<Axis>> {
        Ok(Vec::new())
    }

    /// The optimizers where none was asked for, as a list.
    fn default_optimizer(_own: &Self::Args) -> &'static str {
        "adahessian"
    }

    /// The seeds where neither seeds nor optimizers were asked for, as a list.
    fn default_seeds(_own: &Self::Args) -> &'static str {
        "0"
    }

    /// The settings of a run where nothing was asked for. `asked` has one value for each axis, what was given,
    /// and the flags' own defaults; what was given goes before what is returned.
    ///
    /// # Errors
    /// For settings that do not fit each other.
    fn defaults(&self, asked: &Asked<Self::Args>) -> Result<Settings<Self::Args>>;

    /// Whether the settings of a run fit each other, as far as they say it by themselves: asked of all runs before
    /// anything is loaded for the first.
    ///
    /// # Errors
    /// If they do not.
    fn check(&self, _cell: &Cell<Self::Args>) -> Result<()> {
        Ok(())
    }

    /// Loads what the runs need; `out` is the folder of the run or the comparison.
    ///
    /// # Errors
    /// If it is not there, or damaged.
    fn load(&self, settings: &Settings<Self::Args>, out: &Path) -> Result<Self::Data>;

    /// Puts a run together and hands it to `session`, which trains it.
    ///
    /// # Errors
    /// With whatever part of it fails.
    fn run(
        &self,
        cell: &Cell<Self::Args>,
        data: &Self::Data,
        session: crate::session::Session,
    ) -> Result<trainers::Summary>;

    /// The columns of the table, by the scores' names; none for all of them.
    fn columns(&self) -> &'static [Column] {
        &[]
    }

    /// Rows of the table for comparison that no run has; `cell` is one that is complete.
    ///
    /// # Errors
    /// If they cannot be made.
    fn remarks(&self, _cell: &Cell<Self::Args>) -> Result<Remarks> {
        Ok(Remarks::default())
    }
}

/// One score in the table.
#[derive(Clone, Debug)]
pub struct Column {
    /// The score's name.
    pub score: &'static str,
    /// The head of the column.
    pub head: &'static str,
    /// What it is multiplied with: 100 for percent.
    pub factor: f64,
    /// Decimal places.
    pub places: usize,
}

impl Column {
    /// A score under a head, times a factor, with so many decimal places.
    pub const fn new(score: &'static str, head: &'static str, factor: f64, places: usize) -> Self {
        Self {
            score,
            head,
            factor,
            places,
        }
    }
}

/// What a program has to say about its table.
#[derive(Clone, Debug, Default)]
pub struct Remarks {
    /// A row that no run has, as its name and its scores.
    pub rows: Vec<(String, trainers::Scores)>,
}

/// The parts of a run.
pub struct Parts<T, B> {
    /// What is trained, and how it is evaluated.
    pub task: T,
    /// On what.
    pub batches: B,
    /// The variables that checkpoints hold.
    pub vars: NamedVars,
    /// With what.
    pub optimizer: Box<dyn Optim>,
    /// What is worth saying before the first step.
    pub announce: String,
    /// Writes what was trained into a folder, for other programs.
    pub export: Option<Export>,
    /// What the folder's README.md says of it.
    pub card: Card,
    /// How many checkpoints are kept besides the best one.
    pub keep_checkpoints: usize,
    /// A checksum of what is trained on, where that is made anew at each start: a run whose text or vocabulary is
    /// another one when it goes on would end as nonsense without an error.
    pub mark: Option<String>,
}

/// Writes what was trained into an empty folder.
pub type Export = Box<dyn FnMut(&Path) -> Result<()>>;
