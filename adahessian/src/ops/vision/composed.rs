//! The same operations composed of candle's, for every device and as the fused ones' reference.

use super::{BatchNorm, Convolution, Pooling, VisionActivation};
use crate::error::Result;
use crate::ops::activation::relu;
use candle_core::{DType, Tensor};

/// Σ of a convolution, as one matrix product over the stacked taps.
///
/// candle's own `conv2d` fails in its backward pass for a stride whose remainders differ between
/// height and width (a 5x6 image with stride 2), so every tap is cut out as a strided slice here:
/// slower, but right for every size, and to every order.
pub(crate) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    conv: &Convolution,
) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let (out, part, kh, kw) = weight.dims4()?;
    let (oh, ow) = conv.output_size((h, w), (kh, kw))?;
    let padded = pad(x, conv.padding, 0.0)?;
    let mut taps = Vec::with_capacity(kh * kw);
    for ky in 0..kh {
        let rows = strided(&padded, 2, ky * conv.dilation, conv.stride, oh)?;
        for kx in 0..kw {
            taps.push(strided(&rows, 3, kx * conv.dilation, conv.stride, ow)?);
        }
    }
    let groups = conv.groups;
    let columns = Tensor::stack(&taps, 2)?; // [N, C, K, OH, OW]
    let columns = columns
        .reshape((n, groups, c / groups * kh * kw, oh * ow))?
        .contiguous()?;
    let kernel = weight
        .contiguous()?
        .reshape((1, groups, out / groups, part * kh * kw))?
        .broadcast_as((n, groups, out / groups, part * kh * kw))?
        .contiguous()?;
    let y = kernel.matmul(&columns)?.reshape((n, out, oh, ow))?;
    Ok(match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, out, 1, 1))?)?,
        None => y,
    })
}

/// `count` entries of a dimension, from `start`, `stride` apart.
fn strided(
    x: &Tensor,
    dim: usize,
    start: usize,
    stride: usize,
    count: usize,
) -> candle_core::Result<Tensor> {
    if stride == 1 {
        return x.narrow(dim, start, count);
    }
    let indices: Vec<u32> = (0..count).map(|i| (start + i * stride) as u32).collect();
    let indices = Tensor::new(indices, x.device())?;
    x.contiguous()?.index_select(&indices, dim)
}

/// A border of `padding` entries of `value` around each image.
fn pad(x: &Tensor, padding: usize, value: f64) -> Result<Tensor> {
    if padding == 0 {
        return Ok(x.clone());
    }
    let border = |x: &Tensor, dim: usize| -> candle_core::Result<Tensor> {
        let mut shape = x.dims().to_vec();
        shape[dim] = padding;
        let part = Tensor::full(value, shape, x.device())?.to_dtype(x.dtype())?;
        Tensor::cat(&[&part, x, &part], dim)
    };
    Ok(border(&border(x, 2)?, 3)?)
}

/// act(γ (c - μ)/√(σ² + eps) + β + r) of a convolution's result c.
pub(crate) fn batch_norm(
    c: &Tensor,
    norm: &BatchNorm,
    residual: Option<&Tensor>,
    activation: VisionActivation,
) -> Result<Tensor> {
    let channels = c.dim(1)?;
    let wide = |t: &Tensor| t.reshape((1, channels, 1, 1));
    let (mean, variance) = match norm.training {
        true => {
            let mean = c.mean_keepdim((0, 2, 3))?;
            let centred = c.broadcast_sub(&mean)?;
            let variance = centred.sqr()?.mean_keepdim((0, 2, 3))?;
            norm.update(
                &mean.detach().flatten_all()?,
                &variance.detach().flatten_all()?,
                c.elem_count() / channels.max(1),
            )?;
            (mean, variance)
        }
        false => (
            wide(norm.running.mean.as_detached_tensor().as_ref())?,
            wide(norm.running.variance.as_detached_tensor().as_ref())?,
        ),
    };
    let normal = c
        .broadcast_sub(&mean)?
        .broadcast_div(&(variance + norm.eps)?.sqrt()?)?;
    let a = normal
        .broadcast_mul(&wide(norm.weight)?)?
        .broadcast_add(&wide(norm.bias)?)?;
    let a = match residual {
        Some(residual) => (a + residual)?,
        None => a,
    };
    Ok(match activation {
        VisionActivation::Identity => a,
        VisionActivation::Relu => relu(&a)?,
        VisionActivation::Silu => a.silu()?,
    })
}

/// The maximum over windows, as the maximum over strided slices.
pub(crate) fn max_pool2d(x: &Tensor, pooling: &Pooling) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let (oh, ow) = pooling.output_size((h, w))?;
    let lowest = match x.dtype() {
        DType::F64 => f64::MIN,
        _ => f64::from(f32::MIN),
    };
    let padded = pad(x, pooling.padding, lowest)?;
    let mut best: Option<Tensor> = None;
    for ky in 0..pooling.kernel {
        let rows = strided(&padded, 2, ky, pooling.stride, oh)?;
        for kx in 0..pooling.kernel {
            let tap = strided(&rows, 3, kx, pooling.stride, ow)?;
            best = Some(match best {
                None => tap,
                Some(best) => larger(&best, &tap)?,
            });
        }
    }
    match best {
        Some(best) => Ok(best),
        None => super::super::wrong("pooling kernel", "at least 1", "0"),
    }
}

/// The larger of two, the first of equals and the first not-a-number, as in the fused form. candle's own
/// `maximum` would share the gradient between equals, and swallows not-a-number on a GPU.
fn larger(best: &Tensor, tap: &Tensor) -> Result<Tensor> {
    let (b, t) = (best.detach(), tap.detach());
    // The first is false where either is not-a-number, the second true where the best is.
    let keep = (t.le(&b)? + b.ne(&b)?)?;
    Ok(keep.where_cond(best, tap)?)
}

/// The mean over windows; the border counts as zeros, as in PyTorch.
pub(crate) fn avg_pool2d(x: &Tensor, pooling: &Pooling) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let (oh, ow) = pooling.output_size((h, w))?;
    let padded = pad(x, pooling.padding, 0.0)?;
    let mut sum: Option<Tensor> = None;
    for ky in 0..pooling.kernel {
        let rows = strided(&padded, 2, ky, pooling.stride, oh)?;
        for kx in 0..pooling.kernel {
            let tap = strided(&rows, 3, kx, pooling.stride, ow)?;
            sum = Some(match sum {
                None => tap,
                Some(sum) => (sum + tap)?,
            });
        }
    }
    match sum {
        Some(sum) => Ok((sum / (pooling.kernel * pooling.kernel) as f64)?),
        None => super::super::wrong("pooling kernel", "at least 1", "0"),
    }
}

/// Every `stride`-th row and column, and zeros for the channels that `x` does not have.
pub(crate) fn subsample_channels(x: &Tensor, stride: usize, channels: usize) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let rows = strided(x, 2, 0, stride, h.div_ceil(stride))?;
    let y = strided(&rows, 3, 0, stride, w.div_ceil(stride))?;
    if channels == c {
        return Ok(y);
    }
    let (before, after) = super::subsample::borders(c, channels);
    let (_, _, oh, ow) = y.dims4()?;
    let zeros = |count: usize| Tensor::zeros((n, count, oh, ow), x.dtype(), x.device());
    Ok(Tensor::cat(&[&zeros(before)?, &y, &zeros(after)?], 1)?)
}
