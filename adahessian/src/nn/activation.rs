//! Activation functions, after `candle_nn::activation`.

use super::{Init, VarBuilder, ops, variable, wrong};
use crate::Kind;
use crate::numeric::widened;
use candle_core::{Module, Result, Tensor};
use serde::{Deserialize, Serialize};

/// A function applied entry by entry (and [`Activation::Swiglu`], which halves the last dimension).
///
/// Its names in configuration files are candle's. `gelu` is exact here, where candle's derivative has
/// constants of six digits. Functions with a kink have one of the two slopes there, or half of their sum
/// (`relu6`, `hardsigmoid` and `hardswish`, which are candle's `clamp`), and no second derivative across it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// x Φ(x), with the normal distribution function Φ.
    #[default]
    #[serde(alias = "gelu")]
    Gelu,
    /// ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))).
    #[serde(alias = "gelu_new")]
    NewGelu,
    /// max(x, 0).
    Relu,
    /// max(x, 0)².
    Relu2,
    /// min(max(x, 0), 6).
    Relu6,
    /// x σ(x).
    Silu,
    /// σ(x) = 1/(1 + e⁻ˣ).
    Sigmoid,
    /// min(max((x + 3)/6, 0), 1).
    HardSigmoid,
    /// a σ(a) b, for the halves a and b of the last dimension.
    Swiglu,
    /// x σ(x).
    Swish,
    /// x tanh(log(1 + eˣ)).
    Mish,
    /// x min(max((x + 3)/6, 0), 1).
    HardSwish,
    /// x above 0, α (eˣ - 1) below, for this α.
    Elu(f64),
    /// x above 0, s x below, for this s.
    LeakyRelu(f64),
    /// As [`Activation::NewGelu`].
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluPytorchTanh,
}

impl Module for Activation {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match *self {
            Self::Gelu => Ok(crate::ops::activation(x, crate::ops::Activation::Gelu)?),
            Self::NewGelu | Self::GeluPytorchTanh => gelu_by_tanh(x),
            Self::Relu => Ok(crate::ops::activation(x, crate::ops::Activation::Relu)?),
            Self::Relu2 => crate::ops::activation(x, crate::ops::Activation::Relu)?.sqr(),
            Self::Relu6 => x.clamp(0f32, 6f32),
            Self::Silu | Self::Swish => {
                Ok(crate::ops::activation(x, crate::ops::Activation::Silu)?)
            }
            Self::Sigmoid => ops::sigmoid(x),
            Self::HardSigmoid => ops::hard_sigmoid(x),
            Self::Swiglu => ops::swiglu(x),
            Self::Mish => ops::mish(x),
            Self::HardSwish => x * ops::hard_sigmoid(x)?,
            // Near 0 half precision has no digits left of eˣ - 1.
            Self::Elu(alpha) => widened(x)?.elu(alpha)?.to_dtype(x.dtype()),
            Self::LeakyRelu(slope) => ops::leaky_relu(x, slope),
        }
    }
}

/// The approximation of x Φ(x) by a tanh. candle's own has six digits in its derivative.
fn gelu_by_tanh(x: &Tensor) -> Result<Tensor> {
    // In half precision x² is infinite from 256 on, and its gradient 0 · ∞.
    let (dtype, x) = (x.dtype(), &widened(x)?);
    let root = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    let inner = (x * (x.sqr()? * 0.044715)?.affine(root, root)?)?;
    ((x * 0.5)? * (inner.tanh()? + 1.0)?)?.to_dtype(dtype)
}

/// x above 0 and a x below, with one slope a or one for each channel.
///
/// The input has any shape for one slope, and is [N, C, ..] or has the slopes' shape for C of them.
#[derive(Clone, Debug)]
pub struct PReLU {
    weight: Tensor,
    is_scalar: bool,
}

impl PReLU {
    /// With the slopes `weight` `[1]` or `[C]`.
    pub fn new(weight: Tensor, is_scalar: bool) -> Self {
        Self { weight, is_scalar }
    }

    /// The slopes.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Whether there is one slope for all channels.
    pub fn is_scalar(&self) -> bool {
        self.is_scalar
    }

    /// The slopes in a shape that the input broadcasts with.
    fn slopes(&self, x: &Tensor) -> Result<Tensor> {
        let count = self.weight.elem_count();
        match self.is_scalar {
            true if count != 1 => return wrong("slopes of a scalar PReLU", "one", count),
            true => return self.weight.reshape(()),
            // As candle has it.
            false if count == 1 && x.rank() < 2 => return self.weight.reshape(()),
            false => {}
        }
        if x.shape() == self.weight.shape() {
            return Ok(self.weight.clone());
        }
        match x.dims() {
            &[_, channels, ..] if channels == count => {
                let mut wide = vec![1; x.rank()];
                wide[1] = channels;
                self.weight.reshape(wide)
            }
            got => {
                let expected = format!("[N, {count}, ..], a channel for each slope");
                wrong("input of a PReLU", expected, got)
            }
        }
    }
}

impl Module for PReLU {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // The gradient of a slope is a sum for which half precision has too few digits.
        let below = widened(x)?.broadcast_mul(&widened(&self.slopes(x)?)?)?;
        let below = below.to_dtype(x.dtype())?;
        ops::positive(x)?.where_cond(x, &below)
    }
}

/// With the variable `weight`, `[num_channels]` or `[1]`, 0.25 at first.
///
/// # Errors
/// The builder's.
pub fn prelu(num_channels: Option<usize>, vb: VarBuilder) -> Result<PReLU> {
    let (count, quarter) = (num_channels.unwrap_or(1), Init::Const(0.25));
    let slopes = variable(&vb, count, "weight", quarter, Kind::Vector)?;
    Ok(PReLU::new(slopes, num_channels.is_none()))
}
