//! Norms as functions. candle's fast forms have no derivative; here the fast and the slow are one.

use crate::nn::layer_norm::root_mean_square;
use candle_core::{Result, Tensor};

/// α ⊙ (x - μ)/√(σ² + ε) + β over the last dimension: see [`LayerNorm`](crate::nn::LayerNorm).
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit.
pub fn layer_norm(x: &Tensor, alpha: &Tensor, beta: &Tensor, eps: f32) -> Result<Tensor> {
    Ok(crate::ops::layer_norm(x, alpha, beta, f64::from(eps))?)
}

/// The same as [`layer_norm()`].
///
/// # Errors
/// As [`layer_norm()`].
pub fn layer_norm_slow(x: &Tensor, alpha: &Tensor, beta: &Tensor, eps: f32) -> Result<Tensor> {
    layer_norm(x, alpha, beta, eps)
}

/// α ⊙ x/√(mean x² + ε) over the last dimension: see [`RmsNorm`](crate::nn::RmsNorm).
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit.
pub fn rms_norm(x: &Tensor, alpha: &Tensor, eps: f32) -> Result<Tensor> {
    root_mean_square(x, alpha, f64::from(eps))
}

/// The same as [`rms_norm()`].
///
/// # Errors
/// As [`rms_norm()`].
pub fn rms_norm_slow(x: &Tensor, alpha: &Tensor, eps: f32) -> Result<Tensor> {
    rms_norm(x, alpha, eps)
}
