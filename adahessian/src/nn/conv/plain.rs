//! Convolutions of sequences and images.

use super::{Conv1dConfig, Conv2dConfig};
use crate::nn::{BatchNorm, wrong};
use crate::numeric::widened;
use crate::ops::Convolution;
use candle_core::{Module, Result, Tensor};

/// `y[n,o,t] = b[o] + Σ_{i,k} w[o,i,k] x[n, i, s t + d k - p]`, in groups of channels.
///
/// The input is [N, in, L], `weight` [out, in/groups, K], `bias` `[out]`, the result [N, out, OL] with
/// OL = ⌊(L + 2p - d (K - 1) - 1)/s⌋ + 1. One fused operation on the CPU, after the border of zeros.
#[derive(Clone, Debug)]
pub struct Conv1d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: Conv1dConfig,
}

impl Conv1d {
    /// With this kernel. The choice of a cuDNN algorithm in `config` is not used.
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: Conv1dConfig) -> Self {
        Self {
            weight,
            bias,
            config,
        }
    }

    /// Stride, padding, dilation and groups.
    pub fn config(&self) -> &Conv1dConfig {
        &self.config
    }

    /// w, [out, in/groups, K].
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// b, `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for Conv1d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.rank() != 3 || self.weight.rank() != 3 {
            let expected = "[N, C, L] and a kernel [out, in/groups, K]";
            return wrong("conv1d", expected, (x.dims(), self.weight.dims()));
        }
        let config = &self.config;
        let conv = Convolution {
            stride: config.stride,
            dilation: config.dilation,
            groups: config.groups,
            ..Convolution::default()
        };
        // Only along the sequence: the operation would pad the height of 1, too.
        let x = match config.padding {
            0 => x.clone(),
            border => x.pad_with_zeros(2, border, border)?,
        };
        let (x, weight) = (x.unsqueeze(2)?, self.weight.unsqueeze(2)?);
        crate::ops::conv2d(&x, &weight, self.bias.as_ref(), &conv)?.squeeze(2)
    }
}

/// `y[n,o,y,x] = b[o] + Σ_{i,ky,kx} w[o,i,ky,kx] x[n, i, s y + d ky - p, s x + d kx - p]`, in groups.
///
/// The input is [N, in, H, W], `weight` [out, in/groups, KH, KW], `bias` `[out]`, the result
/// [N, out, OH, OW]. One fused operation on the CPU.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: Conv2dConfig,
}

impl Conv2d {
    /// With this kernel. The choice of a cuDNN algorithm in `config` is not used.
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: Conv2dConfig) -> Self {
        Self {
            weight,
            bias,
            config,
        }
    }

    /// Stride, padding, dilation and groups.
    pub fn config(&self) -> &Conv2dConfig {
        &self.config
    }

    /// w, [out, in/groups, KH, KW].
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// b, `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// This convolution and, after it, the batch norm of an evaluation, as one convolution.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a norm without weight and bias, or of other channels.
    pub fn absorb_bn(&self, norm: &BatchNorm) -> Result<Self> {
        let Some((scale, shift)) = norm.weight_and_bias() else {
            return wrong("batch norm to absorb", "weight and bias", "neither");
        };
        let outputs = self.weight.dims().first().copied().unwrap_or(0);
        if scale.dims() != [outputs] || self.weight.rank() != 4 {
            let expected = format!("{outputs} channels of a kernel [out, in/groups, KH, KW]");
            return wrong("batch norm to absorb", expected, scale.dims());
        }
        // Of a model in half precision in f32, as its running statistics are, and rounded once.
        let dtype = self.weight.dtype();
        let factor = (widened(scale)? / (widened(norm.running_var())? + norm.eps())?.sqrt()?)?;
        let mean = widened(norm.running_mean())?;
        let centre = match &self.bias {
            Some(bias) => (widened(bias)? - mean)?,
            None => mean.neg()?,
        };
        let bias = (widened(shift)? + (&factor * centre)?)?;
        let weight = widened(&self.weight)?;
        let weight = weight.broadcast_mul(&factor.reshape((outputs, 1, 1, 1))?)?;
        let [weight, bias] = [weight, bias].map(|t| t.to_dtype(dtype));
        Ok(Self::new(weight?, Some(bias?), self.config))
    }
}

impl Module for Conv2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let config = &self.config;
        let conv = Convolution {
            stride: config.stride,
            padding: config.padding,
            dilation: config.dilation,
            groups: config.groups,
            ..Convolution::default()
        };
        let bias = self.bias.as_ref();
        Ok(crate::ops::conv2d(x, &self.weight, bias, &conv)?)
    }
}
