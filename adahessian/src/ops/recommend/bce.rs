//! Binary cross entropy of logits as one operation.
//!
//! ```text
//! F:   L = Σ (log(1 + eˡ) - t l) / n
//! A:   gl = g (σ(l) - t) / n
//! ∂A:  ḡ = Σ v (σ(l) - t) / n
//! ∂F:  l̄ = L̄ (σ(l) - t) / n + g v σ(l)(1 - σ(l)) / n
//! ```

use crate::error::Result;
use crate::ops;
use crate::ops::engine::{
    Array, Buffer, Fused, Gradients, Handle, Held, Inner, Inputs, Made, Op, Point, Real, apply,
};
use candle_core::Tensor;

/// The mean over the rows of log(1 + e^l) - t l: [`crate::ops::binary_cross_entropy`] on a handle
/// `[N]`. The result is a scalar.
///
/// # Errors
/// As [`crate::ops::binary_cross_entropy`].
pub fn binary_cross_entropy(logits: &Handle, targets: &Tensor) -> Result<Handle> {
    ops::bce::check(logits.dims(), targets.dims())?;
    match logits.inner() {
        Inner::Composed(l) => Ok(Handle::composed(&ops::binary_cross_entropy(l, targets)?)),
        Inner::F32(l) => Ok(fused(l, targets)?.into()),
        Inner::F64(l) => Ok(fused(l, targets)?.into()),
    }
}

fn fused<T: Real>(logits: &Fused<T>, targets: &Tensor) -> Result<Fused<T>> {
    let targets = Fused::enter(&targets.detach().to_dtype(T::DTYPE)?)?;
    apply(LogLoss, &[logits, &targets], &[])
}

struct LogLoss;

/// σ(l), from the side on which the exponential is small. A batch has few rows: in f64 it is exact and
/// costs nothing that could be measured.
fn sigmoid(l: f64) -> f64 {
    let decay = (-l.abs()).exp();
    match l >= 0.0 {
        true => 1.0 / (1.0 + decay),
        false => decay / (1.0 + decay),
    }
}

impl<T: Real> Op<T> for LogLoss {
    type Saved = ();
    type Kept = ();
    /// g and v.
    type Deferred = (f64, Option<Array<T>>);

    fn name(&self) -> &'static str {
        "binary cross entropy"
    }

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> (Made<T>, ()) {
        let rows = inputs[0].iter().zip(inputs[1].iter());
        let terms = rows.map(|(l, t)| {
            let (l, t) = (l.to_f64(), t.to_f64());
            // `max` would swallow not-a-number.
            let positive = if l < 0.0 { 0.0 } else { l };
            positive + (-l.abs()).exp().ln_1p() - t * l
        });
        let mut loss = Buffer::scratch(1);
        loss[0] = T::from_f64(terms.sum::<f64>() / inputs[0].len() as f64);
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
        let (logits, targets) = (&point.inputs[0], &point.inputs[1]);
        let share = 1.0 / logits.len() as f64;
        let cotangent = gradient.map_or(0.0, |g| g[0].to_f64());
        let (g, v) = match &deferred {
            Some((g, Some(v))) => (*g, Some(v.view())),
            _ => (0.0, None),
        };
        let mut result = Buffer::scratch(logits.len());
        for (i, to) in result.iter_mut().enumerate() {
            let p = sigmoid(logits[i].to_f64());
            let v = v.as_ref().map_or(0.0, |v| v[i].to_f64());
            let slope = cotangent * (p - targets[i].to_f64());
            *to = T::from_f64(share * (slope + g * v * p * (1.0 - p)));
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
        let (logits, targets) = (&point.inputs[0], &point.inputs[1]);
        let mut tangent = Buffer::zeroed(1);
        if let Some(v) = &cotangents[0] {
            let v = v.view();
            let terms = (0..logits.len())
                .map(|i| v[i].to_f64() * (sigmoid(logits[i].to_f64()) - targets[i].to_f64()));
            tangent[0] = T::from_f64(terms.sum::<f64>() / logits.len() as f64);
        }
        let v = cotangents[0].as_ref().map(Held::keep);
        (tangent.into(), (gradient.view()[0].to_f64(), v))
    }
}
