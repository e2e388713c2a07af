//! What a preparation tells while it works.

/// Which of its passes a preparation is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The text is read.
    Reading,
    /// Values are replaced by their ids.
    Numbering,
}

/// How far a preparation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The pass.
    pub phase: Phase,
    /// Bytes of the text files read, packed if they are.
    pub bytes: u64,
    /// Bytes of all text files.
    pub bytes_in_all: u64,
    /// Rows the pass has done.
    pub rows: u64,
}
