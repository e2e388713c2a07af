//! F: the convolution with its batch's statistics, and the normalisation and activation of what it
//! gives. These are two passes over the batch, as no entry can be normalised before the mean of all is
//! known; in evaluation it is known, and the first pass is the convolution alone.

use super::{Moments, Unit};
use crate::engine::cpu::Inputs;
use crate::numeric::parallel;
use crate::numeric::simd;
use crate::numeric::{Buffer, Real};
use crate::ops::conv::batch_norm::rows::{self, Slope};
use crate::ops::conv::kernels::batch::{Kernel, Workspace};
use std::marker::PhantomData;

impl Unit {
    /// c into `values`, and each image's statistics.
    pub(super) fn convolve<T: Real>(&self, x: &[T], w: &[T], values: &mut [T]) -> Vec<[f64; 2]> {
        let (plan, per) = (&self.plan, self.chunks.per);
        let (ins, outs) = (self.input_size(), self.output_size());
        let weight = Kernel::forward(plan, w);
        let mut parts = vec![[0.0; 2]; self.chunks.images * plan.out];
        let chunks = values.chunks_mut(per * outs);
        let chunks = chunks.zip(parts.chunks_mut(per * plan.out));
        parallel::each(chunks, |chunk, (values, parts)| {
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
                    simd::run(rows::Statistics { values, result });
                }
            }
        });
        parts
    }

    /// Mean and variance of the batch from those of its images.
    pub(super) fn combine(&self, parts: &[[f64; 2]]) -> Moments {
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

    /// x̂ in place of c in `normal`, and y.
    pub(super) fn normalise<T: Real, S: Slope<T>>(
        &self,
        inputs: &Inputs<T>,
        normal: &mut [T],
        mean: &[f64],
        scale: &[f64],
    ) -> Buffer<T> {
        let outs = self.output_size();
        let numbers = |x: &[f64]| x.iter().map(|&x| T::from_f64(x)).collect::<Vec<T>>();
        let (means, scales) = (numbers(mean), numbers(scale));
        let mut output = Buffer::scratch(normal.len());
        let (weight, bias): (&[T], &[T]) = (&inputs[2], &inputs[3]);
        let residual = inputs.get(4);
        let images = normal.chunks_mut(outs).zip(output.chunks_mut(outs));
        parallel::each(images, |i, (values, output)| {
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
            simd::run(task);
        });
        output
    }
}
