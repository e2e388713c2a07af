//! The gradient clipped.

use crate::error::Result;
use crate::numeric::Real;
use crate::numeric::in_place::{self, Clip};
use candle_core::Tensor;

/// What is done to every entry of the gradient before it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Clipping {
    /// The largest absolute value.
    pub limit: Option<f64>,
    /// A factor after that.
    pub scale: Option<f64>,
}

impl Clipping {
    /// For gradients with this norm: the largest value, then the largest norm of the whole.
    pub fn new(
        gradients: &[Option<Tensor>],
        norm: f64,
        limit: Option<f64>,
        largest_norm: Option<f64>,
    ) -> Result<Self> {
        let mut clipping = Self { limit, scale: None };
        let Some(largest) = largest_norm else {
            return Ok(clipping);
        };
        let mut norm = norm;
        if limit.is_some() {
            let mut squares = 0.0;
            for gradient in gradients.iter().flatten() {
                squares += in_place::sum_of_squares(&clipping.clip(gradient)?)?;
            }
            norm = squares.sqrt();
        }
        clipping.scale = (norm > largest).then(|| largest / norm);
        Ok(clipping)
    }

    /// The clipped gradient.
    pub fn clip(&self, gradient: &Tensor) -> Result<Tensor> {
        let limited = match self.limit {
            Some(limit) => gradient.clamp(-limit, limit)?,
            None => gradient.clone(),
        };
        Ok(match self.scale {
            Some(scale) => (limited * scale)?,
            None => limited,
        })
    }

    /// The same for one entry.
    pub fn of<T: Real>(&self) -> Clip<T> {
        Clip {
            limit: T::from_f64(self.limit.unwrap_or(f64::INFINITY)),
            scale: T::from_f64(self.scale.unwrap_or(1.0)),
        }
    }
}
