//! A linear map with bias and activation, dense or in groups, as one operation.
//!
//! ```text
//! F:   c = x Wᵀ + b;   y = act(c)
//! A:   h = g act'(c);   gx = h W;   gW = hᵀ x;   gb = Σ h
//! ∂A:  t = v_x Wᵀ + x v_Wᵀ + v_b;   ḡ = t act'(c);   c̄_A = t g act''(c)
//! ∂F:  k = ȳ act'(c) + c̄_A;   x̄ = k W + h v_W;   W̄ = kᵀ x + hᵀ v_x;   b̄ = Σ k
//! ```
//! Nine products in all, the least there can be.

use super::Linear;
use super::groups::Sum;
use crate::engine::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use crate::engine::{Cpu, Kernel};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::{Buffer, FEW, Onto, Real, add, column_sums, rows_in_piece};
use crate::ops::Activation;
use crate::ops::activation::cpu::{self as curve, Again};
use std::sync::Arc;

impl Linear {
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

    /// k = ȳ act'(c) + t g act''(c) and h = g act'(c).
    fn sloped_twice<'a, T: Real>(
        &self,
        c: &[T],
        cotangent: Option<&'a [T]>,
        gradient: &'a [T],
        tangent: Option<&[T]>,
    ) -> (Option<Sloped<'a, T>>, Sloped<'a, T>) {
        let Some(t) = tangent else {
            return (cotangent.map(Sloped::Same), Sloped::Same(gradient));
        };
        let zeros;
        let cotangent = match cotangent {
            Some(cotangent) => cotangent,
            None => {
                zeros = Buffer::zeroed(gradient.len());
                &zeros
            }
        };
        let [mut k, mut h] = [0, 1].map(|_| Buffer::scratch(gradient.len()));
        let read = [c, cotangent, gradient, t];
        curve::second(self.activation, read, &mut k, &mut h);
        (Some(Sloped::Own(k)), Sloped::Own(h))
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

/// Adds a bias to every row.
pub(in crate::ops) fn add_bias<T: Real>(y: &mut [T], bias: &[T]) {
    let width = bias.len();
    let add_to = |rows: &mut [T]| rows.chunks_exact_mut(width).for_each(|row| add(row, bias));
    if y.len() <= FEW {
        return add_to(y);
    }
    let pieces = y.chunks_mut(rows_in_piece(width) * width);
    parallel::each(pieces, |_, rows| add_to(rows));
}

/// What the second level leaves: g, t where the activation bends, and the cotangents of gx and gW.
pub(super) struct Left<T: Real> {
    gradient: Array<T>,
    tangent: Option<Arc<Buffer<T>>>,
    v_x: Option<Array<T>>,
    v_w: Option<Array<T>>,
}

impl<T: Real> Kernel<Cpu<T>> for Linear {
    /// c, where it is not y.
    type Saved = Option<Arc<Buffer<T>>>;
    type Kept = ();
    type Deferred = Left<T>;

    /// Not the bias.
    fn reads(&self, input: usize) -> bool {
        input < 2
    }

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, Self::Saved)> {
        let rows = inputs[0].len() / self.sizes.inputs;
        let mut c = Buffer::scratch(rows * self.sizes.outputs);
        self.sizes
            .forward(&inputs[0], &inputs[1], &mut c, Onto::Replace);
        if let Some(bias) = inputs.get(2) {
            add_bias(&mut c, bias);
        }
        let (activation, u) = (self.activation, None);
        if activation == Activation::Identity {
            return Ok((c.into(), None));
        }
        let c = Arc::new(c);
        let saved = Some(Arc::clone(&c));
        Ok((Again { activation, c, u }.output(), saved))
    }

    fn adjoint(
        &self,
        point: &Point<T, Self::Saved>,
        gradient: Option<&[T]>,
        deferred: Option<Left<T>>,
        wanted: &[bool],
        onto: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let (x, w) = (point.input(0)?, point.input(1)?);
        let c = point.saved.as_ref().map_or(&[][..], |c| &c[..]);
        let left = deferred.as_ref();
        let g = left.map(|left| left.gradient.view()).transpose()?;
        let v_x = left.and_then(|left| left.v_x.as_ref());
        let v_w = left.and_then(|left| left.v_w.as_ref());
        let v_x = v_x.map(Array::view).transpose()?;
        let v_w = v_w.map(Array::view).transpose()?;
        let (k, h) = match &g {
            None => (gradient.map(|g| self.sloped(c, g)), None),
            Some(g) => {
                let t = left.and_then(|left| left.tangent.as_ref()).map(|t| &t[..]);
                let (k, h) = self.sloped_twice(c, gradient, g, t);
                (k, Some(h))
            }
        };
        let sizes = &self.sizes;
        let gx = wanted[0].then(|| {
            let mut gx = Sum::new(onto[0].take(), x.len());
            if let Some(k) = &k {
                gx.add(|to, how| sizes.input_gradient(k, w, to, how));
            }
            if let (Some(h), Some(v_w)) = (&h, &v_w) {
                gx.add(|to, how| sizes.input_gradient(h, v_w, to, how));
            }
            gx.end()
        });
        let gw = wanted[1].then(|| {
            let mut gw = Sum::new(None, w.len());
            if let Some(k) = &k {
                gw.add(|to, how| sizes.weight_gradient(k, x, to, how));
            }
            if let (Some(h), Some(v_x)) = (&h, &v_x) {
                gw.add(|to, how| sizes.weight_gradient(h, v_x, to, how));
            }
            gw.end()
        });
        let gb = match (&k, wanted.get(2)) {
            (Some(k), Some(true)) => Some(column_sums(k, sizes.outputs)),
            _ => None,
        };
        Ok((vec![gx, gw, gb], ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, Self::Saved>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Left<T>)> {
        let (x, w) = (point.input(0)?, point.input(1)?);
        let length = x.len() / self.sizes.inputs * self.sizes.outputs;
        let mut t = Sum::new(None, length);
        if let Some(v_x) = &cotangents[0] {
            let v_x = v_x.view()?;
            t.add(|to, how| self.sizes.forward(&v_x, w, to, how));
        }
        if let Some(v_w) = &cotangents[1] {
            let v_w = v_w.view()?;
            t.add(|to, how| self.sizes.forward(x, &v_w, to, how));
        }
        let mut t = t.end();
        if let Some(Some(v_b)) = cotangents.get(2) {
            add_bias(&mut t, &v_b.view()?);
        }
        let mut left = Left {
            gradient: gradient.clone(),
            tangent: None,
            v_x: cotangents[0].as_ref().map(Held::keep),
            v_w: cotangents[1].as_ref().map(Held::keep),
        };
        let Some(c) = &point.saved else {
            return Ok((t.into(), left));
        };
        let (activation, c, u) = (self.activation, Arc::clone(c), Arc::new(t));
        left.tangent = Some(Arc::clone(&u));
        let u = Some(u);
        Ok((Again { activation, c, u }.output(), left))
    }
}
