//! Embedding tables: their numbers, their files, looking rows up.

pub(crate) mod cell;
mod file;
mod mapped;
mod placed;
pub(crate) mod rows;
pub(crate) mod store;
mod table;

pub use file::{check, load, save, unknown};
pub(crate) use table::Leaf;
pub use table::{Lookup, Precision, SparseTable};
