//! Candle tensors without a graph as a backend: the fused operations on a GPU.
//!
//! Kernels here are written in candle's products and in formulas, each of which is one kernel on a CUDA device
//! (`numeric/formula`), and as the derivatives themselves: no graph of small operations is built, kept and
//! walked through twice. candle's backward
//! pass makes zeros for every gradient and adds to them, which is half of all that a composed step asks
//! of a GPU; a step is bound by how much is asked of it, not by the numbers. Any device will do, so the
//! kernels are tested on the CPU.

use super::backend::Backend;
use crate::error::{Error, Result};
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{DType, Layout, Storage, Tensor};
use std::ops::{Deref, DerefMut};

/// Numbers as candle tensors, in f32 or f64, on any device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tensors;

/// The values of an operation's inputs.
pub type Inputs<'a> = super::Inputs<'a, Tensors>;
/// Gradients of an operation's inputs.
pub type Gradients = super::Gradients<Tensors>;
/// The values at which an operation is differentiated.
pub type Point<'a, S> = super::Point<'a, Tensors, S>;
/// What an operation computes.
pub type Output = super::Output<Tensors>;
/// Numbers that are read in several places.
pub type Array = super::Array<Tensors>;
/// Numbers at hand, and what to keep of them.
pub type Held = super::Held<Tensors>;

/// A tensor without a graph, which nobody writes to.
#[derive(Clone, Debug)]
pub struct Plain(Tensor);

impl Plain {
    /// Of a tensor, without its graph.
    pub fn of(x: &Tensor) -> Self {
        Self(x.detach())
    }

    /// The tensor.
    pub fn into_tensor(self) -> Tensor {
        self.0
    }
}

impl From<Tensor> for Plain {
    fn from(x: Tensor) -> Self {
        Self::of(&x)
    }
}

impl Deref for Plain {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.0
    }
}

impl DerefMut for Plain {
    fn deref_mut(&mut self) -> &mut Tensor {
        &mut self.0
    }
}

impl From<Tensor> for Output {
    fn from(numbers: Tensor) -> Self {
        Self {
            numbers: numbers.into(),
            recompute: None,
        }
    }
}

impl Backend for Tensors {
    type Numbers = Tensor;
    type Buffer = Plain;
    type View<'a> = Plain;

    fn expect(x: &Tensor) -> Result<()> {
        match x.dtype() {
            DType::F32 | DType::F64 => Ok(()),
            got => Err(Error::Setting {
                what: "operand of a fused operation",
                expected: "F32 or F64 like the first one (`to_dtype` converts)".into(),
                got: format!("{got:?}"),
            }),
        }
    }

    fn length(numbers: &Tensor) -> usize {
        numbers.elem_count()
    }

    fn view(buffer: &Plain) -> Plain {
        buffer.clone()
    }

    fn owned<'a>(buffer: Plain) -> Self::View<'a> {
        buffer
    }

    fn view_tensor(x: &Tensor) -> Result<Plain> {
        Self::expect(x)?;
        Ok(Plain::of(x))
    }

    /// No copy: nobody writes to a gradient.
    fn copy(x: &Tensor) -> Result<Plain> {
        Self::view_tensor(&x.contiguous()?)
    }

    fn zeros(like: &Tensor) -> Result<Plain> {
        Ok(like.detach().zeros_like()?.into())
    }

    fn add_assign(to: &mut Plain, part: &Plain) -> Result<()> {
        to.0 = (&to.0 + &part.0)?;
        Ok(())
    }

    fn shaped(numbers: Plain, shape: &[usize]) -> Result<Plain> {
        match numbers.dims() == shape {
            true => Ok(numbers),
            false => Ok(numbers.0.reshape(shape)?.into()),
        }
    }

    fn storage(numbers: &Tensor) -> Result<Storage> {
        let (storage, layout) = numbers.storage_and_layout();
        Ok(match &*storage {
            Storage::Cpu(storage) => Storage::Cpu(copied(storage, layout)?),
            Storage::Cuda(storage) => Storage::Cuda(copied(storage, layout)?),
            Storage::Metal(storage) => Storage::Metal(copied(storage, layout)?),
        })
    }

    fn into_storage(buffer: Plain) -> Result<Storage> {
        Self::storage(&buffer)
    }

    fn constant(numbers: &Tensor, shape: &[usize]) -> Result<Tensor> {
        Ok(numbers.detach().reshape(shape)?)
    }

    fn into_constant(buffer: Plain, shape: &[usize]) -> Result<Tensor> {
        Self::constant(&buffer, shape)
    }
}

/// A copy of the numbers of this layout, contiguous and without others beside them.
fn copied<D, S>(storage: &S, layout: &Layout) -> candle_core::Result<S>
where
    D: BackendDevice<Storage = S>,
    S: BackendStorage<Device = D>,
{
    let (device, dtype) = (storage.device(), storage.dtype());
    // SAFETY: every number is written to by the copy that follows, as many as the layout has.
    let mut to = unsafe { device.alloc_uninit(layout.shape(), dtype)? };
    storage.copy_strided_src(&mut to, 0, layout)?;
    Ok(to)
}

/// The sum of what there is.
pub(crate) fn plus(a: Option<Tensor>, b: Option<Tensor>) -> Result<Option<Tensor>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some((a + b)?),
        (a, b) => a.or(b),
    })
}

/// The numbers of a cotangent.
pub(crate) fn numbers(cotangent: Option<&Option<Held>>) -> Result<Option<Tensor>> {
    let held = cotangent.and_then(Option::as_ref);
    Ok(held.map(Held::view).transpose()?.map(Plain::into_tensor))
}
