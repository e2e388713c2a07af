//! The mean squared error as one operation.
//!
//! ```text
//! F:   L = Σ (p - t)² / n
//! A:   gp = g 2(p - t) / n
//! ∂A:  ḡ = Σ v 2(p - t) / n
//! ∂F:  p̄ = L̄ 2(p - t) / n + g 2v / n
//! ```

use crate::error::Result;
use crate::ops;
use crate::ops::engine::{
    Array, Buffer, Fused, Gradients, Handle, Held, Inner, Inputs, Made, Op, Point, Real, apply,
};
use candle_core::Tensor;

/// (1/n) Σᵢ (pᵢ - tᵢ)²: [`crate::ops::mse()`] on a handle `[n]`. The result is a scalar.
///
/// # Errors
/// As [`crate::ops::mse()`]; candle's errors.
pub fn mse(prediction: &Handle, target: &Tensor) -> Result<Handle> {
    ops::mse::check(prediction.dims(), target.dims())?;
    match prediction.inner() {
        Inner::Composed(p) => Ok(Handle::composed(&ops::mse(p, target)?)),
        Inner::F32(p) => Ok(fused(p, target)?.into()),
        Inner::F64(p) => Ok(fused(p, target)?.into()),
    }
}

fn fused<T: Real>(prediction: &Fused<T>, target: &Tensor) -> Result<Fused<T>> {
    let target = Fused::enter(&target.detach().to_dtype(T::DTYPE)?)?;
    apply(SquaredError, &[prediction, &target], &[])
}

struct SquaredError;

/// scale · Σ a (p - t)
fn along<T: Real>(a: Option<&[T]>, p: &[T], t: &[T], scale: f64) -> T {
    let entries = p.iter().zip(t).enumerate();
    let terms = entries.map(|(i, (p, t))| {
        let error = p.to_f64() - t.to_f64();
        a.map_or(error, |a| a[i].to_f64()) * error
    });
    T::from_f64(scale * terms.sum::<f64>())
}

impl<T: Real> Op<T> for SquaredError {
    type Saved = ();
    type Kept = ();
    /// g and v.
    type Deferred = (T, Option<Array<T>>);

    fn name(&self) -> &'static str {
        "mean squared error"
    }

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> (Made<T>, ()) {
        let mut loss = Buffer::scratch(1);
        loss[0] = along(None, &inputs[0], &inputs[1], 1.0 / inputs[0].len() as f64);
        (loss.into(), ())
    }

    fn adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: Option<&[T]>,
        deferred: Option<Self::Deferred>,
        _: &[bool],
        _: &mut Gradients<T>,
    ) -> (Gradients<T>, ()) {
        let (p, t) = (&point.inputs[0], &point.inputs[1]);
        let twice = T::from_f64(2.0 / p.len() as f64);
        let cotangent = gradient.map_or(T::ZERO, |g| g[0]) * twice;
        let mut result = Buffer::scratch(p.len());
        let entries = result.iter_mut().zip(p.iter().zip(t.iter()));
        entries.for_each(|(to, (&p, &t))| *to = (p - t) * cotangent);
        if let Some((g, Some(v))) = deferred {
            let factor = g * twice;
            let v = v.view();
            let entries = result.iter_mut().zip(v.iter());
            entries.for_each(|(to, &v)| *to += v * factor);
        }
        (vec![Some(result), None], ())
    }

    fn second_adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> (Made<T>, Self::Deferred) {
        let (p, t) = (&point.inputs[0], &point.inputs[1]);
        let mut tangent = Buffer::zeroed(1);
        if let Some(v) = &cotangents[0] {
            tangent[0] = along(Some(&v.view()), p, t, 2.0 / p.len() as f64);
        }
        let v = cotangents[0].as_ref().map(Held::keep);
        (tangent.into(), (gradient.view()[0], v))
    }
}
