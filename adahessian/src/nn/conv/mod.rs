//! Convolutions and transposed convolutions, after `candle_nn::conv`.
//!
//! candle's `conv1d` has a wrong kernel gradient for batches and no second derivative, its
//! `conv_transpose1d` is wrong for batches, its `conv2d` fails backwards where height and width leave
//! different remainders. Here a one-dimensional convolution is a two-dimensional one of height 1, and a
//! transposed one is a convolution of the input with zeros between its entries.

mod make;
mod plain;
mod spread;
mod transposed;

pub use candle_nn::conv::{
    Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig,
};
pub use make::{
    conv_transpose1d, conv_transpose1d_no_bias, conv_transpose2d, conv_transpose2d_no_bias, conv1d,
    conv1d_no_bias, conv2d, conv2d_no_bias,
};
pub(super) use make::{kernel_with, part};
pub use plain::{Conv1d, Conv2d};
pub use transposed::{ConvTranspose1d, ConvTranspose2d};
