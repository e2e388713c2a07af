//! Functions, after `candle_nn::ops`.

mod attention;
mod images;
mod norms;

pub use super::dropout::Dropout;
pub use attention::sdpa;
pub use candle_nn::ops::{Identity, sigmoid};
pub use images::{pixel_shuffle, pixel_unshuffle, replication_pad2d};
pub use norms::{layer_norm, layer_norm_slow, rms_norm, rms_norm_slow};

use crate::numeric::{log_1p, wide, widened};
use candle_core::shape::Dim;
use candle_core::{D, Result, Tensor};

/// eˣ/Σ eˣ along a dimension. Same shape as `x`.
///
/// The largest value is taken off as a constant, which changes no derivative; as a function, as in candle,
/// its own are sums of cancelling terms.
///
/// # Errors
/// candle's, for a dimension that is not there.
pub fn softmax<D: Dim>(x: &Tensor, dim: D) -> Result<Tensor> {
    let dim = dim.to_index(x.shape(), "softmax")?;
    let powers = below_largest(x, dim)?.exp()?;
    powers
        .broadcast_div(&powers.sum_keepdim(dim)?)?
        .to_dtype(x.dtype())
}

/// log softmax along a dimension. Same shape as `x`.
///
/// # Errors
/// candle's, for a dimension that is not there.
pub fn log_softmax<D: Dim>(x: &Tensor, dim: D) -> Result<Tensor> {
    let dim = dim.to_index(x.shape(), "log-softmax")?;
    let rest = below_largest(x, dim)?;
    rest.broadcast_sub(&rest.exp()?.sum_keepdim(dim)?.log()?)?
        .to_dtype(x.dtype())
}

/// [`softmax`] along the last dimension, with a derivative: candle's own cuts the graph.
///
/// # Errors
/// candle's, for a tensor without dimensions.
pub fn softmax_last_dim(x: &Tensor) -> Result<Tensor> {
    softmax(x, D::Minus1)
}

/// In f32 for half precision, which has too few digits for the sums.
fn below_largest(x: &Tensor, dim: usize) -> Result<Tensor> {
    let x = x.to_dtype(wide(x.dtype()))?;
    x.broadcast_sub(&x.detach().max_keepdim(dim)?)
}

/// x σ(x). Same shape as `x`.
///
/// The derivative of candle's own has e⁻ˣ in it, and its second one, for a large negative x, 0 · ∞.
///
/// # Errors
/// candle's.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    Ok(crate::ops::activation(x, crate::ops::Activation::Silu)?)
}

/// a σ(a) b, for the halves a and b of the last dimension.
///
/// # Errors
/// candle's, for a last dimension that has no halves.
pub fn swiglu(x: &Tensor) -> Result<Tensor> {
    let halves = x.chunk(2, D::Minus1)?;
    match halves.as_slice() {
        [a, b] => silu(a)? * b,
        _ => super::wrong(
            "input of a SwiGLU",
            "a last dimension of two halves",
            x.dims(),
        ),
    }
}

/// 1 where x > 0, else 0: a constant.
pub(super) fn positive(x: &Tensor) -> Result<Tensor> {
    let x = x.detach();
    x.gt(&x.zeros_like()?)
}

/// min(max((x + 3)/6, 0), 1). Same shape as `x`.
///
/// # Errors
/// candle's.
pub fn hard_sigmoid(x: &Tensor) -> Result<Tensor> {
    x.affine(1.0 / 6.0, 0.5)?.clamp(0f32, 1f32)
}

/// x tanh(log(1 + eˣ)), finite for large x, too (Misra 2019). Same shape as `x`.
///
/// # Errors
/// candle's.
pub fn mish(x: &Tensor) -> Result<Tensor> {
    let wide = widened(x)?;
    (&wide * softplus(&wide)?.tanh()?)?.to_dtype(x.dtype())
}

/// log(1 + eˣ) = max(x, 0) + log(1 + e^-|x|), far below 0 with all its digits. Same shape as `x`.
///
/// # Errors
/// candle's.
pub fn softplus(x: &Tensor) -> Result<Tensor> {
    // Both halves bend at 0, against each other: the slopes that candle has there are ½ together.
    let wide = widened(x)?;
    let soft = log_1p(&wide.abs()?.neg()?.exp()?)? + wide.relu()?;
    soft?.to_dtype(x.dtype())
}

/// x above 0 and `negative_slope` x elsewhere. Same shape as `x`.
///
/// # Errors
/// candle's.
pub fn leaky_relu(x: &Tensor, negative_slope: f64) -> Result<Tensor> {
    positive(x)?.where_cond(x, &(x * negative_slope)?)
}

/// γ x above 0 and γ α (eˣ - 1) elsewhere, in any floating type (candle's is f32 only). Same shape as `x`.
///
/// # Errors
/// candle's.
pub fn selu(x: &Tensor, alpha: f32, gamma: f32) -> Result<Tensor> {
    let (alpha, gamma) = (f64::from(alpha), f64::from(gamma));
    // Near 0 half precision has no digits left of eˣ - 1.
    let (dtype, x) = (x.dtype(), &widened(x)?);
    let above = positive(x)?;
    // Powers of what is above 0 may be infinite, and their slope times 0 no number.
    let low = above.where_cond(&x.detach().zeros_like()?, x)?;
    let below = low.exp()?.affine(alpha, -alpha)?;
    (above.where_cond(x, &below)? * gamma)?.to_dtype(dtype)
}

/// x ⊙ m/(1 - p) of a training pass inside [`with_masks`](crate::nn::with_masks): see
/// [`Dropout`].
///
/// # Errors
/// As [`Dropout::forward`].
pub fn dropout(x: &Tensor, drop_p: f32) -> Result<Tensor> {
    super::dropout::drop(x, drop_p, None)
}
