//! A: the gradients of the inputs from the gradient g of y. One pass over the batch sums h and h x̂,
//! which are the gradients of β and γ and give the coefficients of u; a second one computes u block by
//! block, and while it is in the cache the gradients of x, w and r from it.

use super::{Unit, Values};
use crate::engine::cpu::Gradients;
use crate::numeric::parallel;
use crate::numeric::simd;
use crate::numeric::{Buffer, Real};
use crate::ops::conv::batch_norm::rows::{self, Slope};
use crate::ops::conv::kernels::batch::{Block, Kernel, Workspace, reduce, split, sums_length};
use std::marker::PhantomData;

impl Unit {
    /// The first level: gradients from g, and H and Hx.
    pub(super) fn first<T: Real, S: Slope<T>>(
        &self,
        point: &Values<T>,
        gradient: &[T],
        wanted: &[bool],
        onto: Option<Buffer<T>>,
    ) -> (Gradients<T>, Vec<[f64; 2]>) {
        let (plan, per, n) = (&self.plan, self.chunks.per, self.chunks.images);
        let (ins, outs) = (self.input_size(), self.output_size());
        let h = self.gradient_means::<T, S>(point, gradient);
        let coefficients = self.u_coefficients(point.inputs[2], &point.saved.scale, &h);
        let x: &[T] = point.inputs[0];
        let weight = Kernel::backward(plan, point.inputs[1]);
        let mut sums = Buffer::zeroed(self.chunks.count() * sums_length(plan));
        let add = onto.is_some();
        let mut gx = onto.unwrap_or_else(|| Buffer::scratch(if wanted[0] { n * ins } else { 0 }));
        let with_r = wanted.get(4) == Some(&true);
        let mut gr = Buffer::scratch(if with_r { n * outs } else { 0 });
        let chunks = sums.chunks_mut(sums_length(plan));
        let chunks = chunks
            .zip(split(&mut gx, per * ins, self.chunks.count()))
            .zip(split(&mut gr, per * outs, self.chunks.count()));
        parallel::each(chunks, |chunk, ((sums, gx), gr)| {
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

    /// H and Hx.
    fn gradient_means<T: Real, S: Slope<T>>(
        &self,
        point: &Values<T>,
        gradient: &[T],
    ) -> Vec<[f64; 2]> {
        let (out, outs) = (self.plan.out, self.output_size());
        let mut parts = vec![[0.0; 2]; self.chunks.images * out];
        let images = gradient.chunks(outs).zip(parts.chunks_mut(out));
        parallel::each(images, |i, (gradient, result)| {
            let image = self.image(point, i);
            let task = rows::GradientSums {
                image,
                gradient,
                result,
                slope: PhantomData::<S>,
            };
            simd::run(task);
        });
        self.means(&parts)
    }

    /// u, and h where it is wanted, for a block of images.
    pub(super) fn input_gradient<T: Real, S: Slope<T>>(
        &self,
        point: &Values<T>,
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
            simd::run(task);
        }
    }
}
