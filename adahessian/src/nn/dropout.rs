//! Dropout (Srivastava et al. 2014), after `candle_nn::Dropout`.

use super::{masks, wrong};
use crate::ops::{self, Mode};
use candle_core::{Result, Tensor};

/// In training x ⊙ m/(1 - p), where each entry of m is 0 with probability p and 1 otherwise; else x.
///
/// Masks are functions of seed, step and place, so training passes run inside
/// [`with_masks`](super::with_masks). Outside of it a mask would have to come from a generator whose
/// state is nowhere said, as candle's does: two passes of one step would then differentiate two different
/// losses, and nothing would say so. Hence the error.
#[derive(Clone, Debug)]
pub struct Dropout {
    drop_p: f32,
    name: Option<String>,
}

impl Dropout {
    /// With the probability p in [0, 1). Its masks go by its number among the pass's dropouts.
    pub fn new(drop_p: f32) -> Self {
        Self { drop_p, name: None }
    }

    /// With a name, unique within the model, by which its masks go.
    pub fn named(drop_p: f32, name: impl Into<String>) -> Self {
        Self {
            drop_p,
            name: Some(name.into()),
        }
    }

    /// x with dropout if `train`, and x if not.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for p outside [0, 1), and in training outside of
    /// [`with_masks`](super::with_masks), unless p is 0.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match train {
            true => drop(x, self.drop_p, self.name.as_deref()),
            false => Ok(x.clone()),
        }
    }
}

impl candle_core::ModuleT for Dropout {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.forward(x, train)
    }
}

/// Dropout of a training pass, at this place.
pub(super) fn drop(x: &Tensor, p: f32, name: Option<&str>) -> Result<Tensor> {
    let (mode, place) = place(p, name)?;
    Ok(crate::ops::dropout(
        x,
        &ops::Dropout::new(f64::from(p), &place, &mode),
    )?)
}

/// The mode and the place of a training pass's next mask.
pub(super) fn place(p: f32, name: Option<&str>) -> Result<(Mode, String)> {
    if !(0.0..1.0).contains(&p) {
        return wrong("dropout probability", "at least 0 and below 1", p);
    }
    match masks::next(name) {
        Some(place) => Ok(place),
        None if p == 0.0 => Ok((Mode::Eval, String::new())),
        None => wrong(
            "dropout in training",
            "a pass inside nn::with_masks(Mode::Train { seed, step, micro }, || ..), which says what the masks are",
            "a pass outside of it",
        ),
    }
}
