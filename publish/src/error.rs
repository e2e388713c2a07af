//! What can go wrong, and the way out.

use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why nothing was pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system could not read a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A folder that is no model.
    #[error(
        "{}: no {missing}; expected the folder `model` of a run, with config.json and model.safetensors",
        path.display()
    )]
    NoModel {
        /// The folder.
        path: PathBuf,
        /// What it lacks.
        missing: &'static str,
    },
    /// A file that cannot be what its name says.
    #[error("{}: {what}; export the model again, a file like this loads nowhere", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A name that no repository has.
    #[error("repository {got:?}: expected OWNER/NAME of letters, digits, `-`, `_` and `.`")]
    Name {
        /// What was given.
        got: String,
    },
    /// A setting of the environment under which nothing can be pushed.
    #[error("{name}: {what}")]
    Setting {
        /// The variable.
        name: &'static str,
        /// What is wrong, and what to do.
        what: String,
    },
    /// No server answered.
    #[error("{endpoint} cannot be reached: {reason}; nothing was pushed, as far as is known")]
    Unreachable {
        /// The server's address.
        endpoint: String,
        /// The network's reason.
        reason: String,
    },
    /// The server answered that it will not.
    #[error("the Hub refused {what} {repo}: {reason}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The repository.
        repo: String,
        /// The server's answer, and what to do.
        reason: String,
    },
}
