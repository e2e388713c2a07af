//! The operations that networks are made of, right to the second derivative.
//!
//! candle has most of them, but several of its own versions lose the gradient silently, give a
//! wrong one for batches, or fail when differentiated twice. Every operation here is one struct of the
//! [`engine`](crate::engine): its definition, composed of candle operations whose first and second
//! derivatives were checked against finite differences, and on the CPU and most of them on CUDA
//! (`docs/CUDA_OPS.md`), in f32 and f64, a kernel that is one node of the graph with its derivatives written out.
//!
//! Functions take candle tensors or [`Handle`](crate::engine::Handle)s and give what they take. A chain of them on handles
//! saves a copy at each; in front of and behind it there is [`Handle::enter`](crate::engine::Handle::enter) and
//! [`Handle::exit`](crate::engine::Handle::exit). Weights are tensors, variables as a rule. Constants are made on the CPU
//! and moved to the operand's device.
//!
//! Each file says its equation, what is easily done wrong, and which operation of candle it avoids.

pub mod activation;
pub mod attention;
pub mod bags;
pub mod conv;
pub mod dropout;
pub mod embedding;
pub mod interaction;
pub mod linear;
pub mod loss;
pub mod multilinear;
pub mod norm;
pub mod pool;
pub mod product;
pub mod shape;

pub use activation::{Activation, activation};
pub use attention::attention;
pub use bags::{Bags, Pooling, bags};
pub(crate) use conv::batch_norm::one_value;
pub use conv::batch_norm::{BatchNorm, RunningStatistics, conv_batch_norm, statistics_at_rest};
pub use conv::{Convolution, Method, conv2d};
pub use dropout::{Dropout, Mode, dropout, residual};
pub use embedding::{EmbeddingTables, embedding, embedding_sum, scaled_sum_of_rows, sum_of_rows};
pub use interaction::interaction;
pub use linear::linear;
pub use loss::{binary_cross_entropy, cross_entropy, linear_cross_entropy, mse};
pub use multilinear::multilinear_attention;
pub use norm::{layer_norm, residual_layer_norm};
pub use pool::{Window, avg_pool2d, global_avg_pool2d, max_pool2d, subsample_channels};
pub use product::{add_rows, multiply_columns, products_of_rows};
pub use shape::{cat, first_positions, narrow, reshape};

use crate::error::{Error, Result};

/// The error of an argument that does not fit.
pub(crate) fn wrong<T>(
    what: &'static str,
    expected: impl Into<String>,
    got: impl Into<String>,
) -> Result<T> {
    Err(Error::Setting {
        what,
        expected: expected.into(),
        got: got.into(),
    })
}
