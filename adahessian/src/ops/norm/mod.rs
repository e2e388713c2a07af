//! Layer normalisation (Ba, Kiros, Hinton 2016), alone and after a residual connection.

mod cpu;
mod rows;
mod tensors;

use super::dropout::Mask;
use super::{Dropout, wrong};
use crate::engine::{Handle, Kernels, Op, Operand, call};
use crate::error::Result;
use crate::numeric::widened;
use candle_core::{D, Tensor};

/// y = w ⊙ (x - μ) / √(σ² + ε) + b, with the mean μ and the variance σ² (divided by n, not n - 1)
/// over the last dimension.
///
/// `x` is [.., n], `weight` and `bias` `[n]`. f16 and bf16 are normalised in f32.
///
/// `candle_nn::LayerNorm` takes a fast path on contiguous input whose result is cut off the graph:
/// no gradient goes through it, and no error says so.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit; candle's errors.
pub fn layer_norm<X: Operand>(x: &X, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<X> {
    X::of(on(&[x, weight, bias], None, eps)?)
}

/// LayerNorm(dropout(x) + residual): the end of each half of a BERT layer, as one operation.
///
/// `x` and `residual` are [.., n], `weight` and `bias` `[n]`.
///
/// # Errors
/// As [`layer_norm`] and [`super::dropout()`].
pub fn residual_layer_norm<X: Operand>(
    x: &X,
    residual: &X,
    dropout: &Dropout,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<X> {
    let mask = Mask::of(dropout)?;
    X::of(on(&[x, weight, bias, residual], mask, eps)?)
}

fn on(inputs: &[&dyn Operand], mask: Option<Mask>, eps: f64) -> Result<Handle> {
    call(Norm { eps, mask }, inputs)
}

struct Norm {
    eps: f64,
    mask: Option<Mask>,
}

impl Op for Norm {
    fn name(&self) -> &'static str {
        "layer norm"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let (x, weight, bias) = (inputs[0], inputs[1], inputs[2]);
        let width = x.last().copied().unwrap_or(0);
        if width == 0 {
            let expected = "at least one entry in the last dimension";
            return wrong("input of a layer norm", expected, format!("{x:?}"));
        }
        if weight != [width] || bias != [width] {
            return wrong(
                "weight and bias of a layer norm",
                format!("[{width}], the input's last dimension"),
                format!("{weight:?} and {bias:?}"),
            );
        }
        match inputs.get(3) {
            Some(residual) if *residual != x => {
                let expected = format!("{x:?}, as the input");
                wrong(
                    "residual of a layer norm",
                    expected,
                    format!("{residual:?}"),
                )
            }
            _ => Ok(x.to_vec()),
        }
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let x = match &self.mask {
            Some(mask) => mask.composed(&inputs[0])?,
            None => inputs[0].clone(),
        };
        let x = match inputs.get(3) {
            Some(residual) => (x + residual)?,
            None => x,
        };
        let dtype = x.dtype();
        let x = widened(&x)?; // half precision has too few digits for the sums, there and back
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let unit = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        let (weight, bias) = (widened(&inputs[1])?, widened(&inputs[2])?);
        let y = unit.broadcast_mul(&weight)?.broadcast_add(&bias)?;
        Ok(y.to_dtype(dtype)?)
    }

    fn kernels() -> Kernels<Self> {
        Kernels::everywhere()
    }
}
