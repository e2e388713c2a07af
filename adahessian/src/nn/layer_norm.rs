//! Normalisation over the last dimension, after `candle_nn::layer_norm`: LayerNorm (Ba et al. 2016) and
//! RMSNorm (Zhang and Sennrich 2019).
//!
//! candle's own take a fast path on contiguous inputs, which cuts the graph without a word.

use super::{Init, VarBuilder, variable, wrong};
use crate::Kind;
use crate::engine::{Op, Operand, call};
use crate::numeric::{wide, widened};
use crate::ops::{self, Dropout};
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

    /// What `forward` does, for a [`Handle`](crate::engine::Handle) between fused operations, too.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for shapes that do not fit.
    pub fn normalise<X: Operand>(&self, x: &X) -> crate::Result<X> {
        match self.remove_mean {
            true => ops::layer_norm(x, &self.weight, &self.shift()?, self.eps),
            false => {
                let mut inputs: Vec<&dyn Operand> = vec![x, &self.weight];
                inputs.extend(self.bias.iter().map(|bias| bias as &dyn Operand));
                X::of(call(Root { eps: self.eps }, &inputs)?)
            }
        }
    }

    /// The norm of dropout(x) + residual, the end of each half of a transformer's layer: with the mean
    /// removed, one operation on the CPU.
    ///
    /// Both are [.., n], as the result is.
    ///
    /// # Errors
    /// As [`LayerNorm::normalise`]; [`crate::Error::Setting`] for a probability outside [0, 1).
    pub fn forward_residual<X: Operand>(
        &self,
        x: &X,
        residual: &X,
        dropout: &Dropout,
    ) -> crate::Result<X> {
        match self.remove_mean {
            true => {
                let (weight, shift) = (&self.weight, self.shift()?);
                ops::residual_layer_norm(x, residual, dropout, weight, &shift, self.eps)
            }
            false => self.normalise(&ops::residual(residual, x, dropout)?),
        }
    }

    /// With the mean left in.
    fn root(&self, x: &Tensor) -> Result<Tensor> {
        root_norm(x, &self.weight, self.bias.as_ref(), self.eps)
    }

    /// The bias, or zeros.
    fn shift(&self) -> crate::Result<Tensor> {
        Ok(match &self.bias {
            Some(bias) => bias.clone(),
            None => self.weight.detach().zeros_like()?,
        })
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.remove_mean {
            true => Ok(self.normalise(x)?),
            false => self.root(x),
        }
    }
}

/// The norm without the mean, of x, w and a bias where there is one: composed, and what comes of a handle is one of its
/// kind.
struct Root {
    eps: f64,
}

impl Op for Root {
    fn name(&self) -> &'static str {
        "root mean square norm"
    }

    fn shape(&self, inputs: &[&[usize]]) -> crate::Result<Vec<usize>> {
        Ok(inputs.first().map_or_else(Vec::new, |x| x.to_vec()))
    }

    fn composed(&self, inputs: &[Tensor]) -> crate::Result<Tensor> {
        let [x, weight, bias @ ..] = inputs else {
            return Ok(wrong("inputs of a norm", "two or three", inputs.len())?);
        };
        Ok(root_norm(x, weight, bias.first(), self.eps)?)
    }
}

fn root_norm(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let y = root_mean_square(x, weight, eps)?;
    match bias {
        // Whose gradient is a sum over all rows: half precision has too few digits for it.
        Some(bias) => widened(&y)?
            .broadcast_add(&widened(bias)?)?
            .to_dtype(y.dtype()),
        None => Ok(y),
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
    unit.broadcast_mul(&widened(weight)?)?.to_dtype(dtype)
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
    let get = |name, value| variable(&vb, size, name, Init::Const(value), Kind::Vector);
    let weight = get(named("weight", "gamma"), 1.0)?;
    let bias = match config.affine {
        true => Some(get(named("bias", "beta"), 0.0)?),
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
