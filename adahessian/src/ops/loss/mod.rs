//! Losses: each the mean over rows, a scalar.

mod binary_cross_entropy;
mod cross_entropy;
mod linear_cross_entropy;
mod mse;
mod targets;
mod tensors;

pub use binary_cross_entropy::binary_cross_entropy;
pub use cross_entropy::cross_entropy;
pub use linear_cross_entropy::linear_cross_entropy;
pub use mse::mse;
