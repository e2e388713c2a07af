//! Activation functions.

pub(super) mod cpu;
mod formula;

use crate::engine::{Entrywise, Handle, Operand, entrywise};
use crate::error::{Error, Result};
use crate::numeric::formula::Space;
use crate::numeric::{Real, widened};
use candle_core::Tensor;
use std::fmt;
use std::str::FromStr;

/// A function applied entry by entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// x.
    #[default]
    Identity,
    /// x Φ(x), exact; with the normal distribution function Φ.
    Gelu,
    /// max(x, 0), not-a-number where x is. Its slope at 0 is 0, its second derivative 0 where it exists.
    Relu,
    /// tanh x.
    Tanh,
    /// x σ(x), with the logistic function σ.
    Silu,
}

/// The activation of every entry. Same shape as `x`.
///
/// # Errors
/// If candle fails.
pub fn activation<X: Operand>(x: &X, activation: Activation) -> Result<X> {
    X::of(on(x, activation)?)
}

// Apart, as in every operation, so that kernels are compiled in this crate and once.
fn on(x: &dyn Operand, activation: Activation) -> Result<Handle> {
    entrywise(activation, x)
}

impl Entrywise for Activation {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Identity => Ok(x.clone()),
            Activation::Gelu => gelu(x),
            Activation::Relu => relu(x),
            Activation::Tanh => Ok(x.tanh()?),
            // candle's own `silu` has 0 · ∞ in its second derivative, for a large negative x; and in f16 e⁻ˣ is ∞ where the
            // value is none of zero yet.
            Activation::Silu => {
                let wide = widened(x)?;
                Ok((&wide * candle_nn::ops::sigmoid(&wide)?)?.to_dtype(x.dtype())?)
            }
        }
    }

    const OF_TENSORS: bool = true;

    fn sloped(&self, x: &Tensor, u: &Tensor) -> Result<Tensor> {
        let space = Space::whole(x.dims());
        let slope = self.slope(&space, &space.entries(x)?, &space.entries(u)?);
        let [slope] = space.compute([slope])?;
        Ok(slope)
    }

    fn bent(&self, x: &Tensor, w: &Tensor) -> Result<Option<Tensor>> {
        let space = Space::whole(x.dims());
        let bend = self.bend(&space.entries(x)?, &space.entries(w)?);
        let [bend] = space.compute_some([bend])?;
        Ok(bend)
    }

    #[inline(always)]
    fn derivatives<T: Real>(&self, x: T) -> [T; 3] {
        match self {
            Activation::Identity => [x, T::ONE, T::ZERO],
            // In this order not-a-number stays what it is.
            Activation::Relu => match x <= T::ZERO {
                true => [T::ZERO, T::ZERO, T::ZERO],
                false => [x, T::ONE, T::ZERO],
            },
            Activation::Tanh => {
                let y = x.tanh();
                let slope = T::ONE - y * y;
                [y, slope, T::from_f64(-2.0) * y * slope]
            }
            Activation::Gelu => {
                let (below, density) = x.normal();
                // Where x² is infinite, the density is 0.
                let bend = density + density - x * (x * density);
                [x * below, below + x * density, bend]
            }
            Activation::Silu => {
                let s = T::ONE / (T::ONE + (-x).exp());
                let (rest, two) = (T::ONE - s, T::ONE + T::ONE);
                let bend = s * rest * (two + x * (T::ONE - two * s));
                [x * s, s * (T::ONE + x * rest), bend]
            }
        }
    }
}

/// The exact GELU, x Φ(x) = ½ x (1 + erf(x/√2)), with Φ the normal distribution function.
///
/// candle's own `gelu` is the tanh approximation, and the backward passes of `gelu` and `gelu_erf`
/// use constants of six digits, so that their gradients are right to 10⁻⁷ only and their second
/// derivatives are those of another function. `erf` itself is differentiated exactly. Half precision is
/// computed with in f32: the 1 would swallow what is below 0.
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    let wide = widened(x)?;
    let twice_phi = ((&wide * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)?;
    Ok(((wide * 0.5)? * twice_phi)?.to_dtype(x.dtype())?)
}

/// max(x, 0), with not-a-number where x is and the slope 0 at 0, as in the fused form.
///
/// candle's own `relu` makes a 0 of not-a-number, on every device, so that no guard behind it sees that
/// something went wrong, and has the slope 1 at 0. Products such as x (x > 0) would make not-a-number of
/// -∞. The mask is a constant of both derivatives.
pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    let zeros = x.detach().zeros_like()?;
    // False for not-a-number, which is then taken from x.
    let off = x.detach().le(&zeros)?;
    Ok(off.where_cond(&zeros, x)?)
}

/// The names of Hugging Face configurations: `gelu`, `relu`, `tanh`, `silu`, `linear`.
impl FromStr for Activation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "linear" => Ok(Activation::Identity),
            "gelu" => Ok(Activation::Gelu),
            "relu" => Ok(Activation::Relu),
            "tanh" => Ok(Activation::Tanh),
            "silu" | "swish" => Ok(Activation::Silu),
            other => super::wrong(
                "activation",
                "gelu, relu, tanh, silu or linear",
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
            Activation::Silu => "silu",
        })
    }
}
