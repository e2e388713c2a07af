//! What can go wrong when a model is opened or run: which tensor, file or field, what was
//! expected, what was found, and the way out.

use std::path::PathBuf;

/// The result of everything fallible in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every error of this crate. It converts into [`adahessian::Error`] and [`candle_core::Error`], so
/// `?` works in functions that return theirs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// candle refused an operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),

    /// An operation of [`adahessian::ops`] refused its arguments.
    #[error(transparent)]
    AdaHessian(#[from] adahessian::Error),

    /// A file that cannot be read or written as what it should be.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },

    /// A tensor that the model needs and the checkpoint does not have.
    #[error(
        "{file}: no tensor `{name}` (looked for {tried:?} among {count} tensors): is this a checkpoint of another architecture or of fewer layers?"
    )]
    MissingTensor {
        /// The tensor's name in this crate's checkpoints.
        name: String,
        /// The checkpoint.
        file: PathBuf,
        /// All names looked for.
        tried: Vec<String>,
        /// How many tensors there are.
        count: usize,
    },

    /// A tensor of another shape than the configuration says.
    #[error(
        "{file}: tensor `{name}` should have shape {expected:?}, it has {got:?}: do config.json, the number of labels and the checkpoint belong together?"
    )]
    TensorShape {
        /// The tensor's name in the file.
        name: String,
        /// The file it is in.
        file: PathBuf,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
        /// The shape found.
        got: Vec<usize>,
    },

    /// A tensor that is not of floating point numbers.
    #[error(
        "{file}: tensor `{name}` should be one of F16, BF16, F32, F64, it is {got}: quantised checkpoints cannot be trained"
    )]
    TensorType {
        /// The tensor's name in the file.
        name: String,
        /// The file it is in.
        file: PathBuf,
        /// The type found.
        got: String,
    },

    /// A field of a configuration that is missing or has a value that is not supported.
    #[error("configuration field `{field}`: expected {expected}, got {got}")]
    Config {
        /// The field of config.json.
        field: &'static str,
        /// What is supported.
        expected: String,
        /// What was found.
        got: String,
    },

    /// A configuration of another architecture.
    #[error("{path}: model_type is `{got}`, expected {expected}")]
    Architecture {
        /// The configuration file.
        path: PathBuf,
        /// The architecture or architectures asked for.
        expected: String,
        /// The one found.
        got: String,
    },

    /// A checkpoint's classifier was trained for other labels, or the same in another order.
    #[error(
        "the checkpoint's labels are {got:?}, the task's {expected:?}: other names or another order; begin with a fresh \
         classifier (Start::new_head, --new-head), or take the task's data in the checkpoint's order"
    )]
    Labels {
        /// The task's names, by number.
        expected: Vec<String>,
        /// The checkpoint's.
        got: Vec<String>,
    },

    /// An input that the model cannot take.
    #[error("{what}: expected {expected}, got {got}")]
    Input {
        /// Which input.
        what: &'static str,
        /// What the model takes.
        expected: String,
        /// What was given.
        got: String,
    },
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>, what: impl ToString) -> Self {
        Self::File {
            path: path.into(),
            what: what.to_string(),
        }
    }
}

impl From<Error> for adahessian::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::AdaHessian(error) => error,
            other => Self::Candle(other.into()),
        }
    }
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            Error::AdaHessian(error) => error.into(),
            other => candle_core::Error::wrap(other),
        }
    }
}
