//! The operations of recommendation models as fused operations of the [engine](super::engine), each
//! with its exact first and second derivatives.
//!
//! As in [`super::text`], each is the function of the same name in [`crate::ops`] on handles that are
//! not fused, and is tested against it.

mod bags;
mod bce;
mod interaction;

pub use bags::{Bags, Pooling, bags};
pub use bce::binary_cross_entropy;
pub use interaction::interaction;
