//! Dropout with masks that are pure functions of (seed, step, micro-batch, name).

use super::wrong;
use crate::error::Result;
use crate::random::Stream;
use candle_core::{Device, Tensor};

/// Whether a model is being evaluated or trained, and if trained, which masks its dropout draws.
///
/// The masks of a step can be made again at any time, on any device, which a resumed run and a
/// check of derivatives need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// No dropout.
    #[default]
    Eval,
    /// Dropout with the masks of this step.
    Train {
        /// The run's seed.
        seed: u64,
        /// The optimizer's step.
        step: u64,
        /// The number of the batch within the step, where gradients are accumulated over several,
        /// or of the process.
        micro: u32,
    },
}

/// One place in a model where dropout happens.
#[derive(Clone, Copy, Debug)]
pub struct Dropout<'a> {
    /// The probability p with which an entry is dropped, in [0, 1).
    pub probability: f64,
    /// The name of the place. Two places of one model must not share a name, or they share a mask.
    pub name: &'a str,
    /// Evaluation or training.
    pub mode: Mode,
}

impl<'a> Dropout<'a> {
    /// Dropout with this probability at the place of this name.
    pub fn new(probability: f64, name: &'a str, mode: &Mode) -> Self {
        Self {
            probability,
            name,
            mode: *mode,
        }
    }

    /// No dropout.
    pub fn none() -> Self {
        Self::new(0.0, "", &Mode::Eval)
    }

    /// See [`dropout`].
    ///
    /// # Errors
    /// As [`dropout`].
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        dropout(x, self.probability, self.name, &self.mode)
    }
}

/// x ⊙ m / (1 - p), where each entry of m is 0 with probability p and 1 otherwise, so that the
/// expectation is x. The identity for p = 0 and in [`Mode::Eval`]. Same shape as `x`.
///
/// The mask is a constant, drawn on the CPU from the stream `dropout/NAME`: candle's own dropout
/// draws from a global generator that cannot be seeded on the CPU.
///
/// # Errors
/// [`crate::Error::Setting`] for p outside [0, 1).
pub fn dropout(x: &Tensor, p: f64, name: &str, mode: &Mode) -> Result<Tensor> {
    check_probability(p)?;
    match *mode {
        Mode::Train { seed, step, micro } if p > 0.0 => {
            let stream = Stream::new(seed, &format!("dropout/{name}"), step, micro);
            let kept = stream.bernoulli(x.elem_count(), 1.0 - p);
            let mask = Tensor::from_vec(kept, x.shape(), &Device::Cpu)?.to_dtype(x.dtype())?;
            let mask = (mask.to_device(x.device())? * (1.0 / (1.0 - p)))?;
            Ok((x * mask)?)
        }
        _ => Ok(x.clone()),
    }
}

pub(super) fn check_probability(p: f64) -> Result<()> {
    match (0.0..1.0).contains(&p) {
        true => Ok(()),
        false => wrong(
            "dropout probability",
            "at least 0 and below 1",
            p.to_string(),
        ),
    }
}
