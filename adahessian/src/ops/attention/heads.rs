//! One head of one sequence: products and the passes over the rows of P.

use super::cpu::{LeftViews, Plan};
use super::score_rows::{Jacobian, SecondRows, Softmax};
use crate::engine::cpu::View;
use crate::numeric::simd;
use crate::numeric::{Buffer, Matrix, Onto, Real, Target, multiply_at};
use crate::ops::dropout::Drawn;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub heads: usize,
    /// d
    pub width: usize,
}

/// Arrays [B, positions, D] that all heads write to, each its own columns.
pub(super) struct Outputs<'a, T, const N: usize>([Target<'a, T>; N]);

impl<'a, T: Real, const N: usize> Outputs<'a, T, N> {
    pub fn new(arrays: [&'a mut Buffer<T>; N]) -> Self {
        // The step is that of the head that writes; see `Head::write`.
        Self(arrays.map(|array| Target::new(&mut array[..], 0)))
    }
}

pub(super) struct Head<'a, T: Real> {
    plan: &'a Plan,
    mask: Option<Drawn<'a>>,
    causal: bool,
    number: usize,
    sequence: usize,
    /// Keys that are computed with.
    seen: usize,
    q: Matrix<'a, T>,
    k: Matrix<'a, T>,
    v: Matrix<'a, T>,
    scale: T,
}

impl<'a, T: Real> Head<'a, T> {
    pub fn new(
        plan: &'a Plan,
        mask: Option<Drawn<'a>>,
        causal: bool,
        number: usize,
        [q, k, v]: [&'a [T]; 3],
    ) -> Self {
        let layout = &plan.layout;
        let sequence = number / layout.heads;
        let seen = plan.seen[sequence];
        let mut head = Self {
            plan,
            mask,
            causal,
            number,
            sequence,
            seen,
            q: Matrix::rows_of(q, 0, 0, 1),
            k: Matrix::rows_of(k, 0, 0, 1),
            v: Matrix::rows_of(v, 0, 0, 1),
            scale: T::from_f64(1.0 / (layout.width as f64).sqrt()),
        };
        (head.q, head.k, head.v) = (head.queries(q), head.keys(k), head.keys(v));
        head
    }

    fn all(&self) -> usize {
        self.plan.layout.heads * self.plan.layout.width
    }

    fn offset(&self, positions: usize) -> usize {
        let column = self.number % self.plan.layout.heads * self.plan.layout.width;
        self.sequence * positions * self.all() + column
    }

    /// This head's part of an array [B, T, D].
    fn queries<'b>(&self, data: &'b [T]) -> Matrix<'b, T> {
        let layout = &self.plan.layout;
        let data = &data[self.offset(layout.queries)..];
        Matrix::rows_of(data, layout.queries, layout.width, self.all())
    }

    /// This head's part of an array [B, S, D], up to the last visible key.
    fn keys<'b>(&self, data: &'b [T]) -> Matrix<'b, T> {
        let layout = &self.plan.layout;
        let data = &data[self.offset(layout.keys)..];
        Matrix::rows_of(data, self.seen, layout.width, self.all())
    }

    /// A matrix [T, seen].
    fn scores<'b>(&self, data: &'b [T]) -> Matrix<'b, T> {
        Matrix::rows_of(data, self.plan.layout.queries, self.seen, self.seen)
    }

    fn scratch(&self) -> Buffer<T> {
        Buffer::scratch(self.plan.layout.queries * self.seen)
    }

    /// [T, seen] (+)= scale · left · right
    fn score_product(
        &self,
        to: &mut [T],
        onto: Onto,
        scale: T,
        left: Matrix<'_, T>,
        right: Matrix<'_, T>,
    ) {
        let target = Target::new(to, self.seen);
        // SAFETY: `to` is borrowed mutably.
        unsafe { multiply_at(target, 0, onto, scale, left, right, false) }
    }

    /// This head's columns of an output (+)= scale · left · right.
    fn write<const N: usize>(
        &self,
        outputs: &Outputs<'_, T, N>,
        which: usize,
        onto: Onto,
        scale: T,
        left: Matrix<'_, T>,
        right: Matrix<'_, T>,
    ) {
        let positions = match which {
            0 => self.plan.layout.queries,
            _ => self.plan.layout.keys,
        };
        let target = outputs.0[which].with_step(self.all());
        // SAFETY: a head writes to its own sequence's rows and its own columns, and heads are worked
        // on by one thread each.
        unsafe {
            multiply_at(
                target,
                self.offset(positions),
                onto,
                scale,
                left,
                right,
                false,
            );
        }
    }

    /// Multiplies rows of scores with the dropout mask.
    fn drop(&self, scores: &mut [T]) {
        let layout = &self.plan.layout;
        let Some(mask) = &self.mask else { return };
        if self.seen == 0 {
            return;
        }
        for (i, row) in scores.chunks_exact_mut(self.seen).enumerate() {
            mask.apply((self.number * layout.queries + i) * layout.keys, row);
        }
    }

    /// P̃ = m P, `None` where it is P.
    fn dropped(&self, p: &[T]) -> Option<Buffer<T>> {
        self.mask.as_ref().map(|_| {
            let mut dropped = Buffer::copy_of(p);
            self.drop(&mut dropped);
            dropped
        })
    }

    /// P and O.
    pub fn forward(&self, p: &mut [T], outputs: &Outputs<'_, T, 1>) {
        self.score_product(p, Onto::Replace, self.scale, self.q, self.k.transposed());
        let keys = self.plan.layout.keys;
        let softmax = Softmax {
            scores: p,
            width: self.seen,
            visible: &self.plan.visible[self.sequence * keys..][..self.seen],
            causal: self.causal,
        };
        simd::run(softmax);
        let dropped = self.dropped(p);
        let weights = self.scores(dropped.as_deref().unwrap_or(p));
        self.write(outputs, 0, Onto::Replace, T::ONE, weights, self.v);
    }

    /// gq, gk, gv.
    pub fn backward(&self, p: &[T], g: &[T], outputs: &Outputs<'_, T, 3>) {
        let g = self.queries(g);
        let mut gs = self.scratch();
        self.score_product(&mut gs, Onto::Replace, T::ONE, g, self.v.transposed());
        self.drop(&mut gs);
        self.jacobian(p, &mut gs);
        let gs = self.scores(&gs);
        self.write(outputs, 0, Onto::Replace, self.scale, gs, self.k);
        self.write(
            outputs,
            1,
            Onto::Replace,
            self.scale,
            gs.transposed(),
            self.q,
        );
        let dropped = self.dropped(p);
        let weights = self.scores(dropped.as_deref().unwrap_or(p));
        self.write(outputs, 2, Onto::Replace, T::ONE, weights.transposed(), g);
    }

    fn jacobian(&self, p: &[T], u: &mut [T]) {
        let task = Jacobian {
            width: self.seen,
            p,
            u,
        };
        simd::run(task);
    }

    /// tS
    fn score_tangent(&self, cotangents: &[Option<View<'_, T>>; 3]) -> Buffer<T> {
        let mut ts = self.scratch();
        let mut how = Onto::Replace;
        if let Some(v_q) = &cotangents[0] {
            let v_q = self.queries(v_q);
            self.score_product(&mut ts, how, self.scale, v_q, self.k.transposed());
            how = Onto::Add;
        }
        if let Some(v_k) = &cotangents[1] {
            let v_k = self.keys(v_k);
            self.score_product(&mut ts, how, self.scale, self.q, v_k.transposed());
            how = Onto::Add;
        }
        if how == Onto::Replace {
            ts.fill(T::ZERO);
        }
        ts
    }

    /// ḡ
    pub fn tangent(
        &self,
        p: &[T],
        cotangents: &[Option<View<'_, T>>; 3],
        outputs: &Outputs<'_, T, 1>,
    ) {
        let mut tp = self.score_tangent(cotangents);
        self.jacobian(p, &mut tp);
        self.drop(&mut tp);
        self.write(outputs, 0, Onto::Replace, T::ONE, self.scores(&tp), self.v);
        if let Some(v_v) = &cotangents[2] {
            let dropped = self.dropped(p);
            let weights = self.scores(dropped.as_deref().unwrap_or(p));
            self.write(outputs, 0, Onto::Add, T::ONE, weights, self.keys(v_v));
        }
    }

    /// q̄, k̄, v̄ of the second pass.
    pub fn second_backward(
        &self,
        p: &[T],
        cotangent: Option<&[T]>,
        left: &LeftViews<'_, T>,
        outputs: &Outputs<'_, T, 3>,
    ) {
        let g = self.queries(&left.gradient);
        let cotangent = cotangent.map(|o| self.queries(o));
        let mut gs = self.scratch();
        self.score_product(&mut gs, Onto::Replace, T::ONE, g, self.v.transposed());
        self.drop(&mut gs);
        let mut ts = self.score_tangent(&left.cotangents);
        let mut s = self.scratch();
        let mut how = Onto::Replace;
        if let Some(o) = cotangent {
            self.score_product(&mut s, how, T::ONE, o, self.v.transposed());
            how = Onto::Add;
        }
        if let Some(v_v) = &left.cotangents[2] {
            let v_v = self.keys(v_v);
            self.score_product(&mut s, how, T::ONE, g, v_v.transposed());
            how = Onto::Add;
        }
        match how {
            Onto::Replace => s.fill(T::ZERO),
            Onto::Add => self.drop(&mut s),
        }
        let rows = SecondRows {
            width: self.seen,
            p,
            gp: &mut gs,
            ts: &mut ts,
            s: &mut s,
        };
        simd::run(rows);
        self.drop(&mut ts);
        let (gs, s) = (self.scores(&gs), self.scores(&s));
        self.write(outputs, 0, Onto::Replace, self.scale, s, self.k);
        if let Some(v_k) = &left.cotangents[1] {
            self.write(outputs, 0, Onto::Add, self.scale, gs, self.keys(v_k));
        }
        self.write(
            outputs,
            1,
            Onto::Replace,
            self.scale,
            s.transposed(),
            self.q,
        );
        if let Some(v_q) = &left.cotangents[0] {
            let v_q = self.queries(v_q);
            self.write(outputs, 1, Onto::Add, self.scale, gs.transposed(), v_q);
        }
        self.write(
            outputs,
            2,
            Onto::Replace,
            T::ONE,
            self.scores(&ts).transposed(),
            g,
        );
        if let Some(o) = cotangent {
            let dropped = self.dropped(p);
            let weights = self.scores(dropped.as_deref().unwrap_or(p));
            self.write(outputs, 2, Onto::Add, T::ONE, weights.transposed(), o);
        }
    }
}
