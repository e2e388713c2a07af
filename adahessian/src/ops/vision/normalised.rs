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

use super::VisionActivation;
use super::kernels::Plan;
use super::kernels::batch::{
    Block, Chunks, Kernel, Workspace, channel_sums, reduce, split, sums_length,
};
use super::rows::{self, Bar, Image, Slope};
use crate::ops::engine::{Buffer, Gradients, Inputs, Op, Point, Real};
use crate::ops::simd::{self, Width};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

/// Mean and (uncorrected) variance of a batch, one a channel.
pub(super) type Moments = (Vec<f64>, Vec<f64>);

pub(super) struct ConvNorm {
    pub plan: Plan,
    pub chunks: Chunks,
    pub activation: VisionActivation,
    pub eps: f64,
    /// In evaluation, the running statistics.
    pub fixed: Option<Moments>,
    /// In training, where the batch's are left.
    pub batch: Arc<OnceLock<Moments>>,
}

pub(super) struct Saved<T: Real> {
    /// x̂
    normal: Buffer<T>,
    /// s
    scale: Vec<f64>,
}

/// What the second level leaves.
pub(super) struct Deferred<T: Real> {
    gradient: Arc<Buffer<T>>,
    /// H and Hx.
    h: Vec<[f64; 2]>,
    tangent: Buffer<T>,
    /// T, Tx, TH.
    t: Vec<[f64; 3]>,
    /// w̄_A as the chunks' sum, where v_x was given.
    weight: Option<Buffer<T>>,
    v_weight: Option<Arc<Buffer<T>>>,
    v_scale: Option<Arc<Buffer<T>>>,
    v_shift: Option<Arc<Buffer<T>>>,
    v_residual: Option<Arc<Buffer<T>>>,
}

impl ConvNorm {
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

    /// 1 in training, 0 in evaluation: the factor of all that comes from the batch's statistics.
    fn batch_factor(&self) -> f64 {
        if self.fixed.is_some() { 0.0 } else { 1.0 }
    }

    fn means<const N: usize>(&self, parts: &[[f64; N]]) -> Vec<[f64; N]> {
        let count = self.count();
        let sums = channel_sums(parts, self.plan.out);
        sums.into_iter().map(|sum| sum.map(|x| x / count)).collect()
    }

    /// c into `values`, and each image's statistics.
    fn convolve<T: Real>(&self, x: &[T], w: &[T], values: &mut [T]) -> Vec<[f64; 2]> {
        let (plan, per) = (&self.plan, self.chunks.per);
        let (ins, outs) = (self.input_size(), self.output_size());
        let weight = Kernel::forward(plan, w);
        let mut parts = vec![[0.0; 2]; self.chunks.images * plan.out];
        values
            .par_chunks_mut(per * outs)
            .zip(parts.par_chunks_mut(per * plan.out))
            .enumerate()
            .for_each(|(chunk, (values, parts))| {
                let mut space = Workspace::forward(plan);
                for block in self.chunks.blocks(chunk) {
                    let values = block.in_chunk(values, outs);
                    space.correlate(plan, &weight, block.of(x, ins), values, false);
                    if self.fixed.is_some() {
                        continue;
                    }
                    let parts = block.in_chunk(parts, plan.out);
                    let images = values.chunks_exact(outs);
                    for (values, result) in images.zip(parts.chunks_exact_mut(plan.out)) {
                        simd::run(Width::Widest, rows::Statistics { values, result });
                    }
                }
            });
        parts
    }

    /// Mean and variance of the batch from those of its images.
    fn combine(&self, parts: &[[f64; 2]]) -> Moments {
        let images = parts.chunks_exact(self.plan.out);
        let (mut mean, mut variance) = (vec![0.0; self.plan.out], vec![0.0; self.plan.out]);
        for image in images.clone() {
            mean.iter_mut()
                .zip(image)
                .for_each(|(mean, part)| *mean += part[0]);
        }
        mean.iter_mut()
            .for_each(|mean| *mean /= self.chunks.images as f64);
        for image in images {
            for (o, part) in image.iter().enumerate() {
                let apart = part[0] - mean[o];
                variance[o] += part[1] + apart * apart * self.positions() as f64;
            }
        }
        variance.iter_mut().for_each(|v| *v /= self.count());
        (mean, variance)
    }

    fn image<'a, T: Real>(&self, point: &'a Point<T, Saved<T>>, first: usize) -> Image<'a, T> {
        let outs = self.output_size();
        let part = first * outs..(first + 1) * outs;
        Image {
            normal: &point.saved.normal[part.clone()],
            output: &point.output[part.clone()],
            residual: point.inputs.get(4).map(|r| &r[part]),
            weight: &point.inputs[2],
            bias: &point.inputs[3],
        }
    }

    /// u = γ s (h - H - x̂ Hx) as coefficients of h, x̂ and 1.
    fn u_coefficients<T: Real>(&self, gamma: &[T], scale: &[f64], h: &[[f64; 2]]) -> Vec<[T; 3]> {
        let batch = self.batch_factor();
        let channels = gamma.iter().zip(scale).zip(h);
        channels
            .map(|((gamma, s), [mean, along])| {
                let f = gamma.to_f64() * s;
                [f, -batch * f * along, -batch * f * mean].map(T::from_f64)
            })
            .collect()
    }

    /// h̄ as coefficients of t, x̂ and 1.
    fn bar_coefficients<T: Real>(
        &self,
        gamma: &[T],
        scale: &[f64],
        t: &[[f64; 3]],
        v_scale: Option<&[T]>,
        v_shift: Option<&[T]>,
    ) -> Vec<[T; 3]> {
        let batch = self.batch_factor();
        let at = |v: Option<&[T]>, o: usize| v.map_or(0.0, |v| v[o].to_f64());
        (0..gamma.len())
            .map(|o| {
                let f = gamma[o].to_f64() * scale[o];
                let [mean, along, _] = t[o];
                let along = at(v_scale, o) - batch * f * along;
                let shift = at(v_shift, o) - batch * f * mean;
                [f, along, shift].map(T::from_f64)
            })
            .collect()
    }

    /// TH - T H - Tx Hx, or TH in evaluation.
    fn cross(&self, t: &[f64; 3], h: &[f64; 2]) -> f64 {
        t[2] - self.batch_factor() * (t[0] * h[0] + t[1] * h[1])
    }

    /// c̄ as coefficients of k, h, t, x̂ and 1.
    fn c_coefficients<T: Real>(
        &self,
        gamma: &[T],
        scale: &[f64],
        k: &[[f64; 2]],
        left: &Deferred<T>,
    ) -> Vec<[T; 5]> {
        let batch = self.batch_factor();
        (0..gamma.len())
            .map(|o| {
                let (gamma, s) = (gamma[o].to_f64(), scale[o]);
                let (h, t) = (&left.h[o], &left.t[o]);
                let v = left.v_scale.as_ref().map_or(0.0, |v| v[o].to_f64());
                let with_k = gamma * s;
                let with_h = (v - batch * s * gamma * t[1]) * s;
                let with_t = -batch * s * s * gamma * h[1];
                let along = with_k * k[o][1]
                    + gamma * s * s * self.cross(t, h)
                    + with_h * h[1]
                    + with_t * t[1];
                let shift = with_k * k[o][0] + with_h * h[0] + with_t * t[0];
                [with_k, with_h, with_t, -batch * along, -batch * shift].map(T::from_f64)
            })
            .collect()
    }

    /// The first level: gradients from g.
    fn first<T: Real, S: Slope<T>>(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: &[T],
        wanted: &[bool],
        onto: Option<Buffer<T>>,
    ) -> (Gradients<T>, Vec<[f64; 2]>) {
        let (plan, per, n) = (&self.plan, self.chunks.per, self.chunks.images);
        let (ins, outs) = (self.input_size(), self.output_size());
        let mut parts = vec![[0.0; 2]; n * plan.out];
        gradient
            .par_chunks(outs)
            .zip(parts.par_chunks_mut(plan.out))
            .enumerate()
            .for_each(|(i, (gradient, result))| {
                let image = self.image(point, i);
                let task = rows::GradientSums {
                    image,
                    gradient,
                    result,
                    slope: PhantomData::<S>,
                };
                simd::run(Width::Widest, task);
            });
        let h = self.means(&parts);
        let coefficients = self.u_coefficients(&point.inputs[2], &point.saved.scale, &h);
        let x: &[T] = &point.inputs[0];
        let weight = Kernel::backward(plan, &point.inputs[1]);
        let mut sums = Buffer::zeroed(self.chunks.count() * sums_length(plan));
        let add = onto.is_some();
        let mut gx = onto.unwrap_or_else(|| Buffer::scratch(if wanted[0] { n * ins } else { 0 }));
        let with_r = wanted.get(4) == Some(&true);
        let mut gr = Buffer::scratch(if with_r { n * outs } else { 0 });
        let chunks = sums.par_chunks_mut(sums_length(plan)).enumerate();
        chunks
            .zip(split(&mut gx, per * ins, self.chunks.count()))
            .zip(split(&mut gr, per * outs, self.chunks.count()))
            .for_each(|(((chunk, sums), gx), gr)| {
                let mut space = Workspace::backward(plan);
                let mut room = Buffer::scratch(plan.block * outs);
                for block in self.chunks.blocks(chunk) {
                    let u = &mut room[..block.count * outs];
                    let gr = with_r.then(|| block.in_chunk(gr, outs));
                    self.input_gradient::<T, S>(point, gradient, &coefficients, block, u, gr);
                    space.weight_gradient(plan, block.of(x, ins), u, sums);
                    if wanted[0] {
                        let gx = block.in_chunk(gx, ins);
                        space.input_gradient(plan, &weight, u, gx, add);
                    }
                }
            });
        let mut gradients = vec![
            wanted[0].then_some(gx),
            Some(reduce(plan, &mut sums)),
            Some(self.of_channels(h.iter().map(|h| h[1] * self.count()))),
            Some(self.of_channels(h.iter().map(|h| h[0] * self.count()))),
        ];
        gradients.push(with_r.then_some(gr));
        (gradients, h)
    }

    /// u, and h where it is wanted, for a block of images.
    fn input_gradient<T: Real, S: Slope<T>>(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: &[T],
        coefficients: &[[T; 3]],
        block: Block,
        u: &mut [T],
        mut h: Option<&mut [T]>,
    ) {
        let outs = self.output_size();
        for (i, image) in block.images() {
            let task = rows::InputGradient {
                image: self.image(point, image),
                gradient: &gradient[image * outs..][..outs],
                coefficients,
                u: &mut u[i * outs..][..outs],
                h: h.as_mut().map(|h| &mut h[i * outs..][..outs]),
                slope: PhantomData::<S>,
            };
            simd::run(Width::Widest, task);
        }
    }

    fn of_channels<T: Real>(&self, values: impl Iterator<Item = f64>) -> Buffer<T> {
        let mut buffer = Buffer::scratch(self.plan.out);
        buffer
            .iter_mut()
            .zip(values)
            .for_each(|(to, x)| *to = T::from_f64(x));
        buffer
    }

    /// The derivative of the first level: t, its means, and w̄_A.
    fn tangent<T: Real, S: Slope<T>>(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: &Arc<Buffer<T>>,
        h: &[[f64; 2]],
        v: &[Option<Arc<Buffer<T>>>],
    ) -> Deferred<T> {
        let (plan, per, n) = (&self.plan, self.chunks.per, self.chunks.images);
        let (ins, outs) = (self.input_size(), self.output_size());
        let coefficients = self.u_coefficients(&point.inputs[2], &point.saved.scale, h);
        let x: &[T] = &point.inputs[0];
        let weight = Kernel::forward(plan, &point.inputs[1]);
        let v_weight = v[1].as_ref().map(|v| Kernel::forward(plan, v));
        let length = v[0].as_ref().map_or(0, |_| sums_length(plan));
        let mut sums = Buffer::zeroed(self.chunks.count() * length);
        let mut tangent = Buffer::scratch(n * outs);
        let mut parts = vec![[0.0; 3]; n * plan.out];
        tangent
            .par_chunks_mut(per * outs)
            .zip(parts.par_chunks_mut(per * plan.out))
            .zip(split(&mut sums, length, self.chunks.count()))
            .enumerate()
            .for_each(|(chunk, ((tangent, parts), sums))| {
                let mut space = Workspace::backward(plan);
                let mut room = Buffer::scratch(plan.block * outs);
                for block in self.chunks.blocks(chunk) {
                    let tangent = block.in_chunk(tangent, outs);
                    if let Some(v) = &v[0] {
                        space.correlate(plan, &weight, block.of(v, ins), tangent, false);
                        let u = &mut room[..block.count * outs];
                        self.input_gradient::<T, S>(point, gradient, &coefficients, block, u, None);
                        space.weight_gradient_of_grid(plan, u, sums);
                    }
                    match &v_weight {
                        Some(w) => {
                            let onto = v[0].is_some();
                            space.correlate(plan, w, block.of(x, ins), tangent, onto);
                        }
                        None if v[0].is_none() => tangent.fill(T::ZERO),
                        None => {}
                    }
                    let parts = block.in_chunk(parts, plan.out);
                    for (i, image) in block.images() {
                        let task = rows::TangentSums {
                            image: self.image(point, image),
                            gradient: &gradient[image * outs..][..outs],
                            tangent: &tangent[i * outs..][..outs],
                            result: &mut parts[i * plan.out..][..plan.out],
                            slope: PhantomData::<S>,
                        };
                        simd::run(Width::Widest, task);
                    }
                }
            });
        let weight = v[0].is_some().then(|| reduce(plan, &mut sums));
        Deferred {
            gradient: Arc::clone(gradient),
            h: h.to_vec(),
            tangent,
            t: self.means(&parts),
            weight,
            v_weight: v[1].clone(),
            v_scale: v[2].clone(),
            v_shift: v[3].clone(),
            v_residual: v.get(4).cloned().flatten(),
        }
    }

    fn bar<'a, T: Real>(
        &self,
        left: &'a Deferred<T>,
        coefficients: &'a [[T; 3]],
        image: usize,
    ) -> Bar<'a, T> {
        let outs = self.output_size();
        Bar {
            coefficients,
            tangent: &left.tangent[image * outs..][..outs],
            residual: left.v_residual.as_ref().map(|r| &r[image * outs..][..outs]),
        }
    }

    fn coefficients_of_bar<T: Real>(
        &self,
        point: &Point<T, Saved<T>>,
        left: &Deferred<T>,
    ) -> Vec<[T; 3]> {
        let v_scale = left.v_scale.as_ref().map(|v| &v[..]);
        let v_shift = left.v_shift.as_ref().map(|v| &v[..]);
        self.bar_coefficients(
            &point.inputs[2],
            &point.saved.scale,
            &left.t,
            v_scale,
            v_shift,
        )
    }

    /// ḡ = h̄ act'(a).
    fn cotangent<T: Real, S: Slope<T>>(
        &self,
        point: &Point<T, Saved<T>>,
        left: &Deferred<T>,
    ) -> Buffer<T> {
        let outs = self.output_size();
        let coefficients = self.coefficients_of_bar(point, left);
        let mut cotangent = Buffer::scratch(self.chunks.images * outs);
        cotangent
            .par_chunks_mut(outs)
            .enumerate()
            .for_each(|(i, result)| {
                let task = rows::Cotangent {
                    image: self.image(point, i),
                    bar: self.bar(left, &coefficients, i),
                    result,
                    slope: PhantomData::<S>,
                };
                simd::run(Width::Widest, task);
            });
        cotangent
    }

    /// The second level: from ȳ and what was left.
    fn second<T: Real, S: Slope<T>>(
        &self,
        point: &Point<T, Saved<T>>,
        cotangent: Option<&[T]>,
        mut left: Deferred<T>,
        wanted: &[bool],
        onto: Option<Buffer<T>>,
    ) -> Gradients<T> {
        let (plan, per, n) = (&self.plan, self.chunks.per, self.chunks.images);
        let (ins, outs) = (self.input_size(), self.output_size());
        let bars = self.coefficients_of_bar(point, &left);
        let with_r = wanted.get(4) == Some(&true);
        let mut r = Buffer::scratch(if with_r { n * outs } else { 0 });
        let mut parts = vec![[0.0; 2]; n * plan.out];
        parts
            .par_chunks_mut(plan.out)
            .zip(split(&mut r, outs, n))
            .enumerate()
            .for_each(|(i, (result, r))| {
                let task = rows::SecondSums {
                    image: self.image(point, i),
                    cotangent: cotangent.map(|c| &c[i * outs..][..outs]),
                    second: Some(self.at(&left, &bars, i)),
                    result,
                    k: with_r.then_some(r),
                    slope: PhantomData::<S>,
                };
                simd::run(Width::Widest, task);
            });
        let k = self.means(&parts);
        let (gamma, scale) = (&point.inputs[2], &point.saved.scale);
        let coefficients = self.c_coefficients(gamma, scale, &k, &left);
        let u_coefficients = self.u_coefficients(gamma, scale, &left.h);
        let x: &[T] = &point.inputs[0];
        let weight = Kernel::backward(plan, &point.inputs[1]);
        let v_weight = left.v_weight.as_ref().map(|v| Kernel::backward(plan, v));
        let mut sums = Buffer::zeroed(self.chunks.count() * sums_length(plan));
        let add = onto.is_some();
        let mut gx = onto.unwrap_or_else(|| Buffer::scratch(if wanted[0] { n * ins } else { 0 }));
        let chunks = sums.par_chunks_mut(sums_length(plan)).enumerate();
        chunks
            .zip(split(&mut gx, per * ins, self.chunks.count()))
            .for_each(|((chunk, sums), gx)| {
                let mut space = Workspace::backward(plan);
                let size = plan.block * outs;
                let (mut c, mut u) = (Buffer::scratch(size), Buffer::scratch(size));
                for block in self.chunks.blocks(chunk) {
                    for (i, image) in block.images() {
                        let task = rows::SecondInput {
                            image: self.image(point, image),
                            cotangent: cotangent.map(|c| &c[image * outs..][..outs]),
                            second: self.at(&left, &bars, image),
                            coefficients: &coefficients,
                            u_coefficients: &u_coefficients,
                            c: &mut c[i * outs..][..outs],
                            u: &mut u[i * outs..][..outs],
                            slope: PhantomData::<S>,
                        };
                        simd::run(Width::Widest, task);
                    }
                    let (c, u) = (&c[..block.count * outs], &u[..block.count * outs]);
                    space.weight_gradient(plan, block.of(x, ins), c, sums);
                    if wanted[0] {
                        let gx = block.in_chunk(gx, ins);
                        space.input_gradient(plan, &weight, c, gx, add);
                        if let Some(weight) = &v_weight {
                            space.input_gradient(plan, weight, u, gx, true);
                        }
                    }
                }
            });
        let mut w = reduce(plan, &mut sums);
        if let Some(part) = left.weight.take() {
            simd::add_assign(&mut w, &part);
        }
        let count = self.count();
        let scale_gradient = (0..plan.out)
            .map(|o| count * (k[o][1] + scale[o] * self.cross(&left.t[o], &left.h[o])));
        vec![
            wanted[0].then_some(gx),
            Some(w),
            Some(self.of_channels(scale_gradient)),
            Some(self.of_channels(k.iter().map(|k| k[0] * count))),
            with_r.then_some(r),
        ]
    }

    fn at<'a, T: Real>(
        &self,
        left: &'a Deferred<T>,
        bars: &'a [[T; 3]],
        image: usize,
    ) -> rows::Second<'a, T> {
        let outs = self.output_size();
        rows::Second {
            gradient: &left.gradient[image * outs..][..outs],
            bar: self.bar(left, bars, image),
        }
    }
}

impl<T: Real> Op<T> for ConvNorm {
    type Saved = Saved<T>;
    /// H and Hx.
    type Kept = Vec<[f64; 2]>;
    type Deferred = Deferred<T>;

    fn name(&self) -> &'static str {
        "conv_batch_norm"
    }

    fn forward(&self, inputs: &Inputs<T>, keep: bool) -> (Buffer<T>, Saved<T>) {
        let outs = self.output_size();
        let mut normal = Buffer::scratch(self.chunks.images * outs);
        let parts = self.convolve(&inputs[0], &inputs[1], &mut normal);
        let (mean, variance) = match &self.fixed {
            Some(moments) => moments.clone(),
            None => self.combine(&parts),
        };
        let scale: Vec<f64> = variance
            .iter()
            .map(|v| 1.0 / (v + self.eps).sqrt())
            .collect();
        let numbers = |x: &[f64]| x.iter().map(|&x| T::from_f64(x)).collect::<Vec<T>>();
        let (means, scales) = (numbers(&mean), numbers(&scale));
        if self.fixed.is_none() {
            // Only this forward pass writes, once.
            let _ = self.batch.set((mean, variance));
        }
        let mut output = Buffer::scratch(normal.len());
        let (weight, bias): (&[T], &[T]) = (&inputs[2], &inputs[3]);
        let residual = inputs.get(4).map(|r| &r[..]);
        super::rows::with_slope!(self.activation, S => normal
        .par_chunks_mut(outs)
        .zip(output.par_chunks_mut(outs))
        .enumerate()
        .for_each(|(i, (values, output))| {
            let task = rows::Normalise {
                values,
                output,
                residual: residual.map(|r| &r[i * outs..][..outs]),
                mean: &means,
                scale: &scales,
                weight,
                bias,
                slope: PhantomData::<S>,
            };
            simd::run(Width::Widest, task);
        }));
        if !keep {
            normal = Buffer::scratch(0);
        }
        (output, Saved { normal, scale })
    }

    fn adjoint(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: Option<&[T]>,
        deferred: Option<Deferred<T>>,
        wanted: &[bool],
        onto: &mut Gradients<T>,
    ) -> (Gradients<T>, Vec<[f64; 2]>) {
        let onto = onto[0].take();
        super::rows::with_slope!(self.activation, S => match (deferred, gradient) {
            (Some(left), _) => (self.second::<T, S>(point, gradient, left, wanted, onto), Vec::new()),
            (None, Some(gradient)) => self.first::<T, S>(point, gradient, wanted, onto),
            (None, None) => (vec![onto], Vec::new()),
        })
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: &Arc<Buffer<T>>,
        kept: &Vec<[f64; 2]>,
        cotangents: &[Option<Arc<Buffer<T>>>],
    ) -> (Buffer<T>, Deferred<T>) {
        super::rows::with_slope!(self.activation, S => {
            let left = self.tangent::<T, S>(point, gradient, kept, cotangents);
            (self.cotangent::<T, S>(point, &left), left)
        })
    }
}
