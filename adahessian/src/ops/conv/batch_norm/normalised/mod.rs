//! act(BN(x ∗ w) + r) as one operation of the engine.
//!
//! With n images times positions, means over n, s = 1/√(σ² + eps), x̂ = (c - μ) s, F the convolution and
//! BI, BW its input and weight gradients, B0(h) = h - mean(h) - x̂ mean(h x̂):
//! ```text
//! F:   c = F(x, w);  a = γ x̂ + β + r;  y = act(a)
//! A:   h = g act'(a);  gr = h;  gβ = Σh;  gγ = Σ h x̂;  u = γ s B0(h);  gx = BI(u, w);  gw = BW(x, u)
//! ∂A:  t = F(v_x, w) + F(x, v_w);   H, Hx, T, Tx, TH = means of h, h x̂, t, t x̂, t h
//!      h̄ = γ s (t - T - x̂ Tx) + v_γ x̂ + v_β + v_r;   ḡ = h̄ act'(a);   ā = h̄ g act''(a)
//!      γ̄_A = s n (TH - T H - Tx Hx);   w̄_A = BW(v_x, u)
//!      c̄_A = -γ s² (TH - T H - Tx Hx) x̂ + (v_γ - s γ Tx) s B0(h) - s² γ Hx B0(t)
//! ∂F:  k = ȳ act'(a) + ā;  r̄ = k;  β̄ = Σk;  γ̄ = Σ k x̂ + γ̄_A;  c̄ = γ s B0(k) + c̄_A
//!      x̄ = BI(c̄, w) + BI(u, v_w);   w̄ = BW(x, c̄) + w̄_A
//! ```
//! In evaluation μ and s are constants: B0(h) = h, and of the terms in H, Hx, T, Tx only TH stays.
//!
//! Kept between the passes: x̂ and y, then g, then t. h and u are computed again where needed.
//!
//! Here are the operation and what it keeps. [`forward`] computes F, [`first`] A, [`tangent`] ∂A and
//! [`second`] ∂F, each as loops of [`rows`] over the images of a batch, with the numbers that
//! [`coefficients`] makes of the means.

mod coefficients;
mod first;
mod forward;
mod second;
mod tangent;

use super::ConvBatchNorm;
use super::rows::{self, Fused, Image};
use crate::engine::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use crate::engine::{Cpu, Kernel};
use crate::error::Result;
use crate::numeric::{Buffer, Real};
use crate::ops::conv::kernels::Plan;
use crate::ops::conv::kernels::batch::Chunks;
use candle_core::{Device, Tensor};

/// Mean and (uncorrected) variance of a batch, one a channel.
pub(super) type Moments = (Vec<f64>, Vec<f64>);

/// How the operation is computed for a batch.
pub(super) struct Unit {
    plan: Plan,
    chunks: Chunks,
    /// In evaluation, the running statistics.
    fixed: Option<Moments>,
}

pub(super) struct Saved<T: Real> {
    unit: Unit,
    /// x̂
    normal: Buffer<T>,
    /// s
    scale: Vec<f64>,
}

/// Everything that the derivatives are computed from.
struct Values<'a, T: Real> {
    /// x, w, γ, β
    inputs: [&'a [T]; 4],
    residual: Option<&'a [T]>,
    output: &'a [T],
    saved: &'a Saved<T>,
}

impl<'a, T: Real> Values<'a, T> {
    fn of(point: &'a Point<T, Saved<T>>) -> Result<Self> {
        let [x, w, scale, shift] = [0, 1, 2, 3].map(|i| point.input(i));
        Ok(Self {
            inputs: [x?, w?, scale?, shift?],
            residual: point.optional(4)?,
            output: point.output()?,
            saved: point.saved,
        })
    }
}

/// What the derivative of the first level leaves for the second.
pub(super) struct Deferred<T: Real> {
    gradient: Array<T>,
    /// H and Hx.
    h: Vec<[f64; 2]>,
    tangent: Buffer<T>,
    /// T, Tx, TH.
    t: Vec<[f64; 3]>,
    /// w̄_A as the chunks' sum, where v_x was given.
    weight: Option<Buffer<T>>,
    v_weight: Option<Array<T>>,
    v_scale: Option<Vec<T>>,
    v_shift: Option<Vec<T>>,
    v_residual: Option<Array<T>>,
}

impl Unit {
    fn new(op: &ConvBatchNorm, x: &[usize], weight: &[usize]) -> Result<Self> {
        let [images, _, oh, ow] = op.conv.check(x, weight)?;
        let plan = Plan::new(&op.conv, x, weight, oh, ow);
        Ok(Self {
            chunks: Chunks::new(&plan, images),
            plan,
            fixed: op.fixed.as_ref().map(|r| r.moments()).transpose()?,
        })
    }

    fn positions(&self) -> usize {
        self.plan.oh * self.plan.ow
    }

    fn input_size(&self) -> usize {
        self.plan.c * self.plan.h * self.plan.w
    }

    fn output_size(&self) -> usize {
        self.plan.out * self.positions()
    }

    /// Values a channel.
    fn count(&self) -> f64 {
        (self.chunks.images * self.positions()) as f64
    }

    /// One image at the point of differentiation.
    fn image<'a, T: Real>(&self, point: &Values<'a, T>, first: usize) -> Image<'a, T> {
        let outs = self.output_size();
        let part = first * outs..(first + 1) * outs;
        Image {
            normal: &point.saved.normal[part.clone()],
            output: &point.output[part.clone()],
            residual: point.residual.map(|r| &r[part]),
            weight: point.inputs[2],
            bias: point.inputs[3],
        }
    }

    /// One number a channel, as a gradient.
    fn of_channels<T: Real>(&self, values: impl Iterator<Item = f64>) -> Buffer<T> {
        let mut buffer = Buffer::scratch(self.plan.out);
        buffer
            .iter_mut()
            .zip(values)
            .for_each(|(to, x)| *to = T::from_f64(x));
        buffer
    }
}

impl<T: Real> Kernel<Cpu<T>> for ConvBatchNorm {
    type Saved = Saved<T>;
    /// H and Hx.
    type Kept = Vec<[f64; 2]>;
    type Deferred = Deferred<T>;

    fn reads_value(&self) -> bool {
        true
    }

    fn forward(&self, inputs: &Inputs<T>, keep: bool) -> Result<(Output<T>, Saved<T>)> {
        let unit = Unit::new(self, inputs.shape(0), inputs.shape(1))?;
        let mut normal = Buffer::scratch(unit.chunks.images * unit.output_size());
        let parts = unit.convolve(&inputs[0], &inputs[1], &mut normal);
        let (mean, variance) = match &unit.fixed {
            Some(moments) => moments.clone(),
            None => unit.combine(&parts),
        };
        let root = |v: &f64| 1.0 / (v + self.eps).sqrt();
        let scale: Vec<f64> = variance.iter().map(root).collect();
        let output = rows::with_slope!(self.activation, S => {
            unit.normalise::<T, S>(inputs, &mut normal, &mean, &scale)
        });
        let constant = |x: &[f64]| Tensor::from_slice(x, x.len(), &Device::Cpu);
        self.note(constant(&mean)?, constant(&variance)?);
        if !keep {
            normal = Buffer::scratch(0);
        }
        let saved = Saved {
            unit,
            normal,
            scale,
        };
        Ok((output.into(), saved))
    }

    fn adjoint(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: Option<&[T]>,
        deferred: Option<Deferred<T>>,
        wanted: &[bool],
        onto: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, Vec<[f64; 2]>)> {
        let (at, unit) = (Values::of(point)?, &point.saved.unit);
        let onto = onto[0].take();
        rows::with_slope!(self.activation, S => match (deferred, gradient) {
            (Some(left), _) => {
                let gradients = unit.second::<T, S>(&at, gradient, left, wanted, onto)?;
                Ok((gradients, Vec::new()))
            }
            (None, Some(gradient)) => Ok(unit.first::<T, S>(&at, gradient, wanted, onto)),
            (None, None) => Ok((vec![onto], Vec::new())),
        })
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: &Array<T>,
        kept: &Vec<[f64; 2]>,
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Deferred<T>)> {
        let (at, unit) = (Values::of(point)?, &point.saved.unit);
        rows::with_slope!(self.activation, S => {
            let left = unit.tangent::<T, S>(&at, gradient, kept, cotangents)?;
            Ok((unit.cotangent::<T, S>(&at, &left)?.into(), left))
        })
    }
}
