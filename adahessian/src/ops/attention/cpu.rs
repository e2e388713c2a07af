//! Masked multi-head attention as one operation.
//!
//! For each head, with α = 1/√d, m the dropout mask and J(P, u) = P(u - ⟨u, P⟩) row by row, which is
//! its own adjoint in u:
//! ```text
//! F:   S = α q kᵀ;   P = softmax S;   P̃ = m P;   O = P̃ v
//! A:   gP = m (g vᵀ);   gS = J(P, gP);   gq = α gS k;   gk = α gSᵀ q;   gv = P̃ᵀ g
//! ∂A:  tS = α (v_q kᵀ + q v_kᵀ);   tP = J(P, tS);   ḡ = (m tP) v + P̃ v_v
//!      P̄_A = m (g v_vᵀ) + tS (gP - ⟨gP, P⟩) - ⟨tS, P⟩ gP
//! ∂F:  P̄ = m (Ō vᵀ) + P̄_A;   S̄ = J(P, P̄)
//!      q̄ = α (S̄ k + gS v_k);   k̄ = α (S̄ᵀ q + gSᵀ v_q);   v̄ = P̃ᵀ Ō + (m tP)ᵀ g
//! ```
//! Keys behind the last visible one of a sequence, its padding, are not computed with at all.

use super::Attention;
use super::heads::{Head, Layout, Outputs};
use crate::engine::cpu::{Array, Gradients, Held, Inputs, Output, Point, View};
use crate::engine::{Cpu, Kernel};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::{Buffer, Real};
use crate::ops::dropout::Drawn;
use candle_core::{DType, Device};

/// What there is to compute.
pub(super) struct Plan {
    pub layout: Layout,
    /// [B, S]
    pub visible: Vec<bool>,
    /// Keys of each sequence up to its last visible one.
    pub seen: Vec<usize>,
}

impl Plan {
    /// For queries and keys of these shapes.
    fn new(op: &Attention, queries: &[usize], keys: &[usize]) -> Result<Self> {
        let layout = Layout {
            batch: queries[0],
            queries: queries[1],
            keys: keys[1],
            heads: op.heads,
            width: queries[2] / op.heads,
        };
        let visible = match &op.key_mask {
            Some(mask) => {
                let mask = mask.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
                let mask = mask.flatten_all()?.to_vec1::<f32>()?;
                mask.into_iter().map(|x| x != 0.0).collect()
            }
            None => vec![true; layout.batch * layout.keys],
        };
        let last = |row: &[bool]| row.iter().rposition(|x| *x).map_or(0, |last| last + 1);
        Ok(Self {
            seen: visible.chunks(layout.keys).map(last).collect(),
            visible,
            layout,
        })
    }

    fn heads(&self) -> usize {
        self.layout.batch * self.layout.heads
    }

    /// Numbers in P of one head.
    fn block(&self, head: usize) -> usize {
        self.layout.queries * self.seen[head / self.layout.heads]
    }

    /// The P of every head.
    fn blocks<'a, T>(&self, mut all: &'a [T]) -> Vec<&'a [T]> {
        let mut blocks = Vec::with_capacity(self.heads());
        for head in 0..self.heads() {
            let (block, rest) = all.split_at(self.block(head));
            blocks.push(block);
            all = rest;
        }
        blocks
    }

    /// Whether some keys or values get no gradient written.
    fn has_padding(&self) -> bool {
        self.seen.iter().any(|&seen| seen < self.layout.keys)
    }
}

impl Attention {
    /// The mask of all heads. Before the heads' own loop: drawing it is one, too, and a thread that waits there could
    /// take a head that waits for the mask.
    fn drawn(&self, plan: &Plan) -> Option<Drawn<'_>> {
        let Layout {
            batch,
            heads,
            queries,
            keys,
            ..
        } = plan.layout;
        let mask = self.mask.as_ref();
        mask.map(|mask| mask.drawn(batch * heads * queries * keys))
    }

    fn head<'a, T: Real>(
        &self,
        (plan, mask): (&'a Plan, Option<Drawn<'a>>),
        number: usize,
        point: [&'a [T]; 3],
    ) -> Head<'a, T> {
        Head::new(plan, mask, self.causal, number, point)
    }
}

/// P, head by head.
pub(super) struct Saved<T: Real> {
    plan: Plan,
    weights: Buffer<T>,
}

/// What the second level leaves: g and the cotangents of gq, gk, gv.
pub(super) struct Left<T: Real> {
    pub gradient: Array<T>,
    pub cotangents: [Option<Array<T>>; 3],
}

/// The numbers of what was left.
pub(super) struct LeftViews<'a, T: Real> {
    pub gradient: View<'a, T>,
    pub cotangents: [Option<View<'a, T>>; 3],
}

impl<T: Real> Left<T> {
    fn views(&self) -> Result<LeftViews<'_, T>> {
        let view = |i: usize| self.cotangents[i].as_ref().map(Array::view).transpose();
        Ok(LeftViews {
            gradient: self.gradient.view()?,
            cotangents: [view(0)?, view(1)?, view(2)?],
        })
    }
}

impl<T: Real> Kernel<Cpu<T>> for Attention {
    type Saved = Saved<T>;
    type Kept = ();
    type Deferred = Left<T>;

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, Saved<T>)> {
        let point = [&inputs[0], &inputs[1], &inputs[2]];
        let plan = Plan::new(self, inputs.shape(0), inputs.shape(1))?;
        let count: usize = (0..plan.heads()).map(|head| plan.block(head)).sum();
        let mut weights = Buffer::scratch(count);
        let mut y = Buffer::scratch(inputs[0].len());
        let outputs = Outputs::new([&mut y]);
        let mut rest = &mut weights[..];
        let mut blocks = Vec::with_capacity(plan.heads());
        for head in 0..plan.heads() {
            let (block, after) = std::mem::take(&mut rest).split_at_mut(plan.block(head));
            blocks.push(block);
            rest = after;
        }
        let mask = self.drawn(&plan);
        parallel::each(blocks, |number, p| {
            let head = self.head((&plan, mask), number, point);
            head.forward(p, &outputs);
        });
        Ok((y.into(), Saved { plan, weights }))
    }

    fn adjoint(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        _: &[bool],
        _: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let inputs = [point.input(0)?, point.input(1)?, point.input(2)?];
        let Saved { plan, weights } = point.saved;
        let memory = |like: &[T]| match plan.has_padding() {
            true => Buffer::zeroed(like.len()),
            false => Buffer::scratch(like.len()),
        };
        let mut results = inputs.map(memory);
        let [q, k, v] = &mut results;
        let outputs = Outputs::new([q, k, v]);
        let left = deferred.as_ref().map(Left::views).transpose()?;
        let mask = self.drawn(plan);
        parallel::each(plan.blocks(weights), |number, p| {
            let head = self.head((plan, mask), number, inputs);
            match (&left, gradient) {
                (Some(left), _) => head.second_backward(p, gradient, left, &outputs),
                (None, Some(g)) => head.backward(p, g, &outputs),
                (None, None) => {}
            }
        });
        Ok((results.map(Some).into(), ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Saved<T>>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Left<T>)> {
        let inputs = [point.input(0)?, point.input(1)?, point.input(2)?];
        let Saved { plan, weights } = point.saved;
        let view = |i: usize| cotangents[i].as_ref().map(Held::view).transpose();
        let views = [view(0)?, view(1)?, view(2)?];
        let mut tangent = Buffer::scratch(inputs[0].len());
        let outputs = Outputs::new([&mut tangent]);
        let mask = self.drawn(plan);
        parallel::each(plan.blocks(weights), |number, p| {
            let head = self.head((plan, mask), number, inputs);
            head.tangent(p, &views, &outputs);
        });
        let left = Left {
            gradient: gradient.clone(),
            cotangents: [0, 1, 2].map(|i| cotangents[i].as_ref().map(Held::keep)),
        };
        Ok((tangent.into(), left))
    }
}
