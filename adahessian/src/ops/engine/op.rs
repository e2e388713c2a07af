//! What an operation of the engine is.

use super::array::View;
use super::{Array, Buffer, Held, Made, Real};

/// The values of an operation's inputs, in order.
pub(crate) type Inputs<'a, T> = [View<'a, T>];

/// Gradients of an operation's inputs, in order; `None` where none is wanted, or it is zero.
pub(crate) type Gradients<T> = Vec<Option<Buffer<T>>>;

/// The values at which an operation is differentiated.
pub(crate) struct Point<'a, T: Real, S> {
    /// There if the operation reads them.
    pub inputs: &'a Inputs<'a, T>,
    /// The inputs' lengths.
    pub lengths: &'a [usize],
    /// There if the operation reads it.
    pub output: View<'a, T>,
    pub saved: &'a S,
}

/// An operation y = F(x₁, x₂, …) with its derivatives, each a plain computation on buffers.
///
/// With g the gradient of y, its adjoint is A(x, g) = (∂F/∂x)ᵀ g. For cotangents v of A's results,
/// φ = Σ ⟨v, A(x, g)⟩ is differentiated once more: ∂φ/∂g by `second_adjoint`, ∂φ/∂x by the `adjoint`
/// that comes after, together with the cotangent ȳ of y.
pub(crate) trait Op<T: Real>: Send + Sync + 'static {
    /// What the forward pass leaves for both backward passes.
    type Saved: Send + Sync + 'static;
    /// What the first pass's `adjoint` leaves for `second_adjoint`.
    type Kept: Send + Sync + 'static;
    /// What `second_adjoint` leaves for the second pass's `adjoint`.
    type Deferred: Send + 'static;

    fn name(&self) -> &'static str;

    /// Whether the backward passes read the value of input number `input`. What no operation reads is
    /// not kept for them.
    fn reads(&self, _input: usize) -> bool {
        true
    }

    /// Whether the backward passes read the operation's own value.
    fn reads_value(&self) -> bool {
        false
    }

    /// F. `keep` tells whether it will be differentiated.
    fn forward(&self, inputs: &Inputs<T>, keep: bool) -> (Made<T>, Self::Saved);

    /// (∂F/∂x)ᵀ g + ∂φ/∂x for the inputs that `wanted` marks. Either part may be absent. `onto` holds
    /// the gradients that the inputs have from other operations; one that is taken out must have been
    /// added to the result, which saves a pass over it.
    fn adjoint(
        &self,
        point: &Point<T, Self::Saved>,
        gradient: Option<&[T]>,
        deferred: Option<Self::Deferred>,
        wanted: &[bool],
        onto: &mut Gradients<T>,
    ) -> (Gradients<T>, Self::Kept);

    /// ∂φ/∂g for the gradient g of the first pass and the cotangents of the inputs' gradients
    /// (`None` is zero), and what ∂φ/∂x needs of it.
    fn second_adjoint(
        &self,
        point: &Point<T, Self::Saved>,
        gradient: &Array<T>,
        kept: &Self::Kept,
        cotangents: &[Option<Held<T>>],
    ) -> (Made<T>, Self::Deferred);
}
