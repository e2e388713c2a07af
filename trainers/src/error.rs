//! What can go wrong: which file, step or setting, what was expected, what was found, the way out.

use std::path::{Path, PathBuf};

/// The result of everything fallible in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The optimizer or a backward pass failed.
    #[error(transparent)]
    Optimizer(#[from] adahessian::Error),

    /// candle refused an operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),

    /// A batch could not be made.
    #[error(transparent)]
    Data(Box<datasets::Error>),

    /// A task, a source of batches or a callback of the program failed; see [`Error::user`].
    #[error(transparent)]
    User(Box<dyn std::error::Error + Send + Sync>),

    /// A file or folder that cannot be read or written.
    #[error("{}: {what}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A setting outside its range.
    #[error("{what}: expected {expected}, got {got}")]
    Setting {
        /// The setting's name.
        what: &'static str,
        /// The allowed values.
        expected: String,
        /// The value given.
        got: String,
    },

    /// Predictions that a metric cannot compare with their targets.
    #[error("metric {metric}: expected {expected}, got {got}")]
    Metric {
        /// The metric's name.
        metric: &'static str,
        /// What it needs.
        expected: &'static str,
        /// What was given.
        got: String,
    },

    /// A batch that the task cannot use.
    #[error("batch: expected {expected}, got {got}")]
    Batch {
        /// What the task needs.
        expected: String,
        /// What was given.
        got: String,
    },

    /// A checkpoint that was cut, changed or never finished.
    #[error("checkpoint {}: {file}: {reason}; {}", path.display(), way_out(previous.as_deref()))]
    Corrupt {
        /// The checkpoint's folder.
        path: PathBuf,
        /// The damaged file in it.
        file: String,
        /// What is wrong with the file.
        reason: String,
        /// The newest other checkpoint beside it that is intact.
        previous: Option<PathBuf>,
    },

    /// An intact checkpoint of another model or another run.
    #[error(
        "checkpoint {}: {what}: expected {expected}, got {got}; \
         resume with the model, the optimizer and the data that the run was started with",
        path.display()
    )]
    Mismatch {
        /// The checkpoint's folder.
        path: PathBuf,
        /// The variable or the entry.
        what: String,
        /// What this program needs.
        expected: String,
        /// What the checkpoint holds.
        got: String,
    },

    /// A path where no checkpoint is.
    #[error("{}: {what}", path.display())]
    NoCheckpoint {
        /// The path given.
        path: PathBuf,
        /// What is missing and what to do.
        what: &'static str,
    },

    /// A folder that must not become, or is not, a run's folder.
    #[error("{}: {what}", path.display())]
    RunFolder {
        /// The folder.
        path: PathBuf,
        /// Why not, and what to do.
        what: &'static str,
    },

    /// A folder in which another run is at work.
    #[error(
        "{}: another run{} is at work here: wait for its end, or choose another folder",
        path.display(), named(by.as_deref())
    )]
    InUse {
        /// The folder of the run, or of its checkpoints.
        path: PathBuf,
        /// Who it is, where that can be told.
        by: Option<String>,
    },

    /// The training gave up because gradients stayed non-finite.
    #[error("{source}; {}", last_good(checkpoint.as_deref()))]
    Diverged {
        /// The optimizer's error.
        source: Box<adahessian::Error>,
        /// The last checkpoint of the run, which was made before.
        checkpoint: Option<PathBuf>,
    },

    /// An evaluation whose result is not a number.
    #[error("the evaluation at step {step} gave {metric} = {value}; {}", last_good(checkpoint.as_deref()))]
    NonFiniteEvaluation {
        /// The number of steps taken.
        step: u64,
        /// The first metric that is not finite.
        metric: String,
        /// Its value.
        value: f64,
        /// The last checkpoint of the run, which was made before.
        checkpoint: Option<PathBuf>,
    },

    /// An answer of a decoder that cannot be searched.
    #[error("step {step} of the search: {what}: expected {expected}, got {got}")]
    Decoder {
        /// The number of steps taken before.
        step: usize,
        /// Where in the answer, or which sentence.
        what: String,
        /// What the search needs.
        expected: String,
        /// What was found.
        got: String,
    },

    /// Files of variables that have no mean.
    #[error("{}: {what}: expected {expected}, got {got}; average checkpoints of one run", path.display())]
    Average {
        /// The file, or the checkpoint's folder.
        path: PathBuf,
        /// The tensor, or the file.
        what: String,
        /// What the first file has.
        expected: String,
        /// What this one has.
        got: String,
    },

    /// A line or a record of a log that cannot be used.
    #[error("{}: {what}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with the line where there are lines.
        what: String,
    },
}

impl Error {
    /// Wraps an error of the program, for tasks, batches and callbacks.
    pub fn user(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::User(error.into())
    }

    /// For `map_err` after a file operation.
    pub(crate) fn io(
        what: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Error::Io { path, what, source }
    }
}

/// Boxed, so that results stay small.
impl From<datasets::Error> for Error {
    fn from(error: datasets::Error) -> Self {
        match error {
            datasets::Error::User(error) => Error::User(error),
            other => Error::Data(Box::new(other)),
        }
    }
}

fn way_out(previous: Option<&Path>) -> String {
    match previous {
        Some(path) => format!(
            "resume from the previous intact checkpoint with --resume {}",
            path.display()
        ),
        None => "no other intact checkpoint lies beside it: start the run again".into(),
    }
}

fn named(by: Option<&str>) -> String {
    by.map(|by| format!(" ({by})")).unwrap_or_default()
}

fn last_good(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(path) => format!("the last checkpoint is {}", path.display()),
        None => "there is no checkpoint yet".into(),
    }
}
