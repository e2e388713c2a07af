//! Norms of what was accumulated, and whether all of it is a number that a step can be taken with.

use crate::error::Result;
use crate::numeric::in_place;
use crate::numeric::{Totals, end_to_end, in_memory, portions, widened};
use crate::optim::NotFinite;
use crate::optim::group::Common;
use crate::optim::traced;
use crate::vars::NamedVars;
use candle_core::{DType, Tensor};

/// Which numbers a running mean of squares can take in.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Range {
    /// Finite ones: they are clipped before they are squared.
    Finite,
    /// Those whose squares are finite, too, in the type of the mean: one that is not would stay there
    /// for good, and its variable stand still.
    Squared,
}

impl Range {
    /// Of gradients under these settings.
    pub fn of_gradients(common: &Common) -> Self {
        match common.clip_norm.is_some() || common.clip_value.is_some() {
            true => Range::Finite,
            false => Range::Squared,
        }
    }

    fn holds(self, squares: f64, dtype: DType) -> bool {
        match (self, dtype) {
            (Range::Squared, DType::F32) => squares <= f64::from(f32::MAX),
            _ => squares.is_finite(),
        }
    }
}

/// The sum of squares of all entries, or the first variable where it is out of range.
pub(crate) fn sum_of_squares(
    vars: &NamedVars,
    tensors: &[Option<Tensor>],
    range: Range,
    what: &'static str,
) -> Result<std::result::Result<f64, NotFinite>> {
    let mut total = 0.0;
    let all = squares_of_all(tensors)?;
    for ((name, tensor), squares) in vars.names().zip(tensors).zip(all) {
        let (Some(tensor), Some(squares)) = (tensor, squares) else {
            continue;
        };
        if !range.holds(squares, tensor.dtype()) {
            let name = name.into();
            return Ok(Err(NotFinite { what, name }));
        }
        total += squares;
    }
    Ok(Ok(total))
}

/// The sum of squares of every tensor. Those on other devices than the CPU are laid end to end: the first has the
/// sum of all, and the others 0, unless something is amiss, which is then looked for in each.
fn squares_of_all(tensors: &[Option<Tensor>]) -> Result<Vec<Option<f64>>> {
    let elsewhere = tensors.iter().flatten();
    let elsewhere = elsewhere.filter(|tensor| !in_memory(tensor));
    let elsewhere: Vec<Tensor> = elsewhere.cloned().collect();
    let mut elsewhere = squares_elsewhere(&elsewhere)?.into_iter();
    let squares = |tensor: &Option<Tensor>| match tensor {
        Some(tensor) if in_memory(tensor) => in_place::sum_of_squares(tensor).map(Some),
        Some(_) => Ok(elsewhere.next()),
        None => Ok(None),
    };
    tensors.iter().map(squares).collect()
}

fn squares_elsewhere(tensors: &[Tensor]) -> Result<Vec<f64>> {
    let Some(first) = tensors.first() else {
        return Ok(Vec::new());
    };
    let alike = |t: &Tensor| t.dtype() == first.dtype() && t.device().same_device(first.device());
    if let Some(each) = traced::squares(tensors)? {
        return Ok(each);
    }
    if tensors.iter().all(alike) {
        let mut total = Totals::default();
        for portion in portions(tensors) {
            total.add(&widened(&end_to_end(portion.iter())?)?.sqr()?)?;
        }
        let total: f64 = total.read()?.into_iter().sum();
        if Range::Squared.holds(total, first.dtype()) {
            let mut all = vec![0.0; tensors.len()];
            all[0] = total;
            return Ok(all);
        }
    }
    let mut each = Totals::default();
    for tensor in tensors {
        each.add(&widened(tensor)?.sqr()?)?;
    }
    each.read()
}
