//! The operations of transformers as fused operations of the [engine](super::engine), each with its
//! exact first and second derivatives.
//!
//! Each takes and gives [`Handle`](super::Handle)s; on handles that are not fused (another device, or
//! made by [`Handle::composed`](super::Handle::composed)) it is the function of the same name in
//! [`crate::ops`], which is also what it is tested against.

mod attention;
mod cross_entropy;
mod curve;
mod groups;
mod heads;
mod linear;
mod mask;
mod mse;
mod norm;
mod norm_rows;
mod product;
mod residual;
mod row_maps;
mod rows;
mod score_rows;
mod vectors;

pub use attention::attention;
pub use cross_entropy::cross_entropy;
pub use linear::linear;
pub use mse::mse;
pub use norm::layer_norm;
pub use residual::residual;
pub(crate) use row_maps::{Linear, Map};
pub use row_maps::{dropout, embedding_sum, first_position, first_positions};
