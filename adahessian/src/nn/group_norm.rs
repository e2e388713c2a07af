//! Group normalisation (Wu and He 2018), after `candle_nn::group_norm`.

use super::{Init, VarBuilder, variable, wrong};
use crate::Kind;
use crate::numeric::{wide, widened};
use candle_core::{Module, Result, Tensor};

/// y = w_c (x - μ)/√(σ² + ε) + b_c, with mean and variance over all positions of a group of channels.
///
/// The input is [N, C, ..] with at least three dimensions, weight and bias are `[C]`. The normalisation
/// is the fused layer norm of a group's values, scale and shift are composed.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
    num_channels: usize,
    num_groups: usize,
}

impl GroupNorm {
    /// With `weight` and `bias` `[num_channels]`.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for groups that do not divide the channels.
    pub fn new(
        weight: Tensor,
        bias: Tensor,
        num_channels: usize,
        num_groups: usize,
        eps: f64,
    ) -> Result<Self> {
        if num_groups == 0 || !num_channels.is_multiple_of(num_groups) {
            let expected = format!("a divisor of {num_channels} channels");
            return wrong("groups of a group norm", expected, num_groups);
        }
        if weight.dims() != [num_channels] || bias.dims() != [num_channels] {
            let got = (weight.dims(), bias.dims());
            let expected = format!("[{num_channels}]");
            return wrong("weight and bias of a group norm", expected, got);
        }
        Ok(Self {
            weight,
            bias,
            eps,
            num_channels,
            num_groups,
        })
    }
}

impl Module for GroupNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let fits = x.rank() >= 3 && x.dims()[1] == self.num_channels;
        if !fits {
            let expected = format!("[N, {}, ..]", self.num_channels);
            return wrong("input of a group norm", expected, x.dims());
        }
        if x.elem_count() == 0 {
            return Ok(x.clone());
        }
        let dtype = x.dtype();
        let wide = x.to_dtype(wide(dtype))?;
        let rows = x.dims()[0] * self.num_groups;
        let width = x.elem_count() / rows;
        let groups = wide.reshape((rows, width))?;
        let one = Tensor::ones(width, groups.dtype(), groups.device())?;
        let unit = crate::ops::layer_norm(&groups, &one, &one.zeros_like()?, self.eps)?;
        let unit = unit.reshape(x.shape())?;
        let mut wide = vec![1; x.rank()];
        wide[1] = self.num_channels;
        // Of wide numbers: half precision has too few digits for the sums that are the gradients of both.
        let scaled = unit.broadcast_mul(&widened(&self.weight)?.reshape(wide.as_slice())?)?;
        let y = scaled.broadcast_add(&widened(&self.bias)?.reshape(wide)?)?;
        y.to_dtype(dtype)
    }
}

/// With the variables `weight` and `bias`, both `[num_channels]`.
///
/// # Errors
/// As [`GroupNorm::new`]; the builder's.
pub fn group_norm(
    num_groups: usize,
    num_channels: usize,
    eps: f64,
    vb: VarBuilder,
) -> Result<GroupNorm> {
    let get = |name, value| variable(&vb, num_channels, name, Init::Const(value), Kind::Vector);
    let (weight, bias) = (get("weight", 1.0)?, get("bias", 0.0)?);
    GroupNorm::new(weight, bias, num_channels, num_groups, eps)
}
