//! Convolution, batch normalisation, residual addition and activation as one operation.

use super::super::engine::{Fused, Handle, Inner, Real, apply};
use super::super::wrong;
use super::kernels::Plan;
use super::kernels::batch::Chunks;
use super::normalised::{ConvNorm, Moments};
use super::{Convolution, at_rest, composed};
use crate::error::Result;
use candle_core::{DType, Device, Tensor, Var};
use std::sync::{Arc, OnceLock};

/// The activation after a normalised convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VisionActivation {
    /// a.
    #[default]
    Identity,
    /// max(a, 0); its derivative at 0 is 0.
    Relu,
    /// a σ(a).
    Silu,
}

/// The running mean and variance of a batch normalisation: state that is saved with a model but
/// not trained.
#[derive(Clone, Debug)]
pub struct RunningStatistics {
    /// One mean a channel, `[C]`.
    pub mean: Var,
    /// One variance a channel, `[C]`.
    pub variance: Var,
}

impl RunningStatistics {
    /// Mean 0 and variance 1, as a model starts with.
    ///
    /// # Errors
    /// If candle fails.
    pub fn new(channels: usize, dtype: DType, device: &Device) -> Result<Self> {
        Ok(Self {
            mean: Var::zeros(channels, dtype, device)?,
            variance: Var::ones(channels, dtype, device)?,
        })
    }

    fn read(&self) -> Result<Moments> {
        let read = |var: &Var| {
            let values = var.as_detached_tensor().to_dtype(DType::F64)?;
            values.to_vec1::<f64>()
        };
        Ok((read(&self.mean)?, read(&self.variance)?))
    }
}

/// y = γ (c - μ)/√(σ² + eps) + β over N, H and W of each channel.
///
/// In training μ and σ² are the batch's own (σ² without Bessel's correction), and the running
/// statistics move towards them: r ← (1 - momentum) r + momentum · batch, with the corrected variance,
/// as PyTorch does: once in every forward pass, so that a step of several micro-batches moves them
/// several times. In [`statistics_at_rest`](super::statistics_at_rest) they stay. In evaluation they are
/// the running ones.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    /// γ, `[C]`.
    pub weight: &'a Tensor,
    /// β, `[C]`.
    pub bias: &'a Tensor,
    /// The running mean and variance.
    pub running: &'a RunningStatistics,
    /// The weight of a batch in the running statistics.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
    /// Whether the batch's statistics are used, and the running ones updated.
    pub training: bool,
}

impl<'a> BatchNorm<'a> {
    /// With momentum 0.1 and eps 1e-5.
    pub fn new(
        weight: &'a Tensor,
        bias: &'a Tensor,
        running: &'a RunningStatistics,
        training: bool,
    ) -> Self {
        Self {
            weight,
            bias,
            running,
            momentum: 0.1,
            eps: 1e-5,
            training,
        }
    }

    /// Moves the running statistics towards a batch's mean and (uncorrected) variance over `count`
    /// values a channel.
    pub(crate) fn update(&self, mean: &Tensor, variance: &Tensor, count: usize) -> Result<()> {
        if at_rest::are() {
            return Ok(());
        }
        let correction = count as f64 / (count.max(2) - 1) as f64;
        let mix = |old: &Var, new: &Tensor, factor: f64| -> Result<()> {
            let new = (new * (self.momentum * factor))?.to_dtype(old.dtype())?;
            let new = new.to_device(old.device())?;
            let old_part = (old.as_detached_tensor() * (1.0 - self.momentum))?;
            Ok(old.set(&(old_part + new)?)?)
        };
        mix(&self.running.mean, mean, 1.0)?;
        mix(&self.running.variance, variance, correction)
    }

    fn check(&self, channels: usize) -> Result<()> {
        let parts = [
            ("weight of a batch normalisation", self.weight.dims()),
            ("bias of a batch normalisation", self.bias.dims()),
            ("running mean", self.running.mean.dims()),
            ("running variance", self.running.variance.dims()),
        ];
        for (what, dims) in parts {
            if dims != [channels] {
                return wrong(what, format!("[{channels}]"), format!("{dims:?}"));
            }
        }
        Ok(())
    }
}

/// act(BN(x ∗ w) + r): the unit that residual networks are made of.
///
/// `x` is [N, in, H, W], `weight` [out, in/groups, KH, KW] (no bias: the normalisation would cancel
/// it), `residual` like the result, [N, out, OH, OW].
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit; candle's errors.
pub fn conv_batch_norm(
    x: &Handle,
    weight: &Tensor,
    conv: &Convolution,
    norm: &BatchNorm,
    residual: Option<&Handle>,
    activation: VisionActivation,
) -> Result<Handle> {
    let shape = conv.check(x.dims(), weight.dims())?;
    norm.check(shape[1])?;
    if x.dims().contains(&0) || shape.contains(&0) {
        // Its mean would not be a number, and stay in the running statistics.
        return wrong(
            "batch of a normalisation",
            "at least one image, channel and pixel",
            format!("{:?}", x.dims()),
        );
    }
    if let Some(residual) = residual
        && residual.dims() != shape
    {
        return wrong(
            "residual",
            format!("{shape:?}"),
            format!("{:?}", residual.dims()),
        );
    }
    let unit = Unit {
        weight,
        conv,
        norm,
        activation,
        shape,
    };
    match x.inner() {
        Inner::Composed(x) => {
            let c = composed::conv2d(x, weight, None, conv)?;
            let residual = residual.map(Handle::exit).transpose()?;
            let y = composed::batch_norm(&c, norm, residual.as_ref(), activation)?;
            Ok(Handle::composed(&y))
        }
        Inner::F32(x) => Ok(unit.fused(x, residual)?.into()),
        Inner::F64(x) => Ok(unit.fused(x, residual)?.into()),
    }
}

struct Unit<'a> {
    weight: &'a Tensor,
    conv: &'a Convolution,
    norm: &'a BatchNorm<'a>,
    activation: VisionActivation,
    shape: [usize; 4],
}

impl Unit<'_> {
    fn fused<T: Real>(&self, x: &Fused<T>, residual: Option<&Handle>) -> Result<Fused<T>> {
        let [n, out, oh, ow] = self.shape;
        let weight = Fused::enter(self.weight)?;
        let plan = Plan::new(self.conv, &x.slot.shape, self.weight.dims(), oh, ow);
        let batch = Arc::new(OnceLock::new());
        let op = ConvNorm {
            chunks: Chunks::new(&plan, n),
            plan,
            activation: self.activation,
            eps: self.norm.eps,
            fixed: match self.norm.training {
                true => None,
                false => Some(self.norm.running.read()?),
            },
            batch: Arc::clone(&batch),
        };
        let (scale, shift) = (
            Fused::enter(self.norm.weight)?,
            Fused::enter(self.norm.bias)?,
        );
        let residual = residual.map(Fused::of).transpose()?;
        let mut inputs = vec![x, &weight, &scale, &shift];
        inputs.extend(&residual);
        let y = apply(op, &inputs, &self.shape)?;
        if let Some((mean, variance)) = batch.get() {
            let tensor = |x: &[f64]| Tensor::from_slice(x, out, &Device::Cpu);
            self.norm
                .update(&tensor(mean)?, &tensor(variance)?, n * oh * ow)?;
        }
        Ok(y)
    }
}
