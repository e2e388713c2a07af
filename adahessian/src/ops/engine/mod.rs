//! Fused operations with exact first and second derivatives, under candle's own backward pass.
//!
//! # Why
//! candle differentiates twice when its graph is kept, but the graph of a gradient has thousands of
//! small nodes, and each of its edges keeps three buffers of the size of an activation alive. Here a
//! whole unit of a network (convolution, normalisation, addition, activation) is one operation that
//! knows its own derivatives, and candle's graph carries no data between the operations.
//!
//! # How
//! * A value inside the engine is a [`Handle`]: a *slot* with the data, the gradient and the
//!   second-level cotangent, and a *token*, a candle tensor of one element. candle sees tokens only.
//!   They give the order of the backward pass, nothing else. Several uses of one value add up in its
//!   slot, in place.
//! * [`Handle::enter`] lets any candle tensor in, a variable too; [`Handle::exit`] lets a value out.
//!   Both can happen anywhere, so these operations mix freely with candle's.
//! * An operation has three methods, plain computations on buffers (`Op`). `forward` makes
//!   the value F. `adjoint` turns the gradient of F into those of its inputs. `second_adjoint`
//!   differentiates the adjoint.
//! * First backward pass: candle calls `bwd` of an operation's token with the token of its gradient.
//!   If the graph is kept, that gradient token is tracked, and the operation hands its inputs a
//!   token of a second kind, A, computed from its own token and its gradient's.
//! * Second backward pass: candle calls `bwd` of A, which runs `second_adjoint` on the cotangents
//!   that the gradients of the inputs got. It gives the cotangent of its own gradient to the slot and
//!   leaves all that concerns the inputs' values with the operation. As A was computed from the
//!   operation's token, the operation's own `bwd` runs later, merges what was left with the
//!   cotangent of its value, and is done.
//!
//! # What is refused
//! A third derivative; two backward passes over one graph at once; a backward pass over a graph on
//! which an earlier one failed half way. A new forward pass is a new graph with nothing of that.

mod array;
mod buffer;
mod handle;
mod node;
pub(crate) mod op;
mod real;
mod slot;
pub(crate) mod sweep;
pub(crate) mod variables;

pub(crate) use array::{Array, Held, Made, Source, View};
pub(crate) use buffer::Buffer;
pub use handle::Handle;
pub(crate) use handle::{Fused, Inner};
pub(crate) use node::apply;
pub(crate) use op::{Gradients, Inputs, Op, Point};
pub(crate) use real::Real;
