//! Transposed convolutions of sequences and images.

use super::spread::{Geometry, transposed};
use super::{ConvTranspose1dConfig, ConvTranspose2dConfig};
use crate::nn::wrong;
use candle_core::{Module, Result, Tensor};

/// The transpose of [`Conv1d`](super::Conv1d)'s map: `y[n, o, s t + d k - p] += w[i, o, k] x[n, i, t]`.
///
/// The input is [N, in, L], `weight` [in, out/groups, K], `bias` `[out]`, the result [N, out, OL] with
/// OL = s (L - 1) + d (K - 1) + 1 - 2p + output padding, which has to be below s or d, as in PyTorch.
#[derive(Clone, Debug)]
pub struct ConvTranspose1d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: ConvTranspose1dConfig,
}

impl ConvTranspose1d {
    /// With this kernel.
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: ConvTranspose1dConfig) -> Self {
        Self {
            weight,
            bias,
            config,
        }
    }

    /// Stride, paddings, dilation and groups.
    pub fn config(&self) -> &ConvTranspose1dConfig {
        &self.config
    }

    /// w, [in, out/groups, K].
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// b, `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for ConvTranspose1d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.rank() != 3 || self.weight.rank() != 3 {
            let expected = "[N, C, L] and a kernel [in, out/groups, K]";
            return wrong("conv_transpose1d", expected, (x.dims(), self.weight.dims()));
        }
        let geometry = Geometry {
            stride: self.config.stride,
            dilation: self.config.dilation,
            groups: self.config.groups,
            padding: [0, self.config.padding],
            output_padding: [0, self.config.output_padding],
        };
        let (x, weight) = (x.unsqueeze(2)?, self.weight.unsqueeze(2)?);
        transposed(&x, &weight, self.bias.as_ref(), &geometry)?.squeeze(2)
    }
}

/// The transpose of [`Conv2d`](super::Conv2d)'s map.
///
/// The input is [N, in, H, W], `weight` [in, out, KH, KW], `bias` `[out]`, the result [N, out, OH, OW] with
/// sizes as in [`ConvTranspose1d`].
#[derive(Clone, Debug)]
pub struct ConvTranspose2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: ConvTranspose2dConfig,
}

impl ConvTranspose2d {
    /// With this kernel.
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: ConvTranspose2dConfig) -> Self {
        Self {
            weight,
            bias,
            config,
        }
    }

    /// Stride, paddings and dilation.
    pub fn config(&self) -> &ConvTranspose2dConfig {
        &self.config
    }

    /// w, [in, out, KH, KW].
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// b, `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for ConvTranspose2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let geometry = Geometry {
            stride: self.config.stride,
            dilation: self.config.dilation,
            groups: 1,
            padding: [self.config.padding; 2],
            output_padding: [self.config.output_padding; 2],
        };
        transposed(x, &self.weight, self.bias.as_ref(), &geometry)
    }
}
