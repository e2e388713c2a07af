//! Activation functions.

use crate::error::{Error, Result};
use candle_core::Tensor;
use std::fmt;
use std::str::FromStr;

/// A function applied entry by entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// x.
    #[default]
    Identity,
    /// x Φ(x), exact; see [`gelu`].
    Gelu,
    /// max(x, 0). Its second derivative is 0 where it exists.
    Relu,
    /// tanh x.
    Tanh,
}

impl Activation {
    /// The function's values. Same shape as `x`.
    ///
    /// # Errors
    /// If candle fails.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Identity => Ok(x.clone()),
            Activation::Gelu => gelu(x),
            Activation::Relu => Ok(x.relu()?),
            Activation::Tanh => Ok(x.tanh()?),
        }
    }
}

/// The exact GELU, x Φ(x) = ½ x (1 + erf(x/√2)), with Φ the normal distribution function.
///
/// candle's own `gelu` is the tanh approximation, and the backward passes of `gelu` and `gelu_erf`
/// use constants of six digits, so that their gradients are right to 10⁻⁷ only and their second
/// derivatives are those of another function. `erf` itself is differentiated exactly.
///
/// # Errors
/// If candle fails.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    let twice_phi = ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)?;
    Ok(((x * 0.5)? * twice_phi)?)
}

/// The names of Hugging Face configurations: `gelu`, `relu`, `tanh`, `linear`.
impl FromStr for Activation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "linear" => Ok(Activation::Identity),
            "gelu" => Ok(Activation::Gelu),
            "relu" => Ok(Activation::Relu),
            "tanh" => Ok(Activation::Tanh),
            other => super::wrong(
                "activation",
                "gelu, relu, tanh or linear",
                format!("`{other}`"),
            ),
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Activation::Identity => "linear",
            Activation::Gelu => "gelu",
            Activation::Relu => "relu",
            Activation::Tanh => "tanh",
        })
    }
}
