//! ∂F: the gradients of the second pass, from the cotangent ȳ of y and what the derivative of the
//! first level left. As in the first level, one pass over the batch sums k and k x̂, and a second one
//! computes c̄ and u block by block, and the gradients of x and w from them.

use super::{Deferred, Unit, Values};
use crate::engine::cpu::{Array, Gradients, View};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::simd;
use crate::numeric::{Buffer, Real};
use crate::ops::conv::batch_norm::rows::{self, Second, Slope};
use crate::ops::conv::kernels::batch::{Block, Kernel, Workspace, reduce, split, sums_length};
use std::marker::PhantomData;

/// The point, the cotangent ȳ and what the derivative of the first level left.
struct Level<'a, 'b, T: Real> {
    point: &'a Values<'b, T>,
    cotangent: Option<&'a [T]>,
    left: &'a Deferred<T>,
    /// g and v_r.
    gradient: View<'a, T>,
    v_residual: Option<View<'a, T>>,
    /// h̄ as coefficients of t, x̂ and 1.
    bars: Vec<[T; 3]>,
}

impl<T: Real> Level<'_, '_, T> {
    /// ȳ, g and h̄ of one image.
    fn at(&self, op: &Unit, image: usize) -> (Option<&[T]>, Second<'_, T>) {
        let outs = op.output_size();
        let second = Second {
            gradient: &self.gradient[image * outs..][..outs],
            bar: op.bar(self.left, self.v_residual.as_deref(), &self.bars, image),
        };
        (self.cotangent.map(|c| &c[image * outs..][..outs]), second)
    }
}

impl Unit {
    /// The second level: from ȳ and what was left.
    pub(super) fn second<T: Real, S: Slope<T>>(
        &self,
        point: &Values<T>,
        cotangent: Option<&[T]>,
        left: Deferred<T>,
        wanted: &[bool],
        onto: Option<Buffer<T>>,
    ) -> Result<Gradients<T>> {
        let level = Level {
            point,
            cotangent,
            bars: self.coefficients_of_bar(point, &left),
            left: &left,
            gradient: left.gradient.view()?,
            v_residual: left.v_residual.as_ref().map(Array::view).transpose()?,
        };
        let with_r = wanted.get(4) == Some(&true);
        let (k, r) = self.second_means::<T, S>(&level, with_r);
        let (gx, mut w) = self.second_gradients::<T, S>(&level, &k, wanted[0], onto)?;
        if let Some(part) = &left.weight {
            simd::add_assign(&mut w, part);
        }
        let (scale, count) = (&point.saved.scale, self.count());
        let scale_gradient = (0..self.plan.out)
            .map(|o| count * (k[o][1] + scale[o] * self.cross(&left.t[o], &left.h[o])));
        Ok(vec![
            wanted[0].then_some(gx),
            Some(w),
            Some(self.of_channels(scale_gradient)),
            Some(self.of_channels(k.iter().map(|k| k[0] * count))),
            with_r.then_some(r),
        ])
    }

    /// Means of k and k x̂, and k itself where it is wanted.
    fn second_means<T: Real, S: Slope<T>>(
        &self,
        level: &Level<T>,
        with_k: bool,
    ) -> (Vec<[f64; 2]>, Buffer<T>) {
        let (n, out, outs) = (self.chunks.images, self.plan.out, self.output_size());
        let mut all = Buffer::scratch(if with_k { n * outs } else { 0 });
        let mut parts = vec![[0.0; 2]; n * out];
        let images = parts.chunks_mut(out).zip(split(&mut all, outs, n));
        parallel::each(images, |i, (result, k)| {
            let (cotangent, second) = level.at(self, i);
            let task = rows::SecondSums {
                image: self.image(level.point, i),
                cotangent,
                second: Some(second),
                result,
                k: with_k.then_some(k),
                slope: PhantomData::<S>,
            };
            simd::run(task);
        });
        (self.means(&parts), all)
    }

    /// BI(c̄, w) + BI(u, v_w) where it is wanted, and BW(x, c̄).
    fn second_gradients<T: Real, S: Slope<T>>(
        &self,
        level: &Level<T>,
        k: &[[f64; 2]],
        with_x: bool,
        onto: Option<Buffer<T>>,
    ) -> Result<(Buffer<T>, Buffer<T>)> {
        let (plan, per, n) = (&self.plan, self.chunks.per, self.chunks.images);
        let (ins, outs) = (self.input_size(), self.output_size());
        let (inputs, scale) = (level.point.inputs, &level.point.saved.scale);
        let coefficients = self.c_coefficients(inputs[2], scale, k, level.left);
        let u_coefficients = self.u_coefficients(inputs[2], scale, &level.left.h);
        let x: &[T] = inputs[0];
        let weight = Kernel::backward(plan, inputs[1]);
        let v_weight = level.left.v_weight.as_ref().map(Array::view).transpose()?;
        let v_weight = v_weight.as_ref().map(|v| Kernel::backward(plan, v));
        let mut sums = Buffer::zeroed(self.chunks.count() * sums_length(plan));
        let add = onto.is_some();
        let mut gx = onto.unwrap_or_else(|| Buffer::scratch(if with_x { n * ins } else { 0 }));
        let chunks = sums.chunks_mut(sums_length(plan));
        let chunks = chunks.zip(split(&mut gx, per * ins, self.chunks.count()));
        parallel::each(chunks, |chunk, (sums, gx)| {
            let mut space = Workspace::backward(plan);
            let size = plan.block * outs;
            let (mut c, mut u) = (Buffer::scratch(size), Buffer::scratch(size));
            for block in self.chunks.blocks(chunk) {
                let size = block.count * outs;
                let (c, u) = (&mut c[..size], &mut u[..size]);
                self.second_input::<T, S>(level, &coefficients, &u_coefficients, block, c, u);
                space.weight_gradient(plan, block.of(x, ins), c, sums);
                if with_x {
                    let gx = block.in_chunk(gx, ins);
                    space.input_gradient(plan, &weight, c, gx, add);
                    if let Some(weight) = &v_weight {
                        space.input_gradient(plan, weight, u, gx, true);
                    }
                }
            }
        });
        Ok((gx, reduce(plan, &mut sums)))
    }

    /// c̄ and u for a block of images.
    fn second_input<T: Real, S: Slope<T>>(
        &self,
        level: &Level<T>,
        coefficients: &[[T; 5]],
        u_coefficients: &[[T; 3]],
        block: Block,
        c: &mut [T],
        u: &mut [T],
    ) {
        let outs = self.output_size();
        for (i, image) in block.images() {
            let (cotangent, second) = level.at(self, image);
            let task = rows::SecondInput {
                image: self.image(level.point, image),
                cotangent,
                second,
                coefficients,
                u_coefficients,
                c: &mut c[i * outs..][..outs],
                u: &mut u[i * outs..][..outs],
                slope: PhantomData::<S>,
            };
            simd::run(task);
        }
    }
}
