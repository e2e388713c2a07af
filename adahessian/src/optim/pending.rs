//! The weighted mean of what micro-batches contribute to one step.

use crate::error::Result;
use crate::vars::{NamedVars, sum_f64};
use candle_core::Tensor;

/// Σ wᵢ xᵢ and Σ wᵢ, one entry for each variable; `None` where nothing has come yet.
#[derive(Clone, Debug)]
pub(crate) struct WeightedMean {
    sums: Vec<Option<Tensor>>,
    weight: f64,
}

impl WeightedMean {
    pub fn new(count: usize) -> Self {
        Self {
            sums: vec![None; count],
            weight: 0.0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.weight == 0.0
    }

    /// Adds one vector. Its tensors must be detached.
    pub fn add(&mut self, tensors: Vec<Option<Tensor>>, weight: f64) -> Result<()> {
        for (sum, tensor) in self.sums.iter_mut().zip(tensors) {
            let Some(tensor) = tensor else { continue };
            let part = match weight == 1.0 {
                true => tensor,
                false => (tensor * weight)?,
            };
            *sum = Some(match sum.take() {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        self.weight += weight;
        Ok(())
    }

    /// The mean; empties the sum.
    pub fn take(&mut self) -> Result<Vec<Option<Tensor>>> {
        let weight = std::mem::take(&mut self.weight);
        let count = self.sums.len();
        let sums = std::mem::replace(&mut self.sums, vec![None; count]);
        if weight == 1.0 {
            return Ok(sums);
        }
        let mean = |sum: Option<Tensor>| sum.map(|s| Ok((s / weight)?)).transpose();
        sums.into_iter().map(mean).collect()
    }
}

/// The sum of squares of all entries, or the name of the first variable where it is not finite.
pub(crate) fn sum_of_squares(
    vars: &NamedVars,
    tensors: &[Option<Tensor>],
) -> Result<std::result::Result<f64, String>> {
    let mut total = 0.0;
    for (name, tensor) in vars.names().zip(tensors) {
        let Some(tensor) = tensor else { continue };
        let squares = sum_f64(&tensor.sqr()?)?;
        if !squares.is_finite() {
            return Ok(Err(name.into()));
        }
        total += squares;
    }
    Ok(Ok(total))
}

/// Clips by value, then by the norm of the whole; returns the norm before any clipping.
pub(crate) fn clip(
    gradients: &mut [Option<Tensor>],
    norm: f64,
    clip_value: Option<f64>,
    clip_norm: Option<f64>,
) -> Result<()> {
    let mut norm = norm;
    if let Some(limit) = clip_value {
        let mut squares = 0.0;
        for gradient in gradients.iter_mut().flatten() {
            *gradient = gradient.clamp(-limit, limit)?;
            squares += sum_f64(&gradient.sqr()?)?;
        }
        norm = squares.sqrt();
    }
    if let Some(limit) = clip_norm.filter(|limit| norm > *limit) {
        for gradient in gradients.iter_mut().flatten() {
            *gradient = (&*gradient * (limit / norm))?;
        }
    }
    Ok(())
}

/// Counts steps that were skipped because something was not finite.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skips {
    pub in_a_row: u32,
    pub total: u64,
}

impl Skips {
    /// Notes a skip; an error once there are too many in a row.
    pub fn note(&mut self, what: &'static str, name: &str, step: u64, limit: u32) -> Result<()> {
        self.in_a_row += 1;
        self.total += 1;
        match self.in_a_row > limit {
            false => Ok(()),
            true => Err(crate::Error::NonFinite {
                what,
                name: name.into(),
                step,
                skipped: self.in_a_row,
            }),
        }
    }
}
