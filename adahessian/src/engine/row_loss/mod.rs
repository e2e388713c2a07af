//! Losses that are a mean over rows of a function of prediction and target.
//!
//! ```text
//! F:   L = Σ f(p, t) / n
//! A:   gp = g f'(p, t) / n
//! ∂A:  ḡ = Σ v f'(p, t) / n
//! ∂F:  p̄ = (L̄ f'(p, t) + g v f''(p, t)) / n
//! ```
//! A row is one number, so there are few of them: they are computed in f64, on the thread that is there.

mod tensors;

use super::cpu::{Array, Gradients, Held, Inputs, Output, Point};
use super::{Cpu, Handle, Kernel, Kernels, Op, Operand, call};
use crate::error::{Error, Result};
use crate::numeric::{Buffer, Real, widened};
use candle_core::Tensor;

/// A loss of one row, with its first two derivatives in the prediction.
///
/// ```
/// use adahessian::engine::{RowLoss, row_loss};
/// use adahessian::{NamedVars, Result, check};
/// use candle_core::{Device, Tensor, Var};
///
/// /// (p - t)².
/// struct Square;
///
/// impl RowLoss for Square {
///     fn name(&self) -> &'static str {
///         "square"
///     }
///     fn composed(&self, p: &Tensor, t: &Tensor) -> Result<Tensor> {
///         Ok((p - t)?.sqr()?)
///     }
///     fn derivatives(&self, p: f64, t: f64) -> [f64; 3] {
///         [(p - t) * (p - t), 2.0 * (p - t), 2.0]
///     }
/// }
///
/// let p = Var::new(&[0.5, -1.0, 2.0], &Device::Cpu)?;
/// let t = Tensor::new(&[1.0, 0.0, 2.5], &Device::Cpu)?;
/// let vars = NamedVars::new([("p".to_string(), p.clone())])?;
/// let loss = || row_loss(Square, p.as_tensor(), &t)?.exit();
/// check::gradient(&vars, 1e-7, loss)?;
/// check::hessian(&vars, 1e-7, loss)?;
/// # Ok::<(), adahessian::Error>(())
/// ```
pub trait RowLoss: Send + Sync + 'static {
    /// Its name, for errors.
    fn name(&self) -> &'static str;

    /// f of every row in candle's operations, `[n]`.
    ///
    /// # Errors
    /// If candle fails.
    fn composed(&self, prediction: &Tensor, target: &Tensor) -> Result<Tensor>;

    /// f, ∂f/∂p and ∂²f/∂p².
    fn derivatives(&self, prediction: f64, target: f64) -> [f64; 3];

    /// Whether there is [`RowLoss::derivatives_of_tensors`]. Without it the loss is composed on a GPU.
    const OF_TENSORS: bool = false;

    /// The same of every row, `[n]` each, in f64, in candle's operations on tensors without a graph.
    ///
    /// # Errors
    /// If candle fails.
    fn derivatives_of_tensors(
        &self,
        _prediction: &Tensor,
        _target: &Tensor,
    ) -> Result<[Tensor; 3]> {
        Err(Error::Engine {
            what: format!("the loss `{}` has no kernel of tensors", self.name()),
        })
    }
}

/// The mean of a loss over the rows of `prediction` and `target`, both `[n]`: a scalar. The target is a
/// constant, and takes the prediction's type.
///
/// # Errors
/// [`Error::Setting`] for shapes that differ or no rows at all: `[n]` against [n, 1] would broadcast to
/// [n, n] elsewhere. candle's errors.
pub fn row_loss(loss: impl RowLoss, prediction: &dyn Operand, target: &Tensor) -> Result<Handle> {
    let target = target.detach().to_dtype(prediction.dtype())?;
    call(Mean(loss), &[prediction, &target])
}

struct Mean<L>(L);

impl<L: RowLoss> Op for Mean<L> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let (prediction, target) = (inputs[0], inputs[1]);
        match prediction == target && prediction.len() == 1 && prediction[0] > 0 {
            true => Ok(vec![]),
            false => Err(Error::Setting {
                what: self.0.name(),
                expected: "predictions and targets of the same shape [rows], at least one".into(),
                got: format!("{prediction:?} and {target:?}"),
            }),
        }
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        // Half precision has too few digits for the sum, and too small a range for squares.
        let rows = self
            .0
            .composed(&widened(&inputs[0])?, &widened(&inputs[1])?)?;
        Ok(rows.mean_all()?.to_dtype(inputs[0].dtype())?)
    }

    fn kernels() -> Kernels<Self> {
        match L::OF_TENSORS {
            true => Kernels::everywhere(),
            false => Kernels::cpu(),
        }
    }
}

impl<L: RowLoss> Mean<L> {
    /// The derivatives of every row.
    fn rows<'a, T: Real>(&'a self, p: &'a [T], t: &'a [T]) -> impl Iterator<Item = [f64; 3]> + 'a {
        let rows = p.iter().zip(t);
        rows.map(|(p, t)| self.0.derivatives(p.to_f64(), t.to_f64()))
    }
}

/// One number.
fn scalar<T: Real>(x: f64) -> Buffer<T> {
    Buffer::copy_of(&[T::from_f64(x)])
}

impl<T: Real, L: RowLoss> Kernel<Cpu<T>> for Mean<L> {
    type Saved = ();
    type Kept = ();
    /// g and v.
    type Deferred = (f64, Option<Array<T>>);

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> Result<(Output<T>, ())> {
        let rows = self.rows(&inputs[0], &inputs[1]);
        let sum: f64 = rows.map(|[f, ..]| f).sum();
        Ok((scalar(sum / inputs[0].len() as f64).into(), ()))
    }

    fn adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: Option<&[T]>,
        deferred: Option<Self::Deferred>,
        _: &[bool],
        _: &mut Gradients<T>,
    ) -> Result<(Gradients<T>, ())> {
        let (p, t) = (point.input(0)?, point.input(1)?);
        let share = 1.0 / p.len() as f64;
        let cotangent = gradient.map_or(0.0, |g| g[0].to_f64());
        let (g, v) = match &deferred {
            Some((g, Some(v))) => (*g, Some(v.view()?)),
            _ => (0.0, None),
        };
        let mut result = Buffer::scratch(p.len());
        for (i, [_, slope, bend]) in self.rows(p, t).enumerate() {
            let v = v.as_ref().map_or(0.0, |v| v[i].to_f64());
            result[i] = T::from_f64(share * (cotangent * slope + g * v * bend));
        }
        Ok((vec![Some(result), None], ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> Result<(Output<T>, Self::Deferred)> {
        let (p, t) = (point.input(0)?, point.input(1)?);
        let mut tangent = 0.0;
        if let Some(v) = &cotangents[0] {
            let v = v.view()?;
            let rows = self.rows(p, t).zip(v.iter());
            tangent = rows
                .map(|([_, slope, _], v)| v.to_f64() * slope)
                .sum::<f64>();
        }
        let left = (
            gradient.view()?[0].to_f64(),
            cotangents[0].as_ref().map(Held::keep),
        );
        Ok((scalar(tangent / p.len() as f64).into(), left))
    }
}
