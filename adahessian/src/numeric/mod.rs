//! Plain computations on slices: number types, memory that is used again, vector instructions, sums,
//! products of matrices, whole tensors in one pass. Nothing here knows of differentiation.
//!
//! Sums are added up in an order that depends neither on the number of threads nor on the processor; products of matrices,
//! gemm's, in one that depends on the processor's caches and vectors, and not on the number of threads.

mod buffer;
pub(crate) mod columns;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod dtype;
mod end_to_end;
pub(crate) mod formula;
mod functions;
pub(crate) mod in_place;
pub(crate) mod listed;
mod log_1p;
pub(crate) mod parallel;
mod power;
mod product;
mod real;
mod rows;
pub(crate) mod simd;
mod sum_of_products;
mod sums;
mod total;
pub(crate) mod traced;

pub use buffer::{Buffer, empty_cache};
pub(crate) use dtype::{
    ByType, by_type, hidden_score, is_half, lowest, precision, summable, wide, widened,
};
pub(crate) use end_to_end::{AT_ONCE, end_to_end, in_memory, portions};
pub(crate) use log_1p::log_1p;
pub(crate) use power::power;
pub(crate) use product::{Matrix, Onto, Target, multiply, multiply_at};
pub use real::Real;
pub(crate) use real::sealed::Memory;
pub(crate) use rows::{FEW, add, column_sums, each_row, in_order, rows_in_piece};
pub(crate) use sum_of_products::SumOfProducts;
pub(crate) use sums::{dot, largest, sums};
pub(crate) use total::{Totals, largest_entry, sum_f64, total_on_device};
