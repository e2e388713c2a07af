//! Embedding tables of which a step touches few rows.
//!
//! A gradient of the size of a table, in which all but some thousand rows are zero, would cost more
//! than the rest of a recommendation model's step. So a [`SparseTable`] is no variable. A lookup
//! copies the batch's rows, each once, into a fresh variable, the *leaf*; the model computes with the
//! leaf, the backward pass gives the leaf a gradient, and [`SparseOptimizer`] changes these rows of the
//! table and nothing else. The Hessian is taken over the variables of the dense part alone.

mod device;
mod optimizer;
mod owned;
mod update;

pub use crate::tables::{Lookup, Precision, SparseTable, check, load, save, unknown};
pub use optimizer::SparseOptimizer;
pub use update::{Accumulator, SparseRule};
