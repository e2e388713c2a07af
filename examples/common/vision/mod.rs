//! What the image examples share: comparisons of optimizers over seeds, from flags to one picture.

pub mod compare;
pub mod data;
pub mod picture;
pub mod plan;
pub mod run;
pub mod settings;

pub use compare::compare;
pub use data::Data;
pub use settings::{Options, VisionSettings};

use anyhow::Result;

/// What tells one image example from another.
pub struct Benchmark {
    /// Its name, and that of the folder of its runs.
    pub name: &'static str,
    /// The settings that nothing else sets, but for those that depend on the optimizer.
    pub defaults: VisionSettings,
    /// The same with `--synthetic`, over `defaults`.
    pub synthetic: VisionSettings,
    /// The k of a second accuracy.
    pub top: Option<usize>,
    /// Loads the pictures.
    pub load: fn(&VisionSettings) -> Result<Data>,
}
