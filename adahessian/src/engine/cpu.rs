//! The CPU as a backend, and the engine's types there. `T` is f32 or f64.

use super::backend::Backend;
use crate::error::{Error, Result};
use crate::numeric::{Buffer, Real, simd};
use crate::random::Stream;
use candle_core::{Storage, Tensor};
use parking_lot::{MappedRwLockReadGuard, RwLockReadGuard};
use std::marker::PhantomData;
use std::ops::Deref;

/// Numbers of one type in the CPU's memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu<T>(PhantomData<T>);

/// The values of an operation's inputs.
pub type Inputs<'a, T> = super::Inputs<'a, Cpu<T>>;
/// Gradients of an operation's inputs.
pub type Gradients<T> = super::Gradients<Cpu<T>>;
/// The values at which an operation is differentiated.
pub type Point<'a, T, S> = super::Point<'a, Cpu<T>, S>;
/// What an operation computes.
pub type Output<T> = super::Output<Cpu<T>>;
/// Numbers that are read in several places.
pub type Array<T> = super::Array<Cpu<T>>;
/// Numbers at hand, and what to keep of them.
pub type Held<T> = super::Held<Cpu<T>>;

/// Access to numbers in the CPU's memory.
pub enum View<'a, T: Real> {
    /// Those of a buffer.
    Slice(&'a [T]),
    /// Those of a tensor, which nobody can write to meanwhile.
    Locked(MappedRwLockReadGuard<'a, [T]>),
    /// Numbers that were computed again.
    Owned(Buffer<T>),
}

impl<T: Real> Deref for View<'_, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            View::Slice(numbers) => numbers,
            View::Locked(numbers) => numbers,
            View::Owned(numbers) => numbers,
        }
    }
}

fn refused<T: Real>(x: &Tensor) -> Error {
    Error::Setting {
        what: "operand of a fused operation",
        expected: format!(
            "{:?} on the CPU like the first one (`to_dtype` and `to_device` convert)",
            T::DTYPE
        ),
        got: format!("{:?} on {:?}", x.dtype(), x.device().location()),
    }
}

impl<T: Real> Backend for Cpu<T> {
    type Numbers = [T];
    type Buffer = Buffer<T>;
    type View<'a> = View<'a, T>;

    fn expect(x: &Tensor) -> Result<()> {
        match x.dtype() == T::DTYPE && x.device().is_cpu() {
            true => Ok(()),
            false => Err(refused::<T>(x)),
        }
    }

    fn length(numbers: &[T]) -> usize {
        numbers.len()
    }

    fn view(buffer: &Buffer<T>) -> View<'_, T> {
        View::Slice(buffer)
    }

    fn owned<'a>(buffer: Buffer<T>) -> View<'a, T> {
        View::Owned(buffer)
    }

    fn view_tensor(x: &Tensor) -> Result<View<'_, T>> {
        let (guard, layout) = x.storage_and_layout();
        let range = layout.start_offset()..layout.start_offset() + layout.shape().elem_count();
        let numbers = RwLockReadGuard::try_map(guard, |storage| match storage {
            Storage::Cpu(storage) => T::slice(storage).and_then(|all| all.get(range)),
            _ => None,
        });
        numbers.map(View::Locked).map_err(|_| refused::<T>(x))
    }

    fn copy(x: &Tensor) -> Result<Buffer<T>> {
        let x = x.contiguous()?;
        Ok(Buffer::copy_of(&Self::view_tensor(&x)?))
    }

    fn zeros(like: &Tensor) -> Result<Buffer<T>> {
        Ok(Buffer::zeroed(like.elem_count()))
    }

    fn add_assign(to: &mut Buffer<T>, part: &Buffer<T>) -> Result<()> {
        simd::add_assign(to, part);
        Ok(())
    }

    fn signs(stream: &Stream, count: usize) -> Option<Buffer<T>> {
        let mut signs = Buffer::scratch(count);
        stream.with_signs(&mut signs, |to, sign| *to = sign);
        Some(signs)
    }

    fn storage(numbers: &[T]) -> Result<Storage> {
        Ok(Storage::Cpu(T::storage(numbers.to_vec())))
    }

    fn into_storage(buffer: Buffer<T>) -> Result<Storage> {
        Ok(Storage::Cpu(T::storage(buffer.into_vec())))
    }
}

impl<T: Real> From<Buffer<T>> for Output<T> {
    fn from(numbers: Buffer<T>) -> Self {
        Self {
            numbers,
            recompute: None,
        }
    }
}
