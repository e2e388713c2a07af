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

use super::heads::{Head, Layout, Outputs};
use super::mask::Mask;
use crate::error::Result;
use crate::ops::engine::{
    Array, Buffer, Fused, Gradients, Handle, Held, Inner, Inputs, Made, Op, Point, Real, View,
    apply,
};
use crate::ops::{self, Dropout, wrong};
use candle_core::{DType, Tensor};
use rayon::prelude::*;

/// Multi-head attention on vectors that hold all heads side by side: [`crate::ops::attention()`] on
/// handles.
///
/// `q` is [B, T, D]; `k` and `v` are [B, S, D], D = heads·d; `key_mask` is [B, S] of any dtype, 1 for
/// a key that may be attended to and 0 for padding; the result is [B, T, D]. With `causal` (T = S) a
/// query sees its own and earlier positions only. A query that sees no key at all gives zeros.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit; candle's errors.
pub fn attention(
    [q, k, v]: [&Handle; 3],
    heads: usize,
    key_mask: Option<&Tensor>,
    causal: bool,
    dropout: &Dropout,
) -> Result<Handle> {
    let sizes = check(q.dims(), k.dims(), v.dims(), heads, key_mask, causal)?;
    match q.inner() {
        Inner::Composed(q) => {
            let split = |x: &Tensor| -> Result<Tensor> {
                let (batch, length, width) = x.dims3()?;
                Ok(x.reshape((batch, length, heads, width / heads))?
                    .transpose(1, 2)?)
            };
            let (k, v) = (split(&k.exit()?)?, split(&v.exit()?)?);
            let context = ops::attention(&split(q)?, &k, &v, key_mask, causal, dropout)?;
            let context = context.transpose(1, 2)?.reshape(q.dims())?;
            Ok(Handle::composed(&context))
        }
        Inner::F32(q) => Ok(fused(q, k, v, sizes, key_mask, causal, dropout)?.into()),
        Inner::F64(q) => Ok(fused(q, k, v, sizes, key_mask, causal, dropout)?.into()),
    }
}

fn check(
    q: &[usize],
    k: &[usize],
    v: &[usize],
    heads: usize,
    key_mask: Option<&Tensor>,
    causal: bool,
) -> Result<Layout> {
    let &[batch, queries, all] = q else {
        return wrong("queries", "[batch, positions, width]", format!("{q:?}"));
    };
    if q.contains(&0) {
        return wrong("queries", "no size of 0", format!("{q:?}"));
    }
    if heads == 0 || all % heads != 0 {
        return wrong(
            "heads",
            format!("a divisor of the width {all}"),
            heads.to_string(),
        );
    }
    let keys = k.get(1).copied().unwrap_or(0);
    if k != [batch, keys, all] || v != k || keys == 0 {
        return wrong(
            "keys and values",
            format!("both [{batch}, positions, {all}] as the queries are"),
            format!("{k:?} and {v:?}"),
        );
    }
    if causal && keys != queries {
        return wrong(
            "keys of causal attention",
            format!("{queries}, as many as queries"),
            keys.to_string(),
        );
    }
    if let Some(mask) = key_mask
        && mask.dims() != [batch, keys]
    {
        return wrong(
            "key mask",
            format!("[{batch}, {keys}]"),
            format!("{:?}", mask.dims()),
        );
    }
    Ok(Layout {
        batch,
        queries,
        keys,
        heads,
        width: all / heads,
    })
}

fn fused<T: Real>(
    q: &Fused<T>,
    k: &Handle,
    v: &Handle,
    layout: Layout,
    key_mask: Option<&Tensor>,
    causal: bool,
    dropout: &Dropout,
) -> Result<Fused<T>> {
    let visible = match key_mask {
        Some(mask) => {
            let mask = mask.detach().to_dtype(DType::F32)?.flatten_all()?;
            let mask = mask.to_vec1::<f32>()?;
            mask.into_iter().map(|x| x != 0.0).collect()
        }
        None => vec![true; layout.batch * layout.keys],
    };
    let count = layout.batch * layout.heads * layout.queries * layout.keys;
    let op = Attention {
        mask: Mask::new(dropout, count)?,
        seen: visible
            .chunks(layout.keys)
            .map(|row| row.iter().rposition(|x| *x).map_or(0, |last| last + 1))
            .collect(),
        visible,
        causal,
        layout,
    };
    let (k, v) = (Fused::of(k)?, Fused::of(v)?);
    apply(op, &[q, &k, &v], &q.slot.shape)
}

pub(super) struct Attention {
    pub layout: Layout,
    /// [B, S]
    pub visible: Vec<bool>,
    /// Keys of each sequence up to its last visible one.
    pub seen: Vec<usize>,
    pub causal: bool,
    pub mask: Option<Mask>,
}

impl Attention {
    /// Numbers in P of one head of a sequence.
    fn block(&self, sequence: usize) -> usize {
        self.layout.queries * self.seen[sequence]
    }

    /// The P of every head.
    fn blocks<'a, T>(&self, mut all: &'a [T]) -> Vec<&'a [T]> {
        let mut blocks = Vec::with_capacity(self.layout.batch * self.layout.heads);
        for head in 0..self.layout.batch * self.layout.heads {
            let (block, rest) = all.split_at(self.block(head / self.layout.heads));
            blocks.push(block);
            all = rest;
        }
        blocks
    }

    /// Whether some keys or values get no gradient written.
    fn has_padding(&self) -> bool {
        self.seen.iter().any(|&seen| seen < self.layout.keys)
    }

    fn head<'a, T: Real>(&'a self, number: usize, point: [&'a [T]; 3]) -> Head<'a, T> {
        Head::new(self, number, point)
    }
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
    fn views(&self) -> LeftViews<'_, T> {
        LeftViews {
            gradient: self.gradient.view(),
            cotangents: self
                .cotangents
                .each_ref()
                .map(|v| v.as_ref().map(Array::view)),
        }
    }
}

impl<T: Real> Op<T> for Attention {
    /// P, head by head.
    type Saved = Buffer<T>;
    type Kept = ();
    type Deferred = Left<T>;

    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> (Made<T>, Buffer<T>) {
        let point = [&*inputs[0], &*inputs[1], &*inputs[2]];
        let heads = self.layout.heads;
        let count: usize = (0..self.layout.batch).map(|b| heads * self.block(b)).sum();
        let mut all = Buffer::scratch(count);
        let mut y = Buffer::scratch(inputs[0].len());
        let outputs = Outputs::new([&mut y]);
        let mut rest = &mut all[..];
        let mut blocks = Vec::with_capacity(self.layout.batch * heads);
        for head in 0..self.layout.batch * heads {
            let (block, after) = std::mem::take(&mut rest).split_at_mut(self.block(head / heads));
            blocks.push(block);
            rest = after;
        }
        let work = blocks.into_par_iter().enumerate();
        work.for_each(|(number, p)| self.head(number, point).forward(p, &outputs));
        (y.into(), all)
    }

    fn adjoint(
        &self,
        point: &Point<T, Buffer<T>>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        _: &[bool],
        _: &mut Gradients<T>,
    ) -> (Gradients<T>, ()) {
        let inputs = [&*point.inputs[0], &*point.inputs[1], &*point.inputs[2]];
        let memory = |like: &[T]| match self.has_padding() {
            true => Buffer::zeroed(like.len()),
            false => Buffer::scratch(like.len()),
        };
        let mut results = inputs.map(memory);
        let [q, k, v] = &mut results;
        let outputs = Outputs::new([q, k, v]);
        let work = self.blocks(point.saved).into_par_iter().enumerate();
        let left = deferred.as_ref().map(Left::views);
        work.for_each(|(number, p)| {
            let head = self.head(number, inputs);
            match (&left, gradient) {
                (Some(left), _) => head.second_backward(p, gradient, left, &outputs),
                (None, Some(g)) => head.backward(p, g, &outputs),
                (None, None) => {}
            }
        });
        (results.map(Some).into(), ())
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Buffer<T>>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> (Made<T>, Left<T>) {
        let inputs = [&*point.inputs[0], &*point.inputs[1], &*point.inputs[2]];
        let views = [0, 1, 2].map(|i| cotangents[i].as_ref().map(Held::view));
        let mut tangent = Buffer::scratch(point.lengths[0]);
        let outputs = Outputs::new([&mut tangent]);
        let work = self.blocks(point.saved).into_par_iter().enumerate();
        work.for_each(|(number, p)| {
            self.head(number, inputs).tangent(p, &views, &outputs);
        });
        let left = Left {
            gradient: gradient.clone(),
            cotangents: [0, 1, 2].map(|i| cotangents[i].as_ref().map(Held::keep)),
        };
        (tangent.into(), left)
    }
}
