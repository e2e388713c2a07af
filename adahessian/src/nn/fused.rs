//! Where the layers meet the operations: tensors in, tensors out.
//!
//! The one file of this room that knows how an operation is called. A tensor on the CPU in f32 or f64 goes
//! through a fused operation, every other through the composed one.

use crate::error::Result;
use crate::ops::vision::{self, Convolution, Pooling, RunningStatistics};
use crate::ops::{self, Activation, Dropout, Handle, text};
use candle_core::{Tensor, Var};

/// act(x Wᵀ + b) over the last dimension, in groups.
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    groups: usize,
    activation: Activation,
) -> Result<Tensor> {
    text::linear(&Handle::enter(x)?, weight, bias, groups, activation)?.exit()
}

/// A layer norm over the last dimension.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let x = Handle::enter(x)?;
    text::layer_norm(&x, None, &Dropout::none(), weight, bias, eps)?.exit()
}

/// A convolution of [N, C, H, W].
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    conv: &Convolution,
) -> Result<Tensor> {
    vision::conv2d(&Handle::enter(x)?, weight, bias, conv)?.exit()
}

/// The maximum of square windows.
pub fn max_pool2d(x: &Tensor, pooling: &Pooling) -> Result<Tensor> {
    vision::max_pool2d(&Handle::enter(x)?, pooling)?.exit()
}

/// The mean of square windows.
pub fn avg_pool2d(x: &Tensor, pooling: &Pooling) -> Result<Tensor> {
    vision::avg_pool2d(&Handle::enter(x)?, pooling)?.exit()
}

/// The mean of every channel: [N, C].
pub fn global_avg_pool2d(x: &Tensor) -> Result<Tensor> {
    vision::global_avg_pool2d(&Handle::enter(x)?)?.exit()
}

/// Attention of [B, T, D] with the heads side by side.
pub fn attention(
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    key_mask: Option<&Tensor>,
    causal: bool,
    dropout: &Dropout,
) -> Result<Tensor> {
    let [q, k, v] = [Handle::enter(q)?, Handle::enter(k)?, Handle::enter(v)?];
    text::attention([&q, &k, &v], heads, key_mask, causal, dropout)?.exit()
}

/// Rows of a table.
pub fn embedding(ids: &Tensor, weight: &Tensor) -> Result<Tensor> {
    ops::embedding(ids, weight)
}

/// Softmax cross entropy, the mean over the rows.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    text::cross_entropy(&Handle::enter(logits)?, targets, 0.0, None)?.exit()
}

/// x Φ(x), exact.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    ops::gelu(x)
}

/// max(x, 0) with the slope 0 at 0.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    ops::activation::relu(x)
}

/// x ⊙ mask / (1 - p).
pub fn dropout(x: &Tensor, dropout: &Dropout) -> Result<Tensor> {
    dropout.apply(x)
}

/// Moves running statistics towards a batch's mean and (uncorrected) variance over `count` values a
/// channel, unless they are at rest. Without `mean` the running mean stays.
pub fn move_statistics(
    [running_mean, running_variance]: [&Var; 2],
    mean: Option<&Tensor>,
    variance: &Tensor,
    (momentum, count): (f64, usize),
) -> Result<()> {
    let kept = match mean {
        Some(_) => running_mean.clone(),
        None => Var::from_tensor(&running_mean.as_detached_tensor().copy()?)?,
    };
    let running = RunningStatistics {
        mean: kept,
        variance: running_variance.clone(),
    };
    // Weight and bias take no part.
    let norm = vision::BatchNorm {
        momentum,
        ..vision::BatchNorm::new(variance, variance, &running, true)
    };
    norm.update(mean.unwrap_or(variance), variance, count)
}
