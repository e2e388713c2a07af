//! The transposed convolution of images: the convolution, with the kernel turned around, of the input
//! with s - 1 zeros between its entries.

use crate::nn::wrong;
use crate::ops::Convolution;
use candle_core::{Result, Tensor};

/// How a transposed convolution moves: padding by side (height, width), the rest alike.
pub(super) struct Geometry {
    pub stride: usize,
    pub dilation: usize,
    pub groups: usize,
    pub padding: [usize; 2],
    pub output_padding: [usize; 2],
}

/// `y[n, o, s y + d ky - p, ..] += w[i, o, ky, kx] x[n, i, y, x]`: [N, in, H, W] and a kernel
/// [in, out/groups, KH, KW] give [N, out, s (H - 1) + d (KH - 1) + 1 - 2p + q, ..] with the output
/// padding q.
pub(super) fn transposed(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    geometry: &Geometry,
) -> Result<Tensor> {
    check(x, weight, geometry)?;
    let kernel = [weight.dim(2)?, weight.dim(3)?];
    let mut x = x.clone();
    for (side, kernel) in kernel.into_iter().enumerate() {
        let dim = side + 2;
        x = spread(&x, dim, geometry.stride)?;
        let reach = (geometry.dilation * (kernel - 1)) as isize;
        let before = reach - geometry.padding[side] as isize;
        let after = before + geometry.output_padding[side] as isize;
        x = border(&x, dim, before, after)?;
    }
    let conv = Convolution {
        dilation: geometry.dilation,
        groups: geometry.groups,
        ..Convolution::default()
    };
    Ok(crate::ops::conv2d(
        &x,
        &turned(weight, geometry.groups)?,
        bias,
        &conv,
    )?)
}

fn check(x: &Tensor, weight: &Tensor, geometry: &Geometry) -> Result<()> {
    let Geometry {
        stride,
        dilation,
        groups,
        ..
    } = *geometry;
    let steps = stride > 0 && dilation > 0 && groups > 0;
    let late = geometry
        .output_padding
        .iter()
        .any(|q| *q >= stride.max(dilation));
    let fits = match (x.dims(), weight.dims()) {
        (&[_, c, h, w], &[inputs, _, kh, kw]) => {
            c == inputs && steps && c % groups == 0 && ![h, w, kh, kw].contains(&0)
        }
        _ => false,
    };
    if !fits {
        let expected = "an input of `in` channels, a kernel [in, out/groups, K..] in whole groups, \
                        stride and dilation at least 1, no size of 0";
        let got = (x.dims(), weight.dims(), [stride, dilation, groups]);
        return wrong("transposed convolution", expected, got);
    }
    match late {
        false => Ok(()),
        true => wrong(
            "output padding of a transposed convolution",
            "below the stride or the dilation",
            geometry.output_padding,
        ),
    }
}

/// With `stride` - 1 zeros between two entries of a dimension.
fn spread(x: &Tensor, dim: usize, stride: usize) -> Result<Tensor> {
    let size = x.dim(dim)?;
    if stride == 1 || size == 1 {
        return Ok(x.clone());
    }
    let wide = x
        .unsqueeze(dim + 1)?
        .pad_with_zeros(dim + 1, 0, stride - 1)?;
    let mut shape = x.dims().to_vec();
    shape[dim] = size * stride;
    wide.reshape(shape)?.narrow(dim, 0, (size - 1) * stride + 1)
}

/// With zeros on both sides of a dimension, or with entries taken away, where a number is negative.
fn border(x: &Tensor, dim: usize, before: isize, after: isize) -> Result<Tensor> {
    let zeros = |side: isize| side.max(0).unsigned_abs();
    let x = match (zeros(before), zeros(after)) {
        (0, 0) => x.clone(),
        (before, after) => x.pad_with_zeros(dim, before, after)?,
    };
    let cut = |side: isize| side.min(0).unsigned_abs();
    let size = x.dim(dim)?;
    match size.checked_sub(cut(before) + cut(after)) {
        Some(left) if left > 0 => x.narrow(dim, cut(before), left),
        _ => wrong(
            "padding of a transposed convolution",
            format!("less than takes all {size} entries away"),
            cut(before),
        ),
    }
}

/// [in, out/groups, KH, KW] to [out, in/groups, KH, KW], turned around in height and width.
fn turned(weight: &Tensor, groups: usize) -> Result<Tensor> {
    let (inputs, outputs, kh, kw) = weight.dims4()?;
    let parts = weight.reshape((groups, inputs / groups, outputs, kh * kw))?;
    let parts = parts.transpose(1, 2)?.contiguous()?.flip(&[3])?;
    parts
        .contiguous()?
        .reshape((groups * outputs, inputs / groups, kh, kw))
}
