//! Arithmetic written down before it is done: symbols stand in place of numbers ([`Symbol`]), a tape has what was
//! done with them, and a device's kernel is made of the tape ([`assembly`]).
//!
//! An optimizer's rule is written down so for its step, and an operation's formula for its passes
//! ([`formula`](super::formula)).

#[cfg(any(test, feature = "cuda"))]
pub(crate) mod assembly;
// What rules alone ask for: they are written down for CUDA devices only, formulas for all.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod symbol;
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod tape;

pub(crate) use symbol::Symbol;
pub(crate) use tape::{Instruction, Recorder, Register, Tape, Test};
