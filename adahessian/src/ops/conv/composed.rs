//! What convolutions and pools are composed of on every device: strided slices.

use super::Convolution;
use crate::error::Result;
use candle_core::Tensor;

/// Σ of a convolution, as one matrix product over the stacked taps.
///
/// candle's own `conv2d` fails in its backward pass for a stride whose remainders differ between
/// height and width (a 5x6 image with stride 2), so every tap is cut out as a strided slice here:
/// slower, but right for every size, and to every order.
pub(crate) fn conv2d(x: &Tensor, weight: &Tensor, conv: &Convolution) -> Result<Tensor> {
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
    // One product for the whole batch: a product an image would want, and sum up, a kernel an image.
    let columns = Tensor::stack(&taps, 0)?; // [K, N, C, OH, OW]
    let columns = columns.permute((2, 0, 1, 3, 4))?.contiguous()?.reshape((
        groups,
        c / groups * kh * kw,
        n * oh * ow,
    ))?;
    let kernel = weight
        .contiguous()?
        .reshape((groups, out / groups, part * kh * kw))?;
    let rows = kernel.matmul(&columns)?.reshape((out, n, oh, ow))?;
    Ok(rows.transpose(0, 1)?.contiguous()?)
}

/// `count` entries of a dimension, from `start`, `stride` apart.
pub(crate) fn strided(
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
pub(crate) fn pad(x: &Tensor, padding: usize, value: f64) -> Result<Tensor> {
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
