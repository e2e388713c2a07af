//! Linear maps of the last dimension, after `candle_nn::linear`.

use super::{Init, VarBuilder, init, variable, wrong};
use crate::Kind;
use crate::engine::Operand;
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

    /// act(x Wᵀ + b) as one operation on the CPU, where `forward` and an activation would be two. Of a
    /// tensor, or of a [`Handle`](crate::engine::Handle) between fused operations.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for shapes that do not fit.
    pub fn forward_activation<X: Operand>(
        &self,
        x: &X,
        activation: Activation,
    ) -> crate::Result<X> {
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        crate::ops::linear(x, weight, bias, self.groups, activation)
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward_activation(x, Activation::Identity)?)
    }
}

/// What a linear map is like beside its sizes.
#[derive(Clone, Copy, Debug)]
pub struct LinearConfig {
    /// The number of groups, see [`Linear::with_groups`].
    pub groups: usize,
    /// Whether the weight has a 1 behind its two dimensions, as a convolution of kernel 1 has in
    /// checkpoints. The map is the same.
    pub pointwise: bool,
    /// The weight at first.
    pub weight: Init,
    /// The bias at first.
    pub bias: Init,
}

impl LinearConfig {
    /// One group, with this weight and this bias at first.
    pub fn new(weight: Init, bias: Init) -> Self {
        Self {
            groups: 1,
            pointwise: false,
            weight,
            bias,
        }
    }

    /// As candle begins: Kaiming's normal numbers, and a bias uniform within 1/√inputs.
    pub fn kaiming(in_dim: usize) -> Self {
        let bias = within(1.0 / (in_dim as f64).sqrt());
        Self::new(init::DEFAULT_KAIMING_NORMAL, bias)
    }
}

/// With the variables `weight` [out_dim, in_dim] and `bias` `[out_dim]`, initialised as candle does.
///
/// # Errors
/// The builder's.
pub fn linear(in_dim: usize, out_dim: usize, vb: VarBuilder) -> Result<Linear> {
    linear_with(in_dim, out_dim, LinearConfig::kaiming(in_dim), vb)
}

/// With the variable `weight` [out_dim, in_dim] alone.
///
/// # Errors
/// The builder's.
pub fn linear_no_bias(in_dim: usize, out_dim: usize, vb: VarBuilder) -> Result<Linear> {
    let (shape, init) = ((out_dim, in_dim), init::DEFAULT_KAIMING_NORMAL);
    let weight = variable(&vb, shape, "weight", init, Kind::Matrix)?;
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
    let config = LinearConfig {
        groups,
        ..LinearConfig::kaiming(in_dim)
    };
    linear_with(in_dim, out_dim, config, vb)
}

/// As `config` says, with the variables `weight` [out_dim, in_dim/groups] (and a 1 behind it where it is
/// pointwise) and `bias` `[out_dim]`.
///
/// # Errors
/// [`crate::Error::Setting`] for groups that do not divide both sizes; the builder's.
pub fn linear_with(
    in_dim: usize,
    out_dim: usize,
    config: LinearConfig,
    vb: VarBuilder,
) -> Result<Linear> {
    let groups = config.groups;
    let divides = |size: usize| groups > 0 && size.is_multiple_of(groups);
    if !divides(in_dim) || !divides(out_dim) {
        let expected = format!("a divisor of {in_dim} inputs and {out_dim} outputs");
        return wrong("groups of a linear map", expected, groups);
    }
    let mut shape = vec![out_dim, in_dim / groups];
    if config.pointwise {
        shape.push(1);
    }
    let weight = variable(&vb, shape, "weight", config.weight, Kind::Matrix)?;
    let bias = variable(&vb, out_dim, "bias", config.bias, Kind::Vector)?;
    Ok(Linear::with_groups(weight, Some(bias), groups))
}

/// Uniform in [-bound, bound].
pub(super) fn within(bound: f64) -> Init {
    Init::Uniform {
        lo: -bound,
        up: bound,
    }
}
