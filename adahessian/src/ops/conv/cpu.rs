//! A convolution alone, as one operation of the engine.
//!
//! With F the convolution and BI, BW its input and weight gradients, each linear in either argument:
//! ```text
//! F:   y = F(x, w) + b
//! A:   gx = BI(g, w);  gw = BW(x, g);  gb = Σ g
//! ∂A:  ḡ = F(v_x, w) + F(x, v_w) + v_b;   x̄_A = BI(g, v_w);   w̄_A = BW(v_x, g)
//! ∂F:  x̄ = BI(ȳ, w) + x̄_A;   w̄ = BW(x, ȳ) + w̄_A;   b̄ = Σ ȳ
//! ```

use super::Conv2d;
use super::kernels::Plan;
use super::kernels::batch::{
    Chunks, Kernel as Taps, Workspace, bias_gradient, reduce, split, sums_length,
};
use crate::engine::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use crate::engine::{Cpu, Kernel};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::{Buffer, Real, each_row};

/// How a convolution is computed for a batch.
pub(super) struct Work {
    plan: Plan,
    chunks: Chunks,
}

/// A gradient of the output, the image and the kernel that it is multiplied with.
struct Term<'a, T> {
    u: &'a [T],
    image: Option<&'a [T]>,
    kernel: Option<&'a [T]>,
}

impl Work {
    fn sizes(&self) -> (usize, usize) {
        let plan = &self.plan;
        (plan.c * plan.h * plan.w, plan.out * plan.oh * plan.ow)
    }

    /// result (+)= F(x, w)
    fn add<T: Real>(&self, x: &[T], w: &[T], result: &mut [T], accumulate: bool) {
        let (ins, outs) = self.sizes();
        let weight = Taps::forward(&self.plan, w);
        parallel::each(
            result.chunks_mut(self.chunks.per * outs),
            |chunk, result| {
                let mut space = Workspace::forward(&self.plan);
                for block in self.chunks.blocks(chunk) {
                    let result = block.in_chunk(result, outs);
                    space.correlate(&self.plan, &weight, block.of(x, ins), result, accumulate);
                }
            },
        );
    }

    /// Σ BI(u, kernel) and Σ BW(image, u) over terms.
    fn gradients<T: Real>(&self, terms: &[Term<T>]) -> (Option<Buffer<T>>, Option<Buffer<T>>) {
        let (ins, outs) = self.sizes();
        let (plan, count) = (&self.plan, self.chunks.count());
        let kernels: Vec<_> = terms
            .iter()
            .map(|term| term.kernel.map(|w| Taps::backward(plan, w)))
            .collect();
        let with_x = kernels.iter().any(Option::is_some);
        let with_w = terms.iter().any(|term| term.image.is_some());
        let length = sums_length(plan);
        let mut gx = Buffer::scratch(if with_x { self.chunks.images * ins } else { 0 });
        let mut sums = Buffer::zeroed(if with_w { count * length } else { 0 });
        let parts = split(&mut gx, self.chunks.per * ins, count).into_iter();
        let parts = parts.zip(split(&mut sums, length, count));
        parallel::each(parts, |chunk, (gx, sums)| {
            let mut space = Workspace::backward(plan);
            for block in self.chunks.blocks(chunk) {
                let mut first = true;
                for (term, kernel) in terms.iter().zip(&kernels) {
                    let u = block.of(term.u, outs);
                    if let Some(x) = term.image {
                        space.weight_gradient(plan, block.of(x, ins), u, sums);
                    }
                    if let Some(kernel) = kernel {
                        let gx = block.in_chunk(gx, ins);
                        space.input_gradient(plan, kernel, u, gx, !first);
                        first = false;
                    }
                }
            }
        });
        (
            with_x.then_some(gx),
            with_w.then(|| reduce(plan, &mut sums)),
        )
    }
}

/// What the second level leaves: the first pass's gradient and the cotangents of gx and gw.
pub(super) struct Left<T: Real> {
    gradient: Array<T>,
    v_x: Option<Array<T>>,
    v_w: Option<Array<T>>,
}

impl<T: Real> Kernel<Cpu<T>> for Conv2d {
    type Saved = Work;
    type Kept = ();
    type Deferred = Left<T>;

    /// Not the bias.
    fn reads(&self, input: usize) -> bool {
        input < 2
    }

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, Work)> {
        let (x, weight) = (inputs.shape(0), inputs.shape(1));
        let [images, _, oh, ow] = self.conv.check(x, weight)?;
        let plan = Plan::new(&self.conv, x, weight, oh, ow);
        let work = Work {
            chunks: Chunks::new(&plan, images),
            plan,
        };
        let (_, outs) = work.sizes();
        let mut y = Buffer::scratch(images * outs);
        work.add(&inputs[0], &inputs[1], &mut y, false);
        if let Some(bias) = inputs.get(2) {
            add_bias(&mut y, bias, oh * ow);
        }
        Ok((y.into(), work))
    }

    fn adjoint(
        &self,
        point: &Point<T, Work>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        wanted: &[bool],
        _: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let (x, w, work) = (point.input(0)?, point.input(1)?, point.saved);
        let mut terms = Vec::new();
        if let Some(u) = gradient {
            terms.push(Term {
                u,
                image: wanted[1].then_some(x),
                kernel: wanted[0].then_some(w),
            });
        }
        let left = deferred.as_ref();
        let g = left.map(|left| left.gradient.view()).transpose()?;
        let v_x = left.and_then(|left| left.v_x.as_ref());
        let v_w = left.and_then(|left| left.v_w.as_ref());
        let v_x = v_x.map(Array::view).transpose()?;
        let v_w = v_w.map(Array::view).transpose()?;
        if let Some(u) = &g {
            terms.push(Term {
                u,
                image: v_x.as_deref().filter(|_| wanted[1]),
                kernel: v_w.as_deref().filter(|_| wanted[0]),
            });
        }
        let (gx, gw) = work.gradients(&terms);
        let gb = match (gradient, wanted.get(2)) {
            (Some(u), Some(true)) => {
                let positions = work.plan.oh * work.plan.ow;
                Some(bias_gradient(u, work.plan.out, positions))
            }
            _ => None,
        };
        Ok((vec![gx, gw, gb], ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Work>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Left<T>)> {
        let work = point.saved;
        let mut tangent = Buffer::zeroed(gradient.view()?.len());
        if let Some(v) = &cotangents[0] {
            work.add(&v.view()?, point.input(1)?, &mut tangent, true);
        }
        if let Some(v) = &cotangents[1] {
            work.add(point.input(0)?, &v.view()?, &mut tangent, true);
        }
        if let Some(Some(v)) = cotangents.get(2) {
            add_bias(&mut tangent, &v.view()?, work.plan.oh * work.plan.ow);
        }
        let left = Left {
            gradient: gradient.clone(),
            v_x: cotangents[0].as_ref().map(Held::keep),
            v_w: cotangents[1].as_ref().map(Held::keep),
        };
        Ok((tangent.into(), left))
    }
}

fn add_bias<T: Real>(y: &mut [T], bias: &[T], positions: usize) {
    each_row(y, positions, |row, y| {
        let bias = bias[row % bias.len()];
        y.iter_mut().for_each(|y| *y += bias);
    });
}
