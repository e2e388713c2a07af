//! A convolution and the batch normalisation after it as one layer, which candle_nn has as two.

use super::conv::{kernel_with, part};
use super::{Init, VarBuilder, init, variable};
use crate::Kind;
use crate::engine::Operand;
use crate::ops::{self, Activation, Convolution, RunningStatistics};
use candle_core::{Result, Tensor, Var};

/// What a [`ConvBatchNorm`] is like.
#[derive(Clone, Copy, Debug)]
pub struct ConvBatchNormConfig {
    /// Stride, padding, dilation and groups.
    pub convolution: Convolution,
    /// The kernel at first.
    pub kernel: Init,
    /// The weight of a batch in the running statistics.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
}

impl ConvBatchNormConfig {
    /// With candle's start of a kernel, a momentum of 0.1 and an ε of 1e-5.
    pub fn new(convolution: Convolution) -> Self {
        Self {
            convolution,
            kernel: init::DEFAULT_KAIMING_NORMAL,
            momentum: 0.1,
            eps: 1e-5,
        }
    }
}

/// act(BN(x ∗ w) + r): convolution without a bias, batch normalisation, addition and activation, one
/// fused operation on the CPU.
///
/// The input is [N, in, H, W], the kernel [out, in/groups, K, K], the result and the residual r
/// [N, out, OH, OW]. The running statistics are variables that are saved with the others and not trained.
#[derive(Clone, Debug)]
pub struct ConvBatchNorm {
    kernel: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: RunningStatistics,
    config: ConvBatchNormConfig,
}

impl ConvBatchNorm {
    /// What it is like.
    pub fn config(&self) -> &ConvBatchNormConfig {
        &self.config
    }

    /// The kernel, [out, in/groups, K, K].
    pub fn kernel(&self) -> &Tensor {
        &self.kernel
    }

    /// With the batch's statistics in `training`, towards which the running ones move; else with those.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for shapes that do not fit.
    pub fn forward<X: Operand>(
        &self,
        x: &X,
        residual: Option<&X>,
        activation: Activation,
        training: bool,
    ) -> crate::Result<X> {
        let norm = ops::BatchNorm {
            weight: &self.weight,
            bias: &self.bias,
            running: &self.running,
            momentum: self.config.momentum,
            eps: self.config.eps,
            training,
        };
        let (kernel, convolution) = (&self.kernel, &self.config.convolution);
        ops::conv_batch_norm(x, kernel, convolution, &norm, residual, activation)
    }
}

/// With the variable `weight` [out, in/groups, kernel_size, kernel_size] of the first builder, and
/// `weight`, `bias`, `running_mean` and `running_var` `[out]` of the second, the norm's.
///
/// # Errors
/// [`crate::Error::Setting`] for groups that do not divide the channels; the builder's.
pub fn conv_batch_norm(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    config: ConvBatchNormConfig,
    [conv, norm]: [VarBuilder; 2],
) -> Result<ConvBatchNorm> {
    let inputs = part(in_channels, config.convolution.groups)?;
    let shape = (out_channels, inputs, kernel_size, kernel_size);
    let get = |name, value, kind| variable(&norm, out_channels, name, Init::Const(value), kind);
    let statistic = |name, value| Var::from_tensor(&get(name, value, Kind::Statistic)?);
    Ok(ConvBatchNorm {
        kernel: kernel_with(shape, config.kernel, &conv)?,
        weight: get("weight", 1.0, Kind::Vector)?,
        bias: get("bias", 0.0, Kind::Vector)?,
        running: RunningStatistics {
            mean: statistic("running_mean", 0.0)?,
            variance: statistic("running_var", 1.0)?,
        },
        config,
    })
}
