//! The derivatives of activations in candle's operations, on tensors without a graph.

use super::Activation;
use crate::error::Result;
use candle_core::Tensor;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// u act'(x).
pub(super) fn sloped(activation: Activation, x: &Tensor, u: &Tensor) -> Result<Tensor> {
    Ok(match activation {
        Activation::Identity => u.clone(),
        Activation::Relu => {
            // False for not-a-number, which goes through; and not a product, which would make one of infinity.
            let zeros = x.zeros_like()?;
            x.le(&zeros)?.where_cond(&zeros, u)?
        }
        Activation::Tanh => (u - (u * x.tanh()?.sqr()?)?)?,
        Activation::Gelu => {
            let Normal { below, density } = Normal::of(x)?;
            (u * (below + (x * density)?)?)?
        }
        Activation::Silu => {
            let s = candle_nn::ops::sigmoid(x)?;
            // s + x s (1 - s)
            let slope = ((&s + (x * &s)?)? - (x * s.sqr()?)?)?;
            (u * slope)?
        }
    })
}

/// w act''(x); `None` where it is zero for every x.
pub(super) fn bent(activation: Activation, x: &Tensor, w: &Tensor) -> Result<Option<Tensor>> {
    let bend = match activation {
        Activation::Identity | Activation::Relu => return Ok(None),
        Activation::Tanh => {
            let y = x.tanh()?;
            let slope = y.sqr()?.affine(-1.0, 1.0)?;
            ((y * slope)? * -2.0)?
        }
        Activation::Gelu => (density(x)? * x.sqr()?.affine(-1.0, 2.0)?)?,
        Activation::Silu => {
            // s (1 - s) (2 + x (1 - 2 s))
            let s = candle_nn::ops::sigmoid(x)?;
            let first = (&s - s.sqr()?)?;
            (first * ((x * s.affine(-2.0, 1.0)?)? + 2.0)?)?
        }
    };
    Ok(Some((w * bend)?))
}

/// Φ(x) and φ(x) of the normal distribution.
struct Normal {
    below: Tensor,
    density: Tensor,
}

impl Normal {
    fn of(x: &Tensor) -> Result<Self> {
        Ok(Self {
            below: (x * FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)?,
            density: density(x)?,
        })
    }
}

/// φ(x).
fn density(x: &Tensor) -> Result<Tensor> {
    Ok(((x.sqr()? * -0.5)?.exp()? * (1.0 / (2.0 * PI).sqrt()))?)
}
