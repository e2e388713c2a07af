//! Where the files of a run lie.

use crate::checkpoint::{Checkpoints, is_checkpoint};
use crate::disk::{make_folder, write_whole};
use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of one run:
///
/// | file | content |
/// |---|---|
/// | `config.toml` | the whole configuration |
/// | `metrics.jsonl` | a line for each logged step and each evaluation |
/// | `events.out.tfevents.*` | the same for TensorBoard |
/// | `curves.svg` | the same as a picture |
/// | `checkpoint/` | see [`crate::checkpoint`] |
/// | `summary.json` | what came out |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// A new run's folder with its configuration.
    ///
    /// # Errors
    /// [`Error::RunFolder`] if there is something in the folder already: another run, finished or
    /// not, is never written over. [`Error::Io`] if it cannot be made.
    pub fn create(path: impl Into<PathBuf>, config: &str) -> Result<Self> {
        let path = path.into();
        let error = || Error::io("cannot read the run's folder", &path);
        make_folder(&path)?;
        let refuse = |what| {
            let path = path.clone();
            Err(Error::RunFolder { path, what })
        };
        if fs::read_dir(&path).map_err(error())?.next().is_some() {
            return match path.join("checkpoint").is_dir() {
                true => refuse("holds a run already: go on with --resume, or choose another --out"),
                false => refuse("is not empty and holds no run: choose another --out"),
            };
        }
        let folder = Self { path };
        write_whole(&folder.config(), config.as_bytes())?;
        Ok(folder)
    }

    /// The folder of a run to go on with, from its path or that of one of its checkpoints.
    ///
    /// # Errors
    /// [`Error::RunFolder`] if it is neither.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // `RUN`, `RUN/checkpoint` or `RUN/checkpoint/step-00000120`.
        let found = path
            .ancestors()
            .take(3)
            .find(|p| p.join("checkpoint").is_dir());
        match found {
            Some(run) => Ok(Self { path: run.into() }),
            None => Err(Error::RunFolder {
                path: path.into(),
                what: "is neither a run's folder with checkpoints nor one of its checkpoints",
            }),
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.toml`.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `curves.svg`.
    pub fn curves(&self) -> PathBuf {
        self.path.join("curves.svg")
    }

    /// `summary.json`.
    pub fn summary(&self) -> PathBuf {
        self.path.join("summary.json")
    }

    /// `checkpoint/`.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.path.join("checkpoint"))
    }
}

/// The checkpoint that a path means: itself, or the newest of a run's folder.
pub(crate) fn find_checkpoint(path: &Path) -> Result<PathBuf> {
    if is_checkpoint(path) {
        return Ok(path.into());
    }
    let inside = path.join("checkpoint");
    let folder = if inside.is_dir() { inside } else { path.into() };
    Checkpoints::new(folder).latest()?.ok_or_else(|| Error::NoCheckpoint {
        path: path.into(),
        what: "no checkpoint here; give a run's folder or one of its checkpoints, or start the run anew",
    })
}
