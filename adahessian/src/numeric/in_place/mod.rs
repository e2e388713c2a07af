//! Updates in place: one pass over memory for each variable, in parallel.
//!
//! candle's arithmetic makes a new tensor of the variable's size for every operation, on one thread;
//! a step of AdaHessian has about twenty of them. On the CPU, in f32 and f64, an update here reads
//! and writes every number once. Elsewhere the optimizers compose their step of candle's operations,
//! which is also what this one is tested against: entry by entry the arithmetic is the same, in the
//! same order.
//!
//! Work is cut into pieces of fixed size and sums are added up in the order of the pieces, so results
//! do not depend on the number of threads.

mod blocks;
mod entries;
mod product;
mod shorten;
mod slices;
mod squares;
mod sums;

pub(crate) use blocks::{Averaging, sizes};
pub(crate) use entries::{Clip, Entry, update, update_slices};
pub(crate) use product::{product, signed};
pub(crate) use shorten::pull_back;
pub(crate) use slices::{pieces, with_slices};
pub(crate) use squares::{squares_of, sum_of_squares};
pub(crate) use sums::{add_scaled, divide};

/// Entries that one thread works on at a time: a few arrays of them fit into a core's cache.
pub(crate) const PIECE: usize = 1 << 14;
