//! Layer normalisation (Ba, Kiros, Hinton 2016), alone and after a residual connection.

use super::{Dropout, wrong};
use crate::error::Result;
use candle_core::{D, DType, Tensor};

/// y = w ⊙ (x - μ) / √(σ² + ε) + b, with the mean μ and the variance σ² (divided by n, not n - 1)
/// over the last dimension.
///
/// `x` is [.., n], `weight` and `bias` `[n]`. f16 and bf16 are normalised in f32.
///
/// `candle_nn::LayerNorm` takes a fast path on contiguous input whose result is cut off the graph:
/// no gradient goes through it, and no error says so.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    check_width(x.dims(), weight, bias)?;
    let dtype = x.dtype();
    let short = matches!(dtype, DType::F16 | DType::BF16);
    let x = if short {
        x.to_dtype(DType::F32)?
    } else {
        x.clone()
    };
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let unit = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    let unit = if short { unit.to_dtype(dtype)? } else { unit };
    Ok(unit.broadcast_mul(weight)?.broadcast_add(bias)?)
}

/// Whether weight and bias fit the last dimension.
pub(super) fn check_width(x: &[usize], weight: &Tensor, bias: &Tensor) -> Result<()> {
    let width = x.last().copied().unwrap_or(0);
    match weight.dims() == [width] && bias.dims() == [width] && width > 0 {
        true => Ok(()),
        false => wrong(
            "weight and bias of a layer norm",
            format!("[{width}], the input's last dimension"),
            format!("{:?} and {:?}", weight.dims(), bias.dims()),
        ),
    }
}

/// LayerNorm(dropout(x) + residual): the end of each half of a BERT layer, as one function.
///
/// `x` and `residual` are [.., n].
///
/// # Errors
/// As [`layer_norm`] and [`super::dropout()`].
pub fn residual_layer_norm(
    x: &Tensor,
    residual: &Tensor,
    dropout: &Dropout,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    layer_norm(&(dropout.apply(x)? + residual)?, weight, bias, eps)
}
