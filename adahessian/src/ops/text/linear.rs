//! A linear map with bias and activation, dense or in groups, as one operation.
//!
//! ```text
//! F:   c = x Wᵀ + b;   y = act(c)
//! A:   h = g act'(c);   gx = h W;   gW = hᵀ x;   gb = Σ h
//! ∂A:  t = v_x Wᵀ + x v_Wᵀ + v_b;   ḡ = t act'(c);   c̄_A = t g act''(c)
//! ∂F:  k = ȳ act'(c) + c̄_A;   x̄ = k W + h v_W;   W̄ = kᵀ x + hᵀ v_x;   b̄ = Σ k
//! ```
//! Nine products in all, the least there can be.

use super::curve;
use super::product::{Matrix, Onto, multiply};
use super::rows::{add, column_sums, rows_in_piece};
use crate::error::Result;
use crate::ops::engine::{Buffer, Fused, Gradients, Handle, Inner, Inputs, Op, Point, Real, apply};
use crate::ops::linear::{check_bias, check_weight};
use crate::ops::{Activation, linear_activation};
use candle_core::Tensor;
use rayon::prelude::*;
use std::sync::Arc;

/// act(x Wᵀ + b) over the last dimension, in `groups` equal, consecutive parts of inputs and outputs:
/// [`crate::ops::linear_activation`] on handles.
///
/// `x` is [.., in], `weight` [out, in/groups] (or [out, in/groups, 1]), `bias` `[out]`, the result
/// [.., out].
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit; candle's errors.
pub fn linear(
    x: &Handle,
    weight: &Tensor,
    bias: Option<&Tensor>,
    groups: usize,
    activation: Activation,
) -> Result<Handle> {
    let inputs = x.dims().last().copied().unwrap_or(0);
    let outputs = check_weight(weight, inputs, groups)?;
    check_bias(bias, outputs)?;
    let map = Linear {
        inputs,
        outputs,
        groups,
        activation,
    };
    match x.inner() {
        Inner::Composed(x) => Ok(Handle::composed(&linear_activation(
            x, weight, bias, groups, activation,
        )?)),
        Inner::F32(x) => Ok(map.fused(x, weight, bias)?.into()),
        Inner::F64(x) => Ok(map.fused(x, weight, bias)?.into()),
    }
}

struct Linear {
    inputs: usize,
    outputs: usize,
    groups: usize,
    activation: Activation,
}

impl Linear {
    fn fused<T: Real>(
        self,
        x: &Fused<T>,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Fused<T>> {
        let mut shape = x.slot.shape.clone();
        shape.pop();
        shape.push(self.outputs);
        let weight = Fused::enter(weight)?;
        let bias = bias.map(Fused::enter).transpose()?;
        let mut inputs = vec![x, &weight];
        inputs.extend(&bias);
        apply(self, &inputs, &shape)
    }

    /// Inputs and outputs of a group.
    fn parts(&self) -> (usize, usize) {
        (self.inputs / self.groups, self.outputs / self.groups)
    }

    /// The part of x, of y and of W that belongs to a group.
    fn views<'a, T>(&self, group: usize, x: &'a [T], y: &'a [T], w: &'a [T]) -> [Matrix<'a, T>; 3] {
        let (ins, outs) = self.parts();
        let of = |data: &'a [T], part: usize, step: usize| {
            let rows = data.len() / step;
            Matrix::rows_of(&data[(group * part).min(data.len())..], rows, part, step)
        };
        [
            of(x, ins, self.inputs),
            of(y, outs, self.outputs),
            Matrix::rows_of(&w[(group * outs * ins).min(w.len())..], outs, ins, ins),
        ]
    }

    /// y (+)= x Wᵀ
    fn forward_product<T: Real>(&self, x: &[T], w: &[T], y: &mut [T], onto: Onto) {
        for group in 0..self.groups {
            let [x, _, w] = self.views(group, x, &[], w);
            let offset = group * self.parts().1;
            multiply(y, self.outputs, offset, onto, x, w.transposed());
        }
    }

    /// x (+)= u W
    fn input_product<T: Real>(&self, u: &[T], w: &[T], x: &mut [T], onto: Onto) {
        for group in 0..self.groups {
            let [_, u, w] = self.views(group, &[], u, w);
            multiply(x, self.inputs, group * self.parts().0, onto, u, w);
        }
    }

    /// W (+)= uᵀ x
    fn weight_product<T: Real>(&self, u: &[T], x: &[T], w: &mut [T], onto: Onto) {
        let (ins, outs) = self.parts();
        for group in 0..self.groups {
            let [x, u, _] = self.views(group, x, u, &[]);
            multiply(w, ins, group * outs * ins, onto, u.transposed(), x);
        }
    }

    /// u act'(c): of its own, unless it is u.
    fn sloped<'a, T: Real>(&self, c: &[T], u: &'a [T]) -> Sloped<'a, T> {
        match self.activation {
            Activation::Identity => Sloped::Same(u),
            activation => {
                let mut h = Buffer::scratch(u.len());
                curve::slope(activation, c, u, &mut h);
                Sloped::Own(h)
            }
        }
    }
}

enum Sloped<'a, T: Real> {
    Same(&'a [T]),
    Own(Buffer<T>),
}

impl<T: Real> std::ops::Deref for Sloped<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Sloped::Same(data) => data,
            Sloped::Own(data) => data,
        }
    }
}

fn add_bias<T: Real>(y: &mut [T], bias: &[T]) {
    let width = bias.len();
    let pieces = y.par_chunks_mut(rows_in_piece(width) * width);
    pieces.for_each(|rows| rows.chunks_exact_mut(width).for_each(|row| add(row, bias)));
}

/// What the second level leaves: g, c̄_A where the activation bends, and the cotangents of gx and gW.
pub(super) struct Left<T: Real> {
    gradient: Arc<Buffer<T>>,
    bend: Option<Buffer<T>>,
    v_x: Option<Arc<Buffer<T>>>,
    v_w: Option<Arc<Buffer<T>>>,
}

impl<T: Real> Op<T> for Linear {
    /// c, where it is not y.
    type Saved = Option<Buffer<T>>;
    type Kept = ();
    type Deferred = Left<T>;

    fn name(&self) -> &'static str {
        "linear"
    }

    fn forward(&self, inputs: &Inputs<T>, keep: bool) -> (Buffer<T>, Self::Saved) {
        let rows = inputs[0].len() / self.inputs;
        let mut c = Buffer::scratch(rows * self.outputs);
        self.forward_product(&inputs[0], &inputs[1], &mut c, Onto::Replace);
        if let Some(bias) = inputs.get(2) {
            add_bias(&mut c, bias);
        }
        if self.activation == Activation::Identity {
            return (c, None);
        }
        let mut y = Buffer::scratch(c.len());
        curve::value(self.activation, &c, &mut y);
        (y, keep.then_some(c))
    }

    fn adjoint(
        &self,
        point: &Point<T, Self::Saved>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        wanted: &[bool],
        onto: &mut Gradients<T>,
    ) -> (Gradients<T>, ()) {
        let (x, w) = (&point.inputs[0], &point.inputs[1]);
        let c = point.saved.as_deref().unwrap_or(&[]);
        // k, in which the second level's part is added to the first's.
        let k = match (gradient, deferred.as_ref().and_then(|d| d.bend.as_ref())) {
            (Some(g), None) => Some(self.sloped(c, g)),
            (None, None) => None,
            (g, Some(bend)) => {
                let mut k = Buffer::copy_of(bend);
                if let Some(g) = g {
                    let h = self.sloped(c, g);
                    crate::ops::simd::add_assign(&mut k, &h);
                }
                Some(Sloped::Own(k))
            }
        };
        let left = deferred.as_ref().map(|left| {
            let h = self.sloped(c, &left.gradient);
            (h, left.v_x.as_deref(), left.v_w.as_deref())
        });
        let gx = wanted[0].then(|| {
            let (mut gx, mut how) = match onto[0].take() {
                Some(there) => (there, Onto::Add),
                None => (Buffer::scratch(x.len()), Onto::Replace),
            };
            if let Some(k) = &k {
                self.input_product(k, w, &mut gx, how);
                how = Onto::Add;
            }
            if let Some((h, _, Some(v_w))) = &left {
                self.input_product(h, v_w, &mut gx, how);
                how = Onto::Add;
            }
            if how == Onto::Replace {
                gx.fill(T::ZERO);
            }
            gx
        });
        let gw = wanted[1].then(|| {
            let mut gw = Buffer::scratch(w.len());
            let mut how = Onto::Replace;
            if let Some(k) = &k {
                self.weight_product(k, x, &mut gw, how);
                how = Onto::Add;
            }
            if let Some((h, Some(v_x), _)) = &left {
                self.weight_product(h, v_x, &mut gw, how);
                how = Onto::Add;
            }
            if how == Onto::Replace {
                gw.fill(T::ZERO);
            }
            gw
        });
        let gb = match (&k, wanted.get(2)) {
            (Some(k), Some(true)) => Some(column_sums(k, self.outputs)),
            _ => None,
        };
        (vec![gx, gw, gb], ())
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Self::Saved>,
        gradient: &Arc<Buffer<T>>,
        _: &(),
        cotangents: &[Option<Arc<Buffer<T>>>],
    ) -> (Buffer<T>, Left<T>) {
        let mut t = Buffer::scratch(gradient.len());
        let mut how = Onto::Replace;
        if let Some(v_x) = &cotangents[0] {
            self.forward_product(v_x, &point.inputs[1], &mut t, how);
            how = Onto::Add;
        }
        if let Some(v_w) = &cotangents[1] {
            self.forward_product(&point.inputs[0], v_w, &mut t, how);
            how = Onto::Add;
        }
        if how == Onto::Replace {
            t.fill(T::ZERO);
        }
        if let Some(Some(v_b)) = cotangents.get(2) {
            add_bias(&mut t, v_b);
        }
        let (tangent, bend) = match &point.saved {
            None => (t, None),
            Some(c) => {
                let mut tangent = Buffer::scratch(t.len());
                let mut bend = Buffer::scratch(t.len());
                curve::slope_and_bend(self.activation, c, &t, gradient, &mut tangent, &mut bend);
                (tangent, Some(bend))
            }
        };
        let left = Left {
            gradient: Arc::clone(gradient),
            bend,
            v_x: cotangents[0].clone(),
            v_w: cotangents[1].clone(),
        };
        (tangent, left)
    }
}
