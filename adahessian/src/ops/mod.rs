//! The operations that language models are made of, right to the second derivative.
//!
//! candle has most of them, but several of its own versions lose the gradient silently, give a
//! wrong one for batches, or fail when differentiated twice. Every function here is composed of
//! candle operations whose first and second derivatives were checked against finite differences on
//! f64, and works alike on every device: constants are made on the CPU and moved to the input's
//! device.
//!
//! On the CPU most of them have a faster form: [`text`] and [`vision`] are the same operations as
//! single nodes of the [`engine`], with their derivatives written out. Models are made of those; the
//! functions here are what they are tested against, and what they fall back to on other devices.
//!
//! Each file says its equation, what is easily done wrong, and which operation of candle it avoids.

pub mod activation;
pub mod attention;
pub mod bce;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod engine;
pub mod interaction;
pub mod layer_norm;
pub mod linear;
mod math;
pub mod mse;
pub mod recommend;
pub(crate) mod simd;
pub mod text;
pub mod vision;

pub use activation::{Activation, gelu};
pub use attention::attention;
pub use bce::binary_cross_entropy;
pub use cross_entropy::cross_entropy;
pub use dropout::{Dropout, Mode, dropout};
pub use embedding::{EmbeddingTables, embedding, embedding_layer_norm};
pub use engine::Handle;
pub use interaction::interaction;
pub use layer_norm::{layer_norm, residual_layer_norm};
pub use linear::{grouped_linear, linear, linear_activation};
pub use mse::mse;

use crate::error::{Error, Result};

/// The error of an argument that does not fit.
fn wrong<T>(what: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Result<T> {
    Err(Error::Setting {
        what,
        expected: expected.into(),
        got: got.into(),
    })
}
