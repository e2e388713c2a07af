//! The three products of a convolution, and [`cpu`](super::cpu)'s operation, in candle's operations on
//! tensors without a graph.
//!
//! On a CUDA device each is a product of matrices over [`columns`](super::columns). Elsewhere, and for groups of
//! channels, F is candle's own convolution, which is right forwards. The gradients are convolutions, too: BI one of u
//! spread out by the stride with the kernel turned around, BW one of images with images whose channels and
//! batch have changed places. candle's own backward pass fails where the remainders of a stride differ
//! between height and width; here each has its own.

use super::{Conv2d, Convolution};
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers, plus};
use crate::engine::{Kernel, Pairs, Tensors, there};
use crate::error::Result;
use crate::numeric::columns::Taps;
use crate::numeric::formula::Space;
use candle_core::Tensor;

fn sum_over(
    pairs: Pairs,
    product: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Option<Tensor>> {
    let mut sum = None;
    for (a, b) in pairs {
        sum = plus(sum, Some(product(a, b)?))?;
    }
    Ok(sum)
}

/// A convolution on images of this size with kernels of this size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Products {
    conv: Convolution,
    height: usize,
    width: usize,
    kernel: (usize, usize),
}

/// `count` entries of a dimension from `start` on, which may begin before it and end behind it, where there are zeros.
fn window(x: &Tensor, dim: usize, start: isize, count: usize) -> candle_core::Result<Tensor> {
    let size = x.dim(dim)? as isize;
    let end = start + count as isize;
    let x = x.narrow(
        dim,
        start.max(0) as usize,
        (end.min(size) - start.max(0)).max(0) as usize,
    )?;
    let (before, after) = ((-start).max(0), (end - size).max(0));
    match (before, after) {
        (0, 0) => Ok(x),
        (before, after) => x.pad_with_zeros(dim, before as usize, after as usize),
    }
}

impl Products {
    pub fn new(conv: &Convolution, x: &[usize], weight: &[usize]) -> Self {
        // A stride beyond the image is one that just leaves it: neither memory nor sizes go by what it skips.
        let beyond = x[2]
            .max(x[3])
            .saturating_add(conv.padding.saturating_mul(2));
        Self {
            conv: Convolution {
                stride: conv.stride.min(beyond.max(1)),
                ..*conv
            },
            height: x[2],
            width: x[3],
            kernel: (weight[2], weight[3]),
        }
    }

    /// How the kernel meets the images; none where there are groups of channels.
    pub fn taps(&self) -> Option<Taps> {
        let image = (self.height, self.width);
        let output = self.conv.output_size(image, self.kernel).ok()?;
        (self.conv.groups == 1).then_some(Taps {
            image,
            output,
            kernel: self.kernel,
            stride: self.conv.stride,
            padding: self.conv.padding,
            dilation: self.conv.dilation,
        })
    }

    /// The sum of F(x, w) over pairs; none of no pairs.
    pub fn forward(&self, pairs: Pairs) -> Result<Option<Tensor>> {
        match self.forward_of_columns(pairs)? {
            Some(y) => Ok(Some(y)),
            None => sum_over(pairs, |x, w| self.forward_of_one(x, w)),
        }
    }

    /// The sum of BI(u, w), in the same way.
    pub fn input_gradient(&self, pairs: Pairs) -> Result<Option<Tensor>> {
        match self.input_gradient_of_columns(pairs)? {
            Some(x) => Ok(Some(x)),
            None => sum_over(pairs, |u, w| self.input_gradient_of_one(u, w)),
        }
    }

    /// The sum of BW(x, u), in the same way.
    pub fn weight_gradient(&self, pairs: Pairs) -> Result<Option<Tensor>> {
        match self.weight_gradient_of_columns(pairs)? {
            Some(w) => Ok(Some(w)),
            None => sum_over(pairs, |x, u| self.weight_gradient_of_one(x, u)),
        }
    }

    fn forward_of_one(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        let Convolution {
            stride,
            padding,
            dilation,
            groups,
            ..
        } = self.conv;
        let y = x
            .contiguous()?
            .conv2d(&w.contiguous()?, padding, stride, dilation, groups)?;
        Ok(y.contiguous()?)
    }

    /// Group number `group` of a dimension.
    fn part(&self, x: &Tensor, dim: usize, group: usize) -> Result<Tensor> {
        let size = x.dim(dim)? / self.conv.groups;
        Ok(x.narrow(dim, group * size, size)?)
    }

    fn by_groups(&self, dim: usize, of_group: impl Fn(usize) -> Result<Tensor>) -> Result<Tensor> {
        match self.conv.groups {
            1 => of_group(0),
            groups => {
                let all = (0..groups).map(of_group).collect::<Result<Vec<_>>>()?;
                Ok(Tensor::cat(&all, dim)?)
            }
        }
    }

    fn input_gradient_of_one(&self, u: &Tensor, w: &Tensor) -> Result<Tensor> {
        let u = self.spread(u)?;
        self.by_groups(1, |group| {
            let (u, w) = (self.part(&u, 1, group)?, self.part(w, 0, group)?);
            let w = turned(&w)?; // [in, out, KH, KW]
            let x = u.contiguous()?.conv2d(&w, 0, 1, self.conv.dilation, 1)?;
            Ok(x.contiguous()?)
        })
    }

    /// u with stride - 1 zeros between its pixels and a border, so that a convolution with the kernel, turned
    /// around, gives an image of the input's size.
    fn spread(&self, u: &Tensor) -> Result<Tensor> {
        let Convolution {
            stride,
            padding,
            dilation,
            ..
        } = self.conv;
        let mut u = u.contiguous()?;
        if stride > 1 {
            let (n, c, h, w) = u.dims4()?;
            let apart = u.reshape((n, c * h, 1, w, 1))?;
            let apart = apart.pad_with_zeros(2, 0, stride - 1)?;
            let apart = apart.pad_with_zeros(4, 0, stride - 1)?;
            u = apart.reshape((n, c, h * stride, w * stride))?;
        }
        for (dim, size, kernel) in [
            (2, self.height, self.kernel.0),
            (3, self.width, self.kernel.1),
        ] {
            let reach = dilation * (kernel - 1);
            u = window(&u, dim, padding as isize - reach as isize, size + reach)?;
        }
        Ok(u)
    }

    fn weight_gradient_of_one(&self, x: &Tensor, u: &Tensor) -> Result<Tensor> {
        let Convolution {
            stride,
            padding,
            dilation,
            ..
        } = self.conv;
        self.by_groups(0, |group| {
            let swapped = |t: &Tensor| -> Result<Tensor> {
                let part = self.part(t, 1, group)?;
                Ok(part.transpose(0, 1)?.contiguous()?)
            };
            let (x, u) = (swapped(x)?, swapped(u)?);
            // Strides and dilations change places.
            let w = x.conv2d(&u, padding, dilation, stride, 1)?; // [in, out, ≥ KH, ≥ KW]
            let w = w.narrow(2, 0, self.kernel.0)?.narrow(3, 0, self.kernel.1)?;
            Ok(w.transpose(0, 1)?.contiguous()?)
        })
    }
}

/// The kernel with inputs and outputs exchanged and both directions turned around.
fn turned(w: &Tensor) -> Result<Tensor> {
    let (out, part, kh, kw) = w.dims4()?;
    let w = w.transpose(0, 1)?.contiguous()?;
    if kh * kw == 1 {
        return Ok(w);
    }
    let taps = (kh * kw) as u32;
    let backwards: Vec<u32> = (0..taps).rev().collect();
    let backwards = Tensor::new(backwards, w.device())?;
    let w = w.reshape((part, out, kh * kw))?;
    let w = w.index_select(&backwards, 2)?;
    Ok(w.reshape((part, out, kh, kw))?)
}

/// What the second level leaves: the first pass's gradient and the cotangents of gx and gw.
pub(super) struct Left {
    gradient: Tensor,
    v_x: Option<Tensor>,
    v_w: Option<Tensor>,
}

impl Kernel<Tensors> for Conv2d {
    type Saved = Products;
    type Kept = ();
    type Deferred = Left;

    /// Not the bias.
    fn reads(&self, input: usize) -> bool {
        input < 2
    }

    fn forward(&self, inputs: &Inputs, _: bool) -> Result<(Output, Products)> {
        let products = Products::new(&self.conv, inputs.shape(0), inputs.shape(1));
        let y = products.forward(&[(&inputs[0], &inputs[1])])?;
        let mut y = y.ok_or_else(no_product)?;
        if let Some(bias) = inputs.get(2) {
            y = y.broadcast_add(&bias.reshape((1, (), 1, 1))?)?;
        }
        Ok((y.into(), products))
    }

    fn adjoint(
        &self,
        point: &Point<Products>,
        gradient: Option<&Tensor>,
        deferred: Option<Left>,
        wanted: &[bool],
        _: &mut Gradients,
    ) -> Result<(Gradients, ())> {
        let (x, w, products) = (point.input(0)?, point.input(1)?, point.saved);
        let left = deferred.as_ref();
        let u = left.map(|left| &left.gradient);
        let v_x = left.and_then(|left| left.v_x.as_ref());
        let v_w = left.and_then(|left| left.v_w.as_ref());
        let (mut gx, mut gw) = (None, None);
        if wanted[0] {
            gx = products.input_gradient(&there([(gradient, Some(w)), (u, v_w)]))?;
        }
        if wanted[1] {
            gw = products.weight_gradient(&there([(Some(x), gradient), (v_x, u)]))?;
        }
        let gb = match (gradient, wanted.get(2)) {
            (Some(g), Some(true)) => Some(channel_sums(g)?),
            _ => None,
        };
        let all = [gx, gw, gb].map(|gradient| gradient.map(Into::into));
        Ok((all.into_iter().take(wanted.len()).collect(), ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<Products>,
        gradient: &Array,
        _: &(),
        cotangents: &[Option<Held>],
    ) -> Result<(Output, Left)> {
        let (x, w, products) = (point.input(0)?, point.input(1)?, point.saved);
        let gradient = gradient.view()?.into_tensor();
        let v_x = numbers(cotangents.first())?;
        let v_w = numbers(cotangents.get(1))?;
        let pairs = there([(v_x.as_ref(), Some(w)), (Some(x), v_w.as_ref())]);
        let mut tangent = match products.forward(&pairs)? {
            Some(tangent) => tangent,
            None => gradient.zeros_like()?,
        };
        if let Some(v_b) = numbers(cotangents.get(2))? {
            tangent = tangent.broadcast_add(&v_b.reshape((1, (), 1, 1))?)?;
        }
        let left = Left { gradient, v_x, v_w };
        Ok((tangent.into(), left))
    }
}

pub(super) fn no_product() -> crate::Error {
    crate::Error::Engine {
        what: "a convolution of one pair is there".into(),
    }
}

/// Σ over images and pixels of every channel, [C].
pub(super) fn channel_sums(x: &Tensor) -> Result<Tensor> {
    let space = Space::channels(x.dims());
    let sum = space.entries(x)?.sum();
    let [sum] = space.compute([sum])?;
    Ok(sum)
}
