//! A convolution alone, as one operation of the engine.
//!
//! With F the convolution and BI, BW its input and weight gradients, each linear in either argument:
//! ```text
//! F:   y = F(x, w) + b
//! A:   gx = BI(g, w);  gw = BW(x, g);  gb = Σ g
//! ∂A:  ḡ = F(v_x, w) + F(x, v_w) + v_b;   x̄_A = BI(g, v_w);   w̄_A = BW(v_x, g)
//! ∂F:  x̄ = BI(ȳ, w) + x̄_A;   w̄ = BW(x, ȳ) + w̄_A;   b̄ = Σ ȳ
//! ```

use super::kernels::Plan;
use super::kernels::batch::{Chunks, Kernel, Workspace, bias_gradient, reduce, split, sums_length};
use crate::ops::engine::{Array, Buffer, Gradients, Held, Inputs, Made, Op, Point, Real};
use rayon::prelude::*;

pub(super) struct Conv {
    pub plan: Plan,
    pub chunks: Chunks,
}

/// A gradient of the output, the image and the kernel that it is multiplied with.
struct Term<'a, T> {
    u: &'a [T],
    image: Option<&'a [T]>,
    kernel: Option<&'a [T]>,
}

impl Conv {
    fn sizes(&self) -> (usize, usize) {
        let plan = &self.plan;
        (plan.c * plan.h * plan.w, plan.out * plan.oh * plan.ow)
    }

    /// result (+)= F(x, w)
    fn add<T: Real>(&self, x: &[T], w: &[T], result: &mut [T], accumulate: bool) {
        let (ins, outs) = self.sizes();
        let weight = Kernel::forward(&self.plan, w);
        let chunks = result.par_chunks_mut(self.chunks.per * outs);
        chunks.enumerate().for_each(|(chunk, result)| {
            let mut space = Workspace::forward(&self.plan);
            for block in self.chunks.blocks(chunk) {
                let result = block.in_chunk(result, outs);
                space.correlate(&self.plan, &weight, block.of(x, ins), result, accumulate);
            }
        });
    }

    /// Σ BI(u, kernel) and Σ BW(image, u) over terms.
    fn gradients<T: Real>(&self, terms: &[Term<T>]) -> (Option<Buffer<T>>, Option<Buffer<T>>) {
        let (ins, outs) = self.sizes();
        let (plan, count) = (&self.plan, self.chunks.count());
        let kernels: Vec<_> = terms
            .iter()
            .map(|term| term.kernel.map(|w| Kernel::backward(plan, w)))
            .collect();
        let with_x = kernels.iter().any(Option::is_some);
        let with_w = terms.iter().any(|term| term.image.is_some());
        let length = sums_length(plan);
        let mut gx = Buffer::scratch(if with_x { self.chunks.images * ins } else { 0 });
        let mut sums = Buffer::zeroed(if with_w { count * length } else { 0 });
        let parts = split(&mut gx, self.chunks.per * ins, count);
        parts
            .zip(split(&mut sums, length, count))
            .enumerate()
            .for_each(|(chunk, (gx, sums))| {
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

impl<T: Real> Op<T> for Conv {
    type Saved = ();
    type Kept = ();
    type Deferred = Left<T>;

    fn name(&self) -> &'static str {
        "conv2d"
    }

    /// Not the bias.
    fn reads(&self, input: usize) -> bool {
        input < 2
    }

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> (Made<T>, ()) {
        let (_, outs) = self.sizes();
        let mut y = Buffer::scratch(self.chunks.images * outs);
        self.add(&inputs[0], &inputs[1], &mut y, false);
        if let Some(bias) = inputs.get(2) {
            add_bias(&mut y, bias, self.plan.oh * self.plan.ow);
        }
        (y.into(), ())
    }

    fn adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        wanted: &[bool],
        _: &mut Gradients<T>,
    ) -> (Gradients<T>, ()) {
        let (x, w) = (&point.inputs[0], &point.inputs[1]);
        let mut terms = Vec::new();
        if let Some(u) = gradient {
            terms.push(Term {
                u,
                image: wanted[1].then_some(&**x),
                kernel: wanted[0].then_some(&**w),
            });
        }
        let views = deferred.as_ref().map(|left| {
            let [v_x, v_w] = [&left.v_x, &left.v_w].map(|v| v.as_ref().map(Array::view));
            (left.gradient.view(), v_x, v_w)
        });
        if let Some((gradient, v_x, v_w)) = &views {
            terms.push(Term {
                u: gradient,
                image: v_x.as_ref().filter(|_| wanted[1]).map(|v| &v[..]),
                kernel: v_w.as_ref().filter(|_| wanted[0]).map(|v| &v[..]),
            });
        }
        let (gx, gw) = self.gradients(&terms);
        let gb = match (gradient, wanted.get(2)) {
            (Some(u), Some(true)) => {
                let positions = self.plan.oh * self.plan.ow;
                Some(bias_gradient(u, self.plan.out, positions))
            }
            _ => None,
        };
        (vec![gx, gw, gb], ())
    }

    fn second_adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> (Made<T>, Left<T>) {
        let mut tangent = Buffer::zeroed(gradient.view().len());
        if let Some(v) = &cotangents[0] {
            self.add(&v.view(), &point.inputs[1], &mut tangent, true);
        }
        if let Some(v) = &cotangents[1] {
            self.add(&point.inputs[0], &v.view(), &mut tangent, true);
        }
        if let Some(Some(v)) = cotangents.get(2) {
            add_bias(&mut tangent, &v.view(), self.plan.oh * self.plan.ow);
        }
        let left = Left {
            gradient: gradient.clone(),
            v_x: cotangents[0].as_ref().map(Held::keep),
            v_w: cotangents[1].as_ref().map(Held::keep),
        };
        (tangent.into(), left)
    }
}

fn add_bias<T: Real>(y: &mut [T], bias: &[T], positions: usize) {
    let rows = y.par_chunks_exact_mut(positions).enumerate();
    rows.for_each(|(row, y)| {
        let bias = bias[row % bias.len()];
        y.iter_mut().for_each(|y| *y += bias);
    });
}
