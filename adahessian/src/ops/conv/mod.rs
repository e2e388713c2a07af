//! Two-dimensional convolution, alone and with a batch normalisation.
//!
//! Images are [N, C, H, W], kernels [out, in/groups, KH, KW].

pub mod batch_norm;
mod columns;
pub(crate) mod composed;
mod cpu;
pub(crate) mod kernels;
mod tensors;

use super::wrong;
use crate::engine::{Handle, Kernels, Op, Operand, call};
use crate::error::Result;
use crate::numeric::widened;
use candle_core::Tensor;

/// How a fused convolution is computed on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// By the sizes: what was the fastest when it was measured.
    #[default]
    Measured,
    /// On shifted views of each image with its border: no column matrix is made.
    Views,
    /// As a product of matrices over several images' columns (im2col).
    Columns,
}

/// How a kernel moves over an image; the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// Pixels between two positions of the kernel.
    pub stride: usize,
    /// Zeros added on every side of the image.
    pub padding: usize,
    /// Pixels between two taps of the kernel.
    pub dilation: usize,
    /// Input and output channels are split into this many equal, consecutive parts, each output
    /// seeing the inputs of its own part.
    pub groups: usize,
    /// How it is computed; the result is the same up to rounding.
    pub method: Method,
}

/// Stride 1, no padding, no dilation, one group.
impl Default for Convolution {
    fn default() -> Self {
        Self {
            stride: 1,
            padding: 0,
            dilation: 1,
            groups: 1,
            method: Method::Measured,
        }
    }
}

impl Convolution {
    /// Stride and padding, with dilation and groups 1.
    pub fn new(stride: usize, padding: usize) -> Self {
        Self {
            stride,
            padding,
            ..Self::default()
        }
    }

    /// The height and width of the result: ⌊(size + 2·padding - dilation·(kernel - 1) - 1)/stride⌋ + 1.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] if the kernel does not fit, or for a stride or dilation of 0.
    pub fn output_size(
        &self,
        (height, width): (usize, usize),
        (kernel_height, kernel_width): (usize, usize),
    ) -> Result<(usize, usize)> {
        if self.stride == 0 || self.dilation == 0 || kernel_height == 0 || kernel_width == 0 {
            let got = format!("{self:?} with kernel {kernel_height}x{kernel_width}");
            return wrong("convolution", "stride, dilation and kernel at least 1", got);
        }
        let one = |size: usize, kernel: usize| {
            let reach = self.dilation.checked_mul(kernel - 1)?.checked_add(1)?;
            let padded = self.padding.checked_mul(2)?.checked_add(size)?;
            let rest = padded.checked_sub(reach)?;
            Some(rest / self.stride + 1)
        };
        match (one(height, kernel_height), one(width, kernel_width)) {
            (Some(height), Some(width)) => Ok((height, width)),
            _ => wrong(
                "convolution",
                format!(
                    "an image at least as large as the kernel ({kernel_height}x{kernel_width}, dilation {})",
                    self.dilation
                ),
                format!("{height}x{width} with padding {}", self.padding),
            ),
        }
    }

    /// Whether shapes of image and kernel fit; the shape of the result.
    pub(crate) fn check(&self, x: &[usize], weight: &[usize]) -> Result<[usize; 4]> {
        let (&[n, c, h, w], &[out, part, kh, kw]) = (x, weight) else {
            return wrong(
                "convolution",
                "an image [N, C, H, W] and a kernel [out, in/groups, KH, KW]",
                format!("{x:?} and {weight:?}"),
            );
        };
        let inputs = part.checked_mul(self.groups);
        if self.groups == 0 || inputs != Some(c) || !out.is_multiple_of(self.groups) {
            return wrong(
                "convolution",
                format!(
                    "{} input channels ({part} in each of {} groups) and outputs that the groups divide",
                    part.saturating_mul(self.groups),
                    self.groups
                ),
                format!("{c} inputs, {out} outputs"),
            );
        }
        let (oh, ow) = self.output_size((h, w), (kh, kw))?;
        Ok([n, out, oh, ow])
    }
}

/// ```text
/// c[n,o,y,x] = b[o] + Σ_{i,ky,kx} w[o,i,ky,kx] · x[n, i, s·y + d·ky - p, s·x + d·kx - p]
/// ```
///
/// `x` is [N, in, H, W], `weight` [out, in/groups, KH, KW], `bias` `[out]`, the result
/// [N, out, OH, OW] with the size of [`Convolution::output_size`].
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit; candle's errors.
pub fn conv2d<X: Operand>(
    x: &X,
    weight: &Tensor,
    bias: Option<&Tensor>,
    conv: &Convolution,
) -> Result<X> {
    X::of(on(x, weight, bias, conv)?)
}

fn on(
    x: &dyn Operand,
    weight: &Tensor,
    bias: Option<&Tensor>,
    conv: &Convolution,
) -> Result<Handle> {
    let op = Conv2d { conv: *conv };
    match bias {
        Some(bias) => call(op, &[x, weight, bias]),
        None => call(op, &[x, weight]),
    }
}

struct Conv2d {
    conv: Convolution,
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let shape = self.conv.check(inputs[0], inputs[1])?;
        match inputs.get(2) {
            Some(bias) if *bias != [shape[1]] => {
                let expected = format!("[{}]", shape[1]);
                wrong("bias of a convolution", expected, format!("{bias:?}"))
            }
            _ => Ok(shape.to_vec()),
        }
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let y = composed::conv2d(&inputs[0], &inputs[1], &self.conv)?;
        match inputs.get(2) {
            // Whose gradient is a sum over all pixels: half precision has too few digits for it.
            Some(bias) => Ok(widened(&y)?
                .broadcast_add(&widened(bias)?.reshape((1, (), 1, 1))?)?
                .to_dtype(y.dtype())?),
            None => Ok(y),
        }
    }

    fn kernels() -> Kernels<Self> {
        Kernels::everywhere()
    }
}
