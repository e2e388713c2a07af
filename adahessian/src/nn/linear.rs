//! Linear maps of the last dimension, after `candle_nn::linear`.

use super::{Init, VarBuilder, init, wrong};
use crate::ops::Activation;
use candle_core::{Module, Result, Tensor};

/// y = x Wᵀ + b over the last dimension, dense or in groups.
///
/// The input is [.., in], the result [.., out]. Any input may be transposed or broadcast:
/// `candle_nn::Linear` has wrong values there. One fused operation on the CPU.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    groups: usize,
}

impl Linear {
    /// With W `weight` [out, in] and b `bias` `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self::with_groups(weight, bias, 1)
    }

    /// Inputs and outputs in this many equal, consecutive parts, each output seeing the inputs of its own
    /// part: `weight` is [out, in/groups]. A convolution of one position, on channels that come last.
    pub fn with_groups(weight: Tensor, bias: Option<Tensor>, groups: usize) -> Self {
        Self {
            weight,
            bias,
            groups,
        }
    }

    /// W, [out, in/groups].
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// b, `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// In how many parts.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// act(x Wᵀ + b) as one operation on the CPU, where `forward` and an activation would be two.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for shapes that do not fit.
    pub fn forward_activation(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        Ok(crate::ops::linear(
            x,
            weight,
            bias,
            self.groups,
            activation,
        )?)
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_activation(x, Activation::Identity)
    }
}

/// With the variables `weight` [out_dim, in_dim] and `bias` `[out_dim]`, initialised as candle does.
///
/// # Errors
/// The builder's.
pub fn linear(in_dim: usize, out_dim: usize, vb: VarBuilder) -> Result<Linear> {
    linear_grouped(in_dim, out_dim, 1, vb)
}

/// With the variable `weight` [out_dim, in_dim] alone.
///
/// # Errors
/// The builder's.
pub fn linear_no_bias(in_dim: usize, out_dim: usize, vb: VarBuilder) -> Result<Linear> {
    let weight = vb.get_with_hints((out_dim, in_dim), "weight", init::DEFAULT_KAIMING_NORMAL)?;
    Ok(Linear::new(weight, None))
}

/// [`linear()`] or [`linear_no_bias`].
///
/// # Errors
/// The builder's.
pub fn linear_b(in_dim: usize, out_dim: usize, bias: bool, vb: VarBuilder) -> Result<Linear> {
    match bias {
        true => linear(in_dim, out_dim, vb),
        false => linear_no_bias(in_dim, out_dim, vb),
    }
}

/// In groups, with the variables `weight` [out_dim, in_dim/groups] and `bias` `[out_dim]`.
///
/// # Errors
/// [`crate::Error::Setting`] for groups that do not divide both sizes; the builder's.
pub fn linear_grouped(
    in_dim: usize,
    out_dim: usize,
    groups: usize,
    vb: VarBuilder,
) -> Result<Linear> {
    let divides = |size: usize| groups > 0 && size.is_multiple_of(groups);
    if !divides(in_dim) || !divides(out_dim) {
        let expected = format!("a divisor of {in_dim} inputs and {out_dim} outputs");
        return wrong("groups of a linear map", expected, groups);
    }
    let shape = (out_dim, in_dim / groups);
    let weight = vb.get_with_hints(shape, "weight", init::DEFAULT_KAIMING_NORMAL)?;
    let bias = vb.get_with_hints(out_dim, "bias", within(1.0 / (in_dim as f64).sqrt()))?;
    Ok(Linear::with_groups(weight, Some(bias), groups))
}

/// Uniform in [-bound, bound].
pub(super) fn within(bound: f64) -> Init {
    Init::Uniform {
        lo: -bound,
        up: bound,
    }
}
