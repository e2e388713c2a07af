//! Where numbers live.

use crate::error::Result;
use crate::random::Stream;
use candle_core::op::BackpropOp;
use candle_core::{Storage, Tensor};
use std::ops::{Deref, DerefMut};

/// A device and a number type, with the memory that numbers have there. The passes know no more of
/// numbers than this, so that kernels for another device can be added operation by operation.
pub trait Backend: Sized + Send + Sync + 'static {
    /// Numbers that kernels read and write: `[f32]`, say.
    type Numbers: ?Sized;
    /// Memory of one's own.
    type Buffer: DerefMut<Target = Self::Numbers> + Send + Sync + 'static;
    /// Access to numbers of somebody else.
    type View<'a>: Deref<Target = Self::Numbers>;

    /// Whether this backend can work on a tensor's numbers.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for one of another type or on another device.
    fn expect(x: &Tensor) -> Result<()>;

    /// How many there are.
    fn length(numbers: &Self::Numbers) -> usize;

    /// Access to a buffer.
    fn view(buffer: &Self::Buffer) -> Self::View<'_>;

    /// A buffer as its own view.
    fn owned<'a>(buffer: Self::Buffer) -> Self::View<'a>;

    /// Access to a contiguous tensor.
    ///
    /// # Errors
    /// Those of [`Backend::expect`].
    fn view_tensor(x: &Tensor) -> Result<Self::View<'_>>;

    /// A copy of a tensor's numbers.
    ///
    /// # Errors
    /// Those of [`Backend::expect`]; candle's errors.
    fn copy(x: &Tensor) -> Result<Self::Buffer>;

    /// Zeros, as many as this tensor has numbers, where it lives.
    ///
    /// # Errors
    /// If there is no memory.
    fn zeros(like: &Tensor) -> Result<Self::Buffer>;

    /// to ← to + part.
    ///
    /// # Errors
    /// If the device fails.
    fn add_assign(to: &mut Self::Buffer, part: &Self::Buffer) -> Result<()>;

    /// The signs of [`Stream::rademacher`] in a buffer, where they are not sent there from a tensor.
    fn signs(_stream: &Stream, _count: usize) -> Option<Self::Buffer> {
        None
    }

    /// The same numbers as those of a value of this shape. Nothing to do where a buffer has none.
    ///
    /// # Errors
    /// If the device fails.
    fn shaped(numbers: Self::Buffer, _shape: &[usize]) -> Result<Self::Buffer> {
        Ok(numbers)
    }

    /// A candle storage with a copy of these numbers.
    ///
    /// # Errors
    /// If the device fails.
    fn storage(numbers: &Self::Numbers) -> Result<Storage>;

    /// A buffer as a candle storage.
    ///
    /// # Errors
    /// If the device fails.
    fn into_storage(buffer: Self::Buffer) -> Result<Storage>;

    /// These numbers as a candle tensor without a graph.
    ///
    /// # Errors
    /// If the device fails.
    fn constant(numbers: &Self::Numbers, shape: &[usize]) -> Result<Tensor> {
        constant(Self::storage(numbers)?, shape)
    }

    /// A buffer as a candle tensor without a graph.
    ///
    /// # Errors
    /// If the device fails.
    fn into_constant(buffer: Self::Buffer, shape: &[usize]) -> Result<Tensor> {
        constant(Self::into_storage(buffer)?, shape)
    }
}

/// Numbers as a tensor without a graph.
fn constant(numbers: Storage, shape: &[usize]) -> Result<Tensor> {
    let no_graph = BackpropOp::none();
    Ok(Tensor::from_storage(numbers, shape, no_graph, false))
}
