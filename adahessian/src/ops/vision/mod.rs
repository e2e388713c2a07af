//! The operations that convolutional networks are made of: convolution, batch normalisation,
//! residual addition, activation and pooling.
//!
//! They take and return [`Handle`](super::Handle)s. On the CPU, in f32 and f64, each is one fused operation of the
//! two-level [`engine`](super::engine); on other devices, and for handles made with
//! [`Handle::composed`](super::Handle::composed), each is composed of candle operations that are right to the second
//! derivative. The composed forms are what the fused ones are tested against.
//!
//! Images are [N, C, H, W], kernels [out, in/groups, KH, KW].

mod at_rest;
pub(crate) mod composed;
pub mod conv2d;
pub mod conv_batch_norm;
pub(crate) mod kernels;
mod linear_maps;
mod normalised;
mod plain;
pub mod pooling;
mod rows;
pub mod subsample;

pub use at_rest::statistics_at_rest;
pub use conv_batch_norm::{BatchNorm, RunningStatistics, VisionActivation, conv_batch_norm};
pub use conv2d::{Convolution, Method, conv2d};
pub use pooling::{Pooling, avg_pool2d, global_avg_pool2d, max_pool2d};
pub use subsample::subsample_channels;
