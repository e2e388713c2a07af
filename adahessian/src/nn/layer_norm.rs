//! Normalisation over the last dimension, after `candle_nn::layer_norm`: LayerNorm (Ba et al. 2016) and
//! RMSNorm (Zhang and Sennrich 2019).
//!
//! candle's own take a fast path on contiguous inputs, which cuts the graph without a word.

use super::{Init, VarBuilder, wrong};
use crate::numeric::wide;
use candle_core::{D, Module, Result, Tensor};

pub use candle_nn::layer_norm::LayerNormConfig;

/// y = w ⊙ (x - μ)/√(σ² + ε) + b with the mean μ and the variance σ² (divided by n) of the last
/// dimension; without `remove_mean`, w ⊙ x/√(mean x² + ε) + b.
///
/// The input is [.., n], `weight` and `bias` are `[n]`, the result is like the input. f16 and bf16 are
/// normalised in f32. With the mean removed, one fused operation on the CPU.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    remove_mean: bool,
    eps: f64,
}

impl LayerNorm {
    /// With weight and bias.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self {
            weight,
            bias: Some(bias),
            remove_mean: true,
            eps,
        }
    }

    /// Without a bias.
    pub fn new_no_bias(weight: Tensor, eps: f64) -> Self {
        Self {
            weight,
            bias: None,
            remove_mean: true,
            eps,
        }
    }

    /// Without a bias, and with the mean left in.
    pub fn rms_norm(weight: Tensor, eps: f64) -> Self {
        Self {
            remove_mean: false,
            ..Self::new_no_bias(weight, eps)
        }
    }

    /// w, `[n]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// b, `[n]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// ε.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// Whether the mean is removed.
    pub fn remove_mean(&self) -> bool {
        self.remove_mean
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        match (self.remove_mean, bias) {
            (true, Some(bias)) => Ok(crate::ops::layer_norm(x, weight, bias, self.eps)?),
            (true, None) => {
                let none = weight.detach().zeros_like()?;
                Ok(crate::ops::layer_norm(x, weight, &none, self.eps)?)
            }
            (false, bias) => {
                let y = root_mean_square(x, weight, self.eps)?;
                match bias {
                    Some(bias) => y.broadcast_add(bias),
                    None => Ok(y),
                }
            }
        }
    }
}

/// w ⊙ x / √(mean x² + ε), composed.
pub(super) fn root_mean_square(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let width = x.dims().last().copied().unwrap_or(0);
    if width == 0 || weight.dims() != [width] {
        let expected = format!("[{width}], the input's last dimension, at least 1");
        return wrong("weight of an RMS norm", expected, weight.dims());
    }
    let dtype = x.dtype();
    let x = x.to_dtype(wide(dtype))?;
    let square = x.sqr()?.mean_keepdim(D::Minus1)?;
    let unit = x.broadcast_div(&(square + eps)?.sqrt()?)?;
    unit.to_dtype(dtype)?.broadcast_mul(weight)
}

/// With the variables `weight` and, if `affine`, `bias` (or `gamma` and `beta`, where the builder has those),
/// both `[size]`.
///
/// # Errors
/// The builder's.
pub fn layer_norm<C: Into<LayerNormConfig>>(
    size: usize,
    config: C,
    vb: VarBuilder,
) -> Result<LayerNorm> {
    let config = config.into();
    let named = |name: &'static str, old: &'static str| match vb.contains_tensor(old) {
        true if !vb.contains_tensor(name) => old,
        _ => name,
    };
    let weight = vb.get_with_hints(size, named("weight", "gamma"), Init::Const(1.0))?;
    let bias = match config.affine {
        true => Some(vb.get_with_hints(size, named("bias", "beta"), Init::Const(0.0))?),
        false => None,
    };
    Ok(LayerNorm {
        weight,
        bias,
        remove_mean: config.remove_mean,
        eps: config.eps,
    })
}

/// With the variable `weight` `[size]` alone.
///
/// # Errors
/// The builder's.
pub fn layer_norm_no_bias(size: usize, eps: f64, vb: VarBuilder) -> Result<LayerNorm> {
    let config = LayerNormConfig {
        eps,
        remove_mean: true,
        affine: false,
    };
    layer_norm(size, config, vb)
}

/// y = w ⊙ x/√(mean x² + ε) over the last dimension, composed.
#[derive(Clone, Debug)]
pub struct RmsNorm(LayerNorm);

impl RmsNorm {
    /// With w `weight` `[n]`.
    pub fn new(weight: Tensor, eps: f64) -> Self {
        Self(LayerNorm::rms_norm(weight, eps))
    }

    /// As a [`LayerNorm`] that leaves the mean in.
    pub fn into_inner(self) -> LayerNorm {
        self.0
    }

    /// w, `[n]`.
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// ε.
    pub fn eps(&self) -> f64 {
        self.0.eps()
    }

    /// The same as `forward`, which has a derivative here.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for shapes that do not fit.
    pub fn forward_diff(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

impl Module for RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

/// With the variable `weight` `[size]`.
///
/// # Errors
/// The builder's.
pub fn rms_norm(size: usize, eps: f64, vb: VarBuilder) -> Result<RmsNorm> {
    let config = LayerNormConfig {
        eps,
        remove_mean: false,
        affine: false,
    };
    Ok(RmsNorm(layer_norm(size, config, vb)?))
}
