//! The parts of a data set.

use std::fmt;

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// For fitting.
    Train,
    /// For choosing and reporting (`dev` in the GLUE download, `val` in ImageNet).
    Validation,
    /// For reporting alone; without labels in GLUE and ImageNet.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        })
    }
}
