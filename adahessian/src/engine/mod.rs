//! Fused operations with exact first and second derivatives, under candle's own backward pass.
//!
//! # Why
//! candle differentiates twice when its graph is kept, but the graph of a gradient has thousands of
//! small nodes, and each of its edges keeps three buffers of the size of an activation alive. Here a
//! whole unit of a network (convolution, normalisation, addition, activation) is one operation that
//! knows its own derivatives, and candle's graph carries no data between the operations.
//!
//! # An operation
//! is one struct that implements [`Op`]: a name, the shape of its result, and its definition in
//! candle's own operations ([`Op::composed`]), which serves every device and is what everything faster
//! is tested against. For a [`Backend`] on which it has a [`Kernel`] it is one fused node instead.
//! [`call`] is the only place that chooses. Operations that are linear ([`LinearMap`]) or linear in each of
//! two inputs ([`Bilinear`]), work entry by entry ([`Entrywise`]) or are a mean over rows ([`RowLoss`]) need less.
//!
//! # Words
//! | word | what it is |
//! |---|---|
//! | handle | a tensor on its way through fused operations, [`Handle`] |
//! | operand | what an operation takes: a handle or a candle tensor, [`Operand`] |
//! | backend | a device and a number type, with the memory that numbers have there: [`Backend`], [`Cpu`], [`Tensors`] |
//! | slot | the place of a value in the passes: its gradient and its second-level cotangent |
//! | token | a candle tensor of one entry that stands for a value in candle's graph |
//! | first pass | the backward pass over a loss: runs `adjoint` |
//! | second pass | the backward pass over a function of gradients: runs `second_adjoint`, then `adjoint` again |
//! | cotangent | the derivative of the second pass's scalar with respect to a gradient of the first |
//! | deferred | what `second_adjoint` leaves for the `adjoint` of the same pass |
//! | sweep | one running backward pass; its number keeps two passes apart |
//! | segment | operations that follow on each other, which are one node of candle's graph |
//! | group | variables that entered together, for a segment |
//! | port | the way of the cotangents of a group's gradients into the slots |
//!
//! # How
//! * A value inside the engine is a handle: a slot and a place in a segment. candle sees the token of a segment
//!   only, from the time on when a value of it exits. Tokens give the order of the backward pass, nothing else.
//!   Several uses of one value add up in its slot, in place.
//! * [`Handle::enter`] lets any candle tensor in, a variable too; [`Handle::exit`] lets a value out.
//!   Both can happen anywhere, so these operations mix freely with candle's. What exits and enters again is the
//!   value that it was.
//! * A kernel has three methods, plain computations on buffers. `forward` makes the value F. `adjoint`
//!   turns the gradient of F into those of its inputs. `second_adjoint` differentiates the adjoint.
//! * First backward pass: candle calls `bwd` of a segment's token with the token of its gradient. Every operation that
//!   the pass has come to has its turn, the last one first, and runs `adjoint`. If the graph is kept, that gradient token
//!   is tracked, and the segment hands what it takes a token of a second kind, A, computed from its own token and its
//!   gradient's.
//! * Second backward pass: candle calls `bwd` of A, where the operations have their turns from the first one on and run
//!   `second_adjoint` on the cotangents that the gradients of the inputs got. Each gives the cotangent of its own gradient
//!   to the slot and leaves all that concerns the inputs' values with the operation. As A was computed from the segment's
//!   token, the segment's own `bwd` runs later, in which operations merge what was left with the cotangents of their
//!   values, and are done.
//! * Variables are where a pass of candle's own ends, so all of them are in its graph. A pass of this library begins at
//!   the *short* graph of a loss that came straight out of the engine: it ends before the variables, whose gradients
//!   are handed over.
//!
//! # What is refused
//! A third derivative; two backward passes over one graph at once; a backward pass over a graph on
//! which an earlier one failed half way (one of candle's own passes, in which an operation of candle's failed, is only
//! noticed where the same loss is tried again); a first pass after a variable that entered was changed.
//! A new forward pass is a new graph with nothing of that.

mod applied;
mod backend;
mod bilinear;
mod border;
mod call;
pub(crate) mod changes;
pub mod cpu;
mod entrance;
mod entrywise;
pub(crate) mod exits;
mod graph;
mod group;
mod handle;
mod linear_map;
mod node;
mod op;
mod row_loss;
mod segment;
mod slot;
pub(crate) mod sweep;
pub mod tensors;
#[cfg(test)]
mod tests;
pub(crate) mod token;
mod value;
pub(crate) mod variables;
pub(crate) mod vector;

pub use backend::Backend;
pub(crate) use bilinear::there;
pub use bilinear::{Bilinear, Pairs, bilinear};
pub use call::{Kernels, call};
pub use cpu::Cpu;
pub use entrywise::{Entrywise, entrywise};
pub use graph::{with_graph, without_graph};
pub use handle::{Handle, Operand};
pub use linear_map::{LinearMap, linear_map};
pub use op::{Gradients, Inputs, Kernel, Op, Point};
pub use row_loss::{RowLoss, row_loss};
pub use tensors::Tensors;
pub use value::{Array, Held, Output, Recompute};
