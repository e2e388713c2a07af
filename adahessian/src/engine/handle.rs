//! What flows between the operations, and how tensors get in and out.

use super::border::{Enter, Exit, Once};
use super::changes;
use super::entrance::{Entrance, Place};
use super::exits::{self, Exited, Key};
use super::graph;
use super::segment;
use super::slot::Slot;
use super::sweep;
use super::token;
use super::{Backend, Cpu, Held, Tensors};
use crate::error::Result;
use candle_core::{DType, Device, Tensor};
use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// A tensor on its way through fused operations.
///
/// Made from a candle tensor by [`Handle::enter`], turned back by [`Handle::exit`]. Gradients flow
/// through both, at both levels.
#[derive(Clone)]
pub struct Handle(Inner);

#[derive(Clone)]
pub(super) enum Inner {
    Composed(Tensor),
    F32(Fused<Cpu<f32>>),
    F64(Fused<Cpu<f64>>),
    /// With their type.
    Tensors(Fused<Tensors>, DType),
}

/// Where the numbers of an operand live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anywhere: operations are composed of candle's.
    Composed,
    /// On the CPU.
    F32,
    F64,
    /// On another device, in either type.
    Tensors,
}

impl Kind {
    fn of(x: &Tensor) -> Self {
        if x.elem_count() == 0 {
            return Kind::Composed;
        }
        match (x.dtype(), x.device()) {
            (DType::F32, Device::Cpu) => Kind::F32,
            (DType::F64, Device::Cpu) => Kind::F64,
            (DType::F32 | DType::F64, Device::Cuda(_)) => Kind::Tensors,
            _ => Kind::Composed,
        }
    }
}

/// A value of the engine and its place in candle's graph.
pub(super) struct Fused<B: Backend> {
    pub place: Place<B>,
    pub slot: Arc<Slot<B>>,
    pub value: Held<B>,
}

impl<B: Backend> Clone for Fused<B> {
    fn clone(&self) -> Self {
        Self {
            place: self.place.clone(),
            slot: Arc::clone(&self.slot),
            value: self.value.clone(),
        }
    }
}

/// What an operation takes and gives: a candle [`Tensor`] or a [`Handle`].
///
/// A function that is generic over its operand gives what it takes: handles between fused operations,
/// which saves a copy at each, tensors where one is used alone.
pub trait Operand: sealed::Operand {
    /// Its shape.
    fn dims(&self) -> &[usize];

    /// Its number type.
    fn dtype(&self) -> DType;

    /// The device that its numbers are on.
    fn device(&self) -> &Device;

    /// Whether a variable goes into it, so that it is differentiated.
    fn is_tracked(&self) -> bool;

    /// As a candle tensor.
    ///
    /// # Errors
    /// If candle fails.
    fn tensor(&self) -> Result<Tensor>;

    /// As a handle; a tensor enters.
    ///
    /// # Errors
    /// As [`Handle::enter`].
    fn handle(&self) -> Result<Handle>;

    /// From a handle; a tensor exits.
    ///
    /// # Errors
    /// As [`Handle::exit`].
    fn of(handle: Handle) -> Result<Self>
    where
        Self: Sized;
}

pub(super) mod sealed {
    /// What only the engine looks at.
    pub trait Operand {
        fn kind(&self) -> super::Kind;
        fn as_handle(&self) -> Option<&super::Handle>;
    }
}

impl sealed::Operand for Tensor {
    fn kind(&self) -> Kind {
        Kind::of(self)
    }
    fn as_handle(&self) -> Option<&Handle> {
        None
    }
}

impl Operand for Tensor {
    fn dims(&self) -> &[usize] {
        self.dims()
    }
    fn dtype(&self) -> DType {
        self.dtype()
    }
    fn device(&self) -> &Device {
        self.device()
    }
    fn is_tracked(&self) -> bool {
        self.track_op()
    }
    fn tensor(&self) -> Result<Tensor> {
        Ok(self.clone())
    }
    fn handle(&self) -> Result<Handle> {
        Handle::enter(self)
    }
    fn of(handle: Handle) -> Result<Self> {
        handle.exit()
    }
}

impl sealed::Operand for Handle {
    fn kind(&self) -> Kind {
        match self.0 {
            Inner::Composed(_) => Kind::Composed,
            Inner::F32(_) => Kind::F32,
            Inner::F64(_) => Kind::F64,
            Inner::Tensors(..) => Kind::Tensors,
        }
    }
    fn as_handle(&self) -> Option<&Handle> {
        Some(self)
    }
}

impl Operand for Handle {
    fn dims(&self) -> &[usize] {
        self.dims()
    }
    fn dtype(&self) -> DType {
        match &self.0 {
            Inner::Composed(x) => x.dtype(),
            Inner::F32(_) => DType::F32,
            Inner::F64(_) => DType::F64,
            Inner::Tensors(_, dtype) => *dtype,
        }
    }
    fn device(&self) -> &Device {
        match &self.0 {
            Inner::Composed(x) => x.device(),
            Inner::F32(_) | Inner::F64(_) => &Device::Cpu,
            Inner::Tensors(x, _) => x.place.device(),
        }
    }
    fn is_tracked(&self) -> bool {
        match &self.0 {
            Inner::Composed(x) => x.track_op(),
            Inner::F32(x) => x.slot.tracked,
            Inner::F64(x) => x.slot.tracked,
            Inner::Tensors(x, _) => x.slot.tracked,
        }
    }
    fn tensor(&self) -> Result<Tensor> {
        self.exit()
    }
    fn handle(&self) -> Result<Handle> {
        Ok(self.clone())
    }
    fn of(handle: Handle) -> Result<Self> {
        Ok(handle)
    }
}

impl Handle {
    /// Lets a candle tensor in. On the CPU and with CUDA, in f32 and f64, operations on the handle are fused,
    /// and have a first and a second derivative; a third is refused. Elsewhere, and for a tensor without
    /// entries, they are composed of candle's, as with [`Handle::composed`], and have as many as candle's have.
    ///
    /// # Errors
    /// If candle fails.
    pub fn enter(x: &Tensor) -> Result<Self> {
        Ok(Self(match Kind::of(x) {
            Kind::F32 => Inner::F32(Fused::enter(x)?),
            Kind::F64 => Inner::F64(Fused::enter(x)?),
            Kind::Tensors => Inner::Tensors(Fused::enter(x)?, x.dtype()),
            Kind::Composed => Inner::Composed(x.clone()),
        }))
    }

    /// A handle on which operations are fused as on a GPU, of candle's operations on tensors without a graph,
    /// wherever the tensor is: what runs on a GPU can be tested without one.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a tensor that is neither f32 nor f64, or has no entries.
    pub fn of_tensors(x: &Tensor) -> Result<Self> {
        Ok(Inner::Tensors(Fused::enter(x)?, x.dtype()).into())
    }

    /// A handle on which every operation is composed of candle's own: slower, on any device, and
    /// differentiable any number of times. The fused operations are tested against it.
    pub fn composed(x: &Tensor) -> Self {
        Self(Inner::Composed(x.clone()))
    }

    /// The value as a candle tensor of the same shape.
    ///
    /// # Errors
    /// If candle fails.
    pub fn exit(&self) -> Result<Tensor> {
        match &self.0 {
            Inner::Composed(x) => Ok(x.clone()),
            Inner::F32(x) => x.exit(),
            Inner::F64(x) => x.exit(),
            Inner::Tensors(x, _) => x.exit(),
        }
    }

    /// The value's shape.
    pub fn dims(&self) -> &[usize] {
        match &self.0 {
            Inner::Composed(x) => x.dims(),
            Inner::F32(x) => &x.slot.shape,
            Inner::F64(x) => &x.slot.shape,
            Inner::Tensors(x, _) => &x.slot.shape,
        }
    }

    fn any(&self) -> &dyn Any {
        match &self.0 {
            Inner::Composed(x) => x,
            Inner::F32(x) => x,
            Inner::F64(x) => x,
            Inner::Tensors(x, _) => x,
        }
    }
}

impl From<Inner> for Handle {
    fn from(inner: Inner) -> Self {
        Self(inner)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Inner::Composed(_) => "composed",
            Inner::F32(_) => "fused, f32",
            Inner::F64(_) => "fused, f64",
            Inner::Tensors(..) => "fused, of tensors",
        };
        write!(f, "Handle({:?}, {kind})", self.dims())
    }
}

impl<B: Backend> Fused<B> {
    /// As it is where it is of this backend, else through a candle tensor.
    pub fn of(x: &dyn Operand) -> Result<Self> {
        let fused = x.as_handle().and_then(|x| x.any().downcast_ref::<Self>());
        match fused {
            Some(fused) => Ok(fused.clone()),
            None => Self::enter(&x.tensor()?),
        }
    }

    /// For a tensor of this backend.
    pub fn enter(x: &Tensor) -> Result<Self> {
        B::expect(x)?;
        if x.elem_count() == 0 {
            return Err(crate::Error::Setting {
                what: "operand of a fused operation",
                expected: "at least one entry".into(),
                got: "none".into(),
            });
        }
        let x = x.contiguous()?;
        let read = changes::now();
        let value = Held::of_tensor(&x)?;
        let tracked = graph::is_kept() && x.track_op();
        if let (true, Some((slot, place))) = (tracked, exits::value(&x)) {
            return Ok(Self { place, slot, value });
        }
        let slot = Arc::new(Slot::new(x.dims(), tracked));
        let place = match (x.is_variable(), tracked) {
            (_, false) => token::zero(x.device())?.into(),
            (true, true) => Place::Variable(Arc::new(Entrance {
                variable: x,
                slot: Arc::clone(&slot),
                made: sweep::tick(),
                read,
                tokens: OnceLock::new(),
            })),
            (false, true) => x.apply_op1(Enter(Arc::clone(&slot)))?.into(),
        };
        Ok(Self { place, slot, value })
    }

    pub fn exit(&self) -> Result<Tensor> {
        let slot = Arc::clone(&self.slot);
        let numbers = self.value.view()?;
        if !slot.tracked {
            // An untracked token would be fine, too, but a constant needs no graph.
            return B::constant(&numbers, &slot.shape);
        }
        slot.add_consumer("exit");
        let key = Key::default();
        let exit = Exit {
            slot: Arc::clone(&slot),
            numbers: Once::new(B::storage(&numbers)?),
            _key: key.clone(),
        };
        let value = segment::tokens_of(&self.place)?.whole.apply_op1(exit)?;
        let place = self.place.clone();
        key.keep(&value, Exited { slot, place });
        Ok(value)
    }
}
