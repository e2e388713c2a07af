//! Plain computations on slices: number types, memory that is used again, vector instructions, sums,
//! products of matrices. Nothing here knows of differentiation.
//!
//! Sums are added up in an order that depends neither on the number of threads nor on the processor.

mod buffer;
mod dtype;
mod functions;
mod product;
mod real;
mod rows;
pub(crate) mod simd;
mod sums;

pub use buffer::Buffer;
pub(crate) use dtype::{hidden_score, lowest, precision, wide};
pub(crate) use product::{Matrix, Onto, Target, multiply, multiply_at};
pub use real::Real;
pub(crate) use real::sealed::Memory;
pub(crate) use rows::{FEW, add, column_sums, in_order, rows_in_piece};
pub(crate) use sums::{dot, largest, sums};
