//! Dropout with masks that are pure functions of (seed, step, micro-batch, name).

mod mask;
mod residual;

pub(crate) use mask::{Drawn, Mask};
pub use residual::residual;

use crate::engine::{Handle, LinearMap, Operand, linear_map};
use crate::error::Result;
use crate::numeric::{Buffer, Real};
use candle_core::Tensor;

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
}

/// x ⊙ m / (1 - p), where each entry of m is 0 with probability p and 1 otherwise, so that the
/// expectation is x. The identity for p = 0 and in [`Mode::Eval`]. Same shape as `x`.
///
/// The mask is a constant, a function of the stream `dropout/NAME`, the same on every device: candle's own dropout
/// draws from a global generator that cannot be seeded on the CPU.
///
/// # Errors
/// [`crate::Error::Setting`] for p outside [0, 1); candle's errors.
pub fn dropout<X: Operand + Clone>(x: &X, dropout: &Dropout) -> Result<X> {
    match Mask::of(dropout)? {
        Some(mask) => X::of(on(x, mask)?),
        None => Ok(x.clone()),
    }
}

fn on(x: &dyn Operand, mask: Mask) -> Result<Handle> {
    linear_map(Dropped(mask), &[x])
}

struct Dropped(Mask);

impl LinearMap for Dropped {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.0.composed(&inputs[0])
    }

    fn apply<T: Real>(&self, inputs: &[Option<&[T]>]) -> Buffer<T> {
        let x = inputs[0].unwrap_or(&[]); // there is one input, so there it is
        self.0.drawn(x.len()).of(x)
    }

    fn transposed<T: Real>(&self, g: &[T], _: usize, _: usize) -> Buffer<T> {
        self.0.drawn(g.len()).of(g)
    }

    const OF_TENSORS: bool = true;

    fn transposed_tensor(&self, g: &Tensor, _: usize, _: &[usize]) -> Result<Tensor> {
        self.0.composed(g)
    }
}
