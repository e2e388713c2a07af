//! Convolution, batch normalisation, residual addition and activation as one operation.

mod at_rest;
mod normalised;
mod rows;
mod tensors;

pub use at_rest::statistics_at_rest;

use super::{Convolution, composed};
use crate::engine::{Entrywise, Handle, Kernels, Op, Operand, call};
use crate::error::Result;
use crate::numeric::formula::Space;
use crate::numeric::traced::{Symbol, Test};
use crate::numeric::widened;
use crate::ops::{Activation, activation as apply, wrong};
use candle_core::{DType, Device, Tensor, Var};
use normalised::Moments;
use rows::Fused;
use std::sync::{Arc, OnceLock};

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
    /// Mean 0 and variance 1, as a model starts with. In half precision they stand still some per cent, or with a small
    /// momentum many, before the batch's: of a model in half precision have them in f32.
    ///
    /// # Errors
    /// If candle fails.
    pub fn new(channels: usize, dtype: DType, device: &Device) -> Result<Self> {
        Ok(Self {
            mean: Var::zeros(channels, dtype, device)?,
            variance: Var::ones(channels, dtype, device)?,
        })
    }

    fn moments(&self) -> Result<Moments> {
        let read = |var: &Var| {
            let values = var.as_detached_tensor().to_dtype(DType::F64)?;
            values.to_vec1::<f64>()
        };
        Ok((read(&self.mean)?, read(&self.variance)?))
    }

    /// Moves them towards a batch's mean and (uncorrected) variance over `count` values a channel, with
    /// the batch's weight `momentum`. Without `mean` the running mean stays. A channel whose batch is not finite keeps
    /// what it has: the step is skipped, and so it shall be here.
    pub(crate) fn follow(
        &self,
        mean: Option<&Tensor>,
        variance: &Tensor,
        momentum: f64,
        count: usize,
    ) -> Result<()> {
        if at_rest::are() {
            return Ok(());
        }
        let correction = count as f64 / (count.max(2) - 1) as f64;
        let space = Space::whole(self.variance.dims());
        // Of statistics in half precision in f32: 0.9 and 0.1 in bf16 do not add up to 1.
        let mix = |old: &Var, new: &Tensor, factor: f64| -> Result<[Symbol; 2]> {
            let kept = widened(&old.as_detached_tensor())?;
            let new = new.to_dtype(kept.dtype())?.to_device(old.device())?;
            let kept = space.entries(&kept)?;
            let mixed = &kept * (1.0 - momentum) + space.entries(&new)? * (momentum * factor);
            Ok([mixed, kept])
        };
        let mean = mean.map(|mean| mix(&self.mean, mean, 1.0)).transpose()?;
        let variance = mix(&self.variance, variance, correction)?;
        // Both or neither, without a copy to the host: 0 x is a number for finite numbers alone, and what is none is not
        // itself.
        let zero = match &mean {
            Some([mean, _]) => &variance[0] * 0.0 + mean * 0.0,
            None => &variance[0] * 0.0,
        };
        let chosen = |[mixed, kept]: [Symbol; 2]| zero.choose(Test::Equal, &zero, &mixed, &kept);
        let (variance, mean) = (chosen(variance), mean.map(chosen));
        let ([variance], [mean]) = space.compute_both([variance], [mean])?;
        if let Some(mean) = mean {
            set_rounded(&self.mean, &mean)?;
        }
        set_rounded(&self.variance, &variance)
    }
}

/// Sets a variable to numbers of a wider type; one that would be infinite in its own stays what it was.
fn set_rounded(var: &Var, new: &Tensor) -> Result<()> {
    if new.dtype() == var.dtype() {
        return Ok(var.set(new)?);
    }
    let rounded = new.to_dtype(var.dtype())?;
    let zero = (&rounded * 0.0)?; // no number of what is not finite
    let is_finite = zero.eq(&zero)?;
    Ok(var.set(&is_finite.where_cond(&rounded, &var.as_detached_tensor())?)?)
}

/// y = γ (c - μ)/√(σ² + eps) + β over N, H and W of each channel.
///
/// In training μ and σ² are the batch's own (σ² without Bessel's correction), and the running
/// statistics move towards them: r ← (1 - momentum) r + momentum · batch, with the corrected variance,
/// as PyTorch does: once in every forward pass, so that a step of several micro-batches moves them
/// several times. In [`statistics_at_rest`] they stay. In evaluation they are
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

    fn check(&self, channels: usize) -> Result<()> {
        let numbers = (self.eps, self.momentum);
        if self.eps.is_nan() || self.eps < 0.0 || !(0.0..=1.0).contains(&self.momentum) {
            let expected = "eps at least 0, momentum between 0 and 1";
            return wrong("batch normalisation", expected, format!("{numbers:?}"));
        }
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
/// [`crate::Error::Setting`] for shapes that do not fit, a momentum outside of 0 to 1 or a negative eps, and in training for
/// one value a channel; candle's errors.
pub fn conv_batch_norm<X: Operand>(
    x: &X,
    weight: &Tensor,
    conv: &Convolution,
    norm: &BatchNorm,
    residual: Option<&X>,
    activation: Activation,
) -> Result<X> {
    let residual = residual.map(|residual| residual as &dyn Operand);
    X::of(on(x, weight, conv, norm, residual, activation)?)
}

fn on(
    x: &dyn Operand,
    weight: &Tensor,
    conv: &Convolution,
    norm: &BatchNorm,
    residual: Option<&dyn Operand>,
    activation: Activation,
) -> Result<Handle> {
    let shape = conv.check(x.dims(), weight.dims())?;
    norm.check(shape[1])?;
    let count = shape[0] * shape[2] * shape[3];
    if norm.training && count == 1 {
        return one_value(&shape);
    }
    let fused = match activation {
        Activation::Identity => Fused::Identity,
        Activation::Relu => Fused::Relu,
        Activation::Silu => Fused::Silu,
        other => {
            let y = on(x, weight, conv, norm, residual, Activation::Identity)?;
            return apply(&y, other);
        }
    };
    let batch = Arc::new(OnceLock::new());
    let op = ConvBatchNorm {
        conv: *conv,
        eps: norm.eps,
        activation: fused,
        fixed: (!norm.training).then(|| norm.running.clone()),
        batch: Arc::clone(&batch),
    };
    let mut inputs: Vec<&dyn Operand> = vec![x, weight, norm.weight, norm.bias];
    inputs.extend(residual);
    let y = call(op, &inputs)?;
    if let (Some([mean, variance]), true) = (batch.get(), norm.training) {
        let running = norm.running;
        running.follow(Some(mean), variance, norm.momentum, count)?;
    }
    Ok(y)
}

/// The error of a batch with one value a channel, which is its own mean: the result would be β, whatever
/// the input is.
pub(crate) fn one_value<T>(shape: &[usize]) -> Result<T> {
    let expected = "more than one value a channel in training: more images, or larger ones";
    wrong("batch of a normalisation", expected, format!("{shape:?}"))
}

struct ConvBatchNorm {
    conv: Convolution,
    eps: f64,
    activation: Fused,
    /// In evaluation, the running statistics.
    fixed: Option<RunningStatistics>,
    /// In training, where the batch's mean and variance are left.
    batch: Arc<OnceLock<[Tensor; 2]>>,
}

impl ConvBatchNorm {
    /// Leaves the statistics of a batch: only its forward pass does, once.
    fn note(&self, mean: Tensor, variance: Tensor) {
        let _ = self.batch.set([mean, variance]);
    }
}

impl Op for ConvBatchNorm {
    fn name(&self) -> &'static str {
        "conv_batch_norm"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let shape = self.conv.check(inputs[0], inputs[1])?;
        if inputs[0].contains(&0) || shape.contains(&0) {
            // Its mean would not be a number, and stay in the running statistics.
            return wrong(
                "batch of a normalisation",
                "at least one image, channel and pixel",
                format!("{:?}", inputs[0]),
            );
        }
        match inputs.get(4) {
            Some(residual) if *residual != shape => {
                wrong("residual", format!("{shape:?}"), format!("{residual:?}"))
            }
            _ => Ok(shape.to_vec()),
        }
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let c = composed::conv2d(&inputs[0], &inputs[1], &self.conv)?;
        let (channels, dtype) = (c.dim(1)?, c.dtype());
        // Sums over a batch are beyond what half precision can add or hold.
        let c = widened(&c)?;
        let broad = |t: &Tensor| t.reshape((1, channels, 1, 1));
        let (mean, variance) = match &self.fixed {
            None => {
                let mean = c.mean_keepdim((0, 2, 3))?;
                let variance = c.broadcast_sub(&mean)?.sqr()?.mean_keepdim((0, 2, 3))?;
                let flat = |x: &Tensor| x.detach().flatten_all();
                self.note(flat(&mean)?, flat(&variance)?);
                (mean, variance)
            }
            Some(running) => (
                broad(&widened(&running.mean.as_detached_tensor())?)?,
                broad(&widened(&running.variance.as_detached_tensor())?)?,
            ),
        };
        let normal = c
            .broadcast_sub(&mean)?
            .broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        let a = normal
            .broadcast_mul(&broad(&widened(&inputs[2])?)?)?
            .broadcast_add(&broad(&widened(&inputs[3])?)?)?
            .to_dtype(dtype)?;
        let a = match inputs.get(4) {
            Some(residual) => (a + residual)?,
            None => a,
        };
        match self.activation {
            Fused::Identity => Ok(a),
            Fused::Relu => Activation::Relu.composed(&a),
            Fused::Silu => Activation::Silu.composed(&a),
        }
    }

    fn kernels() -> Kernels<Self> {
        Kernels::everywhere()
    }
}
