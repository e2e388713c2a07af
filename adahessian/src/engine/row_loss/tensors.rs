//! The mean of a loss over rows on tensors without a graph: its derivatives in every row are made once, in f64.

use super::{Mean, RowLoss};
use crate::engine::tensors::{Array, Gradients, Held, Inputs, Output, Point, numbers};
use crate::engine::{Kernel, Tensors};
use crate::error::Result;
use crate::numeric::formula::{Space, plus};
use candle_core::{DType, Tensor};

/// f'/n and f''/n of every row, in the prediction's type.
pub(super) struct Saved {
    slope: Tensor,
    bend: Tensor,
}

/// g and v.
pub(super) struct Left {
    gradient: Tensor,
    v: Option<Tensor>,
}

impl<L: RowLoss> Kernel<Tensors> for Mean<L> {
    type Saved = Saved;
    type Kept = ();
    type Deferred = Left;

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &Inputs, _: bool) -> Result<(Output, Saved)> {
        let (p, t) = (&inputs[0], &inputs[1]);
        let exact = |x: &Tensor| x.to_dtype(DType::F64);
        let [f, slope, bend] = self.0.derivatives_of_tensors(&exact(p)?, &exact(t)?)?;
        let share = 1.0 / p.elem_count() as f64;
        let part = |x: Tensor| (x * share)?.to_dtype(p.dtype());
        let loss = part(f.sum_all()?)?;
        let saved = Saved {
            slope: part(slope)?,
            bend: part(bend)?,
        };
        Ok((loss.into(), saved))
    }

    fn adjoint(
        &self,
        point: &Point<Saved>,
        gradient: Option<&Tensor>,
        deferred: Option<Left>,
        _: &[bool],
        _: &mut Gradients,
    ) -> Result<(Gradients, ())> {
        let Saved { slope, bend } = point.saved;
        let space = Space::whole(slope.dims());
        let first = match gradient {
            Some(g) => Some(space.entries(slope)? * space.shared(g)?),
            None => None,
        };
        let second = match &deferred {
            Some(Left {
                gradient,
                v: Some(v),
            }) => Some(space.entries(bend)? * space.entries(v)? * space.shared(gradient)?),
            _ => None,
        };
        let [sum] = space.compute_some([plus(first, second)])?;
        Ok((vec![sum.map(Into::into), None], ()))
    }

    fn second_adjoint(
        &self,
        point: &Point<Saved>,
        gradient: &Array,
        _: &(),
        cotangents: &[Option<Held>],
    ) -> Result<(Output, Left)> {
        let slope = &point.saved.slope;
        let g = gradient.view()?.into_tensor();
        let v = numbers(cotangents.first())?;
        let tangent = match &v {
            Some(v) => {
                let space = Space::whole(slope.dims());
                let sum = (space.entries(slope)? * space.entries(v)?).sum();
                let [sum] = space.compute([sum])?;
                sum.reshape(())?
            }
            None => g.zeros_like()?,
        };
        Ok((tangent.into(), Left { gradient: g, v }))
    }
}
