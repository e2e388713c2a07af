//! Layers, losses and functions under `candle_nn`'s names, exact to the second derivative.
//!
//! A program written with `candle_nn` is ported by its imports: `candle_nn` becomes `adahessian::nn`,
//! and every path below it stays (`nn::ops::softmax_last_dim`, `nn::rotary_emb::rope`,
//! `nn::loss::cross_entropy`, `nn::linear`). Constructors, config structs, names and shapes of variables
//! are candle's, so that a checkpoint of the one is a checkpoint of the other; builders, initialisations
//! and traits *are* candle's.
//!
//! ```
//! use adahessian::{AdaHessian, NamedVars, Optim, nn};
//! use candle_core::{DType, Device, Tensor};
//! use nn::{Module, VarBuilder, VarMap};
//!
//! let map = VarMap::new();
//! let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
//! let model = nn::seq()
//!     .add(nn::linear(4, 8, vb.pp("first"))?)
//!     .add(nn::Activation::Gelu)
//!     .add(nn::layer_norm(8, 1e-5, vb.pp("norm"))?)
//!     .add(nn::linear(8, 3, vb.pp("last"))?);
//! let mut optimizer = AdaHessian::builder().build(&NamedVars::from(&map))?;
//! let x = Tensor::randn(0f32, 1.0, (5, 4), &Device::Cpu)?;
//! let classes = Tensor::new(&[0u32, 2, 1, 1, 0], &Device::Cpu)?;
//! let loss = nn::loss::cross_entropy(&model.forward(&x)?, &classes)?;
//! optimizer.backward_step(&loss)?;
//! # Ok::<(), adahessian::Error>(())
//! ```
//!
//! What candle loses at the first or second order (see `docs/CANDLE_OPS.md`) is made anew here; what it
//! has right is handed on. On the CPU, in f32 and f64, linear maps, layer norms, convolutions, pooling,
//! attention, embeddings, GELU, ReLU and SiLU, and cross entropy are single fused operations, on CUDA the same but pooling
//! (`docs/CUDA_OPS.md`); everything else, and every other device, is composed of candle operations that
//! are right.
//!
//! # Where an import is not enough
//! * Methods of candle's `Tensor` keep their derivatives, and some are wrong without an error. In the
//!   place of `x.max_pool2d(2)` and `x.avg_pool2d(2)` call [`pooling::max_pool2d`] and
//!   [`pooling::avg_pool2d`]; of `x.gather(..)`, `x.scatter(..)` and `x.scatter_add(..)`
//!   [`index::gather`], [`index::scatter`] and [`index::scatter_add`]; of `x.conv1d(..)` a [`Conv1d`]; of
//!   `x.upsample_nearest2d(..)` [`resize::upsample_nearest2d`]; of `x.gelu_erf()` [`Activation::Gelu`]. A
//!   batch of transposed matrices that is multiplied with one that is broadcast needs `.contiguous()`.
//!   `docs/CANDLE_OPS.md` has all, with what was measured of each.
//! * candle takes the largest number of an index's type (255 of bytes, `u32::MAX`) for no index, and gives zeros: here
//!   it is an index like any other, refused where there is no such row. Multiply by a mask in its place, or give
//!   [`ops::cross_entropy`](crate::ops::cross_entropy) an `ignore_index`.
//! * A batch norm in half precision has its running statistics in f32. A [`VarBuilder`] of a file that candle wrote, with
//!   them in half precision, converts them; `VarMap::load` does not.
//! * Dropout draws masks that are functions of seed, step and place, so a training pass runs inside
//!   [`with_masks`].
//!
//! # What is not here
//! `candle_nn`'s `attention`, `cpu_flash_attention`, `varlen_attention`, `moe` and `kv_cache` are for
//! inference and have no derivatives: [`MultiHeadAttention`] and [`ops::sdpa`] are in their place. Its
//! `sampling` draws from a generator that cannot be seeded.

pub mod activation;
pub mod batch_norm;
pub mod conv;
mod conv_batch_norm;
mod dropout;
pub mod embedding;
pub mod group_norm;
pub mod index;
pub mod layer_norm;
pub mod linear;
pub mod loss;
mod masks;
pub mod multi_head;
pub mod ops;
pub mod pooling;
pub mod resize;
pub mod rotary_emb;
mod variable;

pub use activation::{Activation, PReLU, prelu};
pub use batch_norm::{BatchNorm, BatchNormConfig, batch_norm};
pub use conv::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    ConvTranspose2d, ConvTranspose2dConfig, conv_transpose1d, conv_transpose1d_no_bias,
    conv_transpose2d, conv_transpose2d_no_bias, conv1d, conv1d_no_bias, conv2d, conv2d_no_bias,
};
pub use conv_batch_norm::{ConvBatchNorm, ConvBatchNormConfig, conv_batch_norm};
pub use dropout::Dropout;
pub use embedding::{Embedding, embedding, embedding_with};
pub use group_norm::{GroupNorm, group_norm};
pub use layer_norm::{
    LayerNorm, LayerNormConfig, RmsNorm, layer_norm, layer_norm_no_bias, rms_norm,
};
pub use linear::{
    Linear, LinearConfig, linear, linear_b, linear_grouped, linear_no_bias, linear_with,
};
pub use masks::with_masks;
pub use multi_head::{MultiHeadAttention, MultiHeadAttentionConfig, multi_head_attention};
pub use pooling::{
    AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d, adaptive_avg_pool2d, avg_pool2d,
    global_avg_pool2d, max_pool2d,
};
pub use variable::variable;

// Right in candle_nn, and its own.
pub use candle_nn::{
    AdamW, Func, FuncT, GRU, GRUConfig, Init, LSTM, LSTMConfig, Module, ModuleT, Optimizer,
    ParamsAdamW, RNN, SGD, Sequential, VarBuilder, VarMap, func_t, gru, lstm, seq,
};
pub use candle_nn::{encoding, func, init, optim, rnn, sequential, var_builder, var_map};

use crate::error::Error;
use candle_core::Result;

/// The error of an argument that does not fit, on its way through candle's `Module`.
fn wrong<T>(
    what: &'static str,
    expected: impl Into<String>,
    got: impl std::fmt::Debug,
) -> Result<T> {
    let (expected, got) = (expected.into(), format!("{got:?}"));
    Err(Error::Setting {
        what,
        expected,
        got,
    }
    .into())
}
