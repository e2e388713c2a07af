//! ∂A: the derivative of the first level, for cotangents v of its gradients. v_x and v_w meet in the
//! tangent t of c. t and the other cotangents join in h̄, and h̄ act'(a) is the cotangent of g. What the
//! second level needs of all this is left in a [`Deferred`].

use super::{Deferred, Unit, Values};
use crate::engine::cpu::{Array, Held};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::simd;
use crate::numeric::{Buffer, Real};
use crate::ops::conv::batch_norm::rows::{self, Bar, Slope};
use crate::ops::conv::kernels::batch::{Block, Kernel, Workspace, reduce, split, sums_length};
use std::marker::PhantomData;

impl Unit {
    /// The derivative of the first level: t, its means, and w̄_A.
    pub(super) fn tangent<T: Real, S: Slope<T>>(
        &self,
        point: &Values<T>,
        gradient: &Array<T>,
        h: &[[f64; 2]],
        v: &[Option<Held<T>>],
    ) -> Result<Deferred<T>> {
        let (plan, per, n) = (&self.plan, self.chunks.per, self.chunks.images);
        let (ins, outs) = (self.input_size(), self.output_size());
        let coefficients = self.u_coefficients(point.inputs[2], &point.saved.scale, h);
        let x: &[T] = point.inputs[0];
        let weight = Kernel::forward(plan, point.inputs[1]);
        let g_view = gradient.view()?;
        let g: &[T] = &g_view;
        let v_x = v[0].as_ref().map(Held::view).transpose()?;
        let v_weight = v[1].as_ref().map(Held::view).transpose()?;
        let v_weight = v_weight.as_ref().map(|v| Kernel::forward(plan, v));
        let length = v_x.as_ref().map_or(0, |_| sums_length(plan));
        let mut sums = Buffer::zeroed(self.chunks.count() * length);
        let mut tangent = Buffer::scratch(n * outs);
        let mut parts = vec![[0.0; 3]; n * plan.out];
        let chunks = tangent.chunks_mut(per * outs);
        let chunks = chunks.zip(parts.chunks_mut(per * plan.out));
        let chunks = chunks.zip(split(&mut sums, length, self.chunks.count()));
        parallel::each(chunks, |chunk, ((tangent, parts), sums)| {
            let mut space = Workspace::backward(plan);
            let mut room = Buffer::scratch(plan.block * outs);
            for block in self.chunks.blocks(chunk) {
                let tangent = block.in_chunk(tangent, outs);
                if let Some(v) = &v_x {
                    space.correlate(plan, &weight, block.of(v, ins), tangent, false);
                    let u = &mut room[..block.count * outs];
                    self.input_gradient::<T, S>(point, g, &coefficients, block, u, None);
                    space.weight_gradient_of_grid(plan, u, sums);
                }
                match &v_weight {
                    Some(w) => {
                        let onto = v_x.is_some();
                        space.correlate(plan, w, block.of(x, ins), tangent, onto);
                    }
                    None if v_x.is_none() => tangent.fill(T::ZERO),
                    None => {}
                }
                let parts = block.in_chunk(parts, plan.out);
                self.tangent_sums::<T, S>(point, g, block, tangent, parts);
            }
        });
        let weight = v_x.is_some().then(|| reduce(plan, &mut sums));
        let numbers = |v: &Option<Held<T>>| -> Result<Option<Vec<T>>> {
            let v = v.as_ref().map(Held::view).transpose()?;
            Ok(v.map(|v| v.to_vec()))
        };
        Ok(Deferred {
            gradient: gradient.clone(),
            h: h.to_vec(),
            tangent,
            t: self.means(&parts),
            weight,
            v_weight: v[1].as_ref().map(Held::keep),
            v_scale: numbers(&v[2])?,
            v_shift: numbers(&v[3])?,
            v_residual: v.get(4).and_then(|v| v.as_ref().map(Held::keep)),
        })
    }

    /// Σ t, Σ t x̂, Σ t h of each image of a block.
    fn tangent_sums<T: Real, S: Slope<T>>(
        &self,
        point: &Values<T>,
        gradient: &[T],
        block: Block,
        tangent: &[T],
        parts: &mut [[f64; 3]],
    ) {
        let (out, outs) = (self.plan.out, self.output_size());
        for (i, image) in block.images() {
            let task = rows::TangentSums {
                image: self.image(point, image),
                gradient: &gradient[image * outs..][..outs],
                tangent: &tangent[i * outs..][..outs],
                result: &mut parts[i * out..][..out],
                slope: PhantomData::<S>,
            };
            simd::run(task);
        }
    }

    /// h̄ of one image.
    pub(super) fn bar<'a, T: Real>(
        &self,
        left: &'a Deferred<T>,
        residual: Option<&'a [T]>,
        coefficients: &'a [[T; 3]],
        image: usize,
    ) -> Bar<'a, T> {
        let outs = self.output_size();
        Bar {
            coefficients,
            tangent: &left.tangent[image * outs..][..outs],
            residual: residual.map(|r| &r[image * outs..][..outs]),
        }
    }

    /// ḡ = h̄ act'(a).
    pub(super) fn cotangent<T: Real, S: Slope<T>>(
        &self,
        point: &Values<T>,
        left: &Deferred<T>,
    ) -> Result<Buffer<T>> {
        let outs = self.output_size();
        let coefficients = self.coefficients_of_bar(point, left);
        let residual = left.v_residual.as_ref().map(Array::view).transpose()?;
        let mut cotangent = Buffer::scratch(self.chunks.images * outs);
        parallel::each(cotangent.chunks_mut(outs), |i, result| {
            let task = rows::Cotangent {
                image: self.image(point, i),
                bar: self.bar(left, residual.as_deref(), &coefficients, i),
                result,
                slope: PhantomData::<S>,
            };
            simd::run(task);
        });
        Ok(cotangent)
    }
}
