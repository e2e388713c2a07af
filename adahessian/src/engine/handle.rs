//! What flows between the operations, and how tensors get in and out.

use super::node::{token_storage, zero_token};
use super::slot::Slot;
use super::sweep;
use super::variables::{self, Collected};
use super::{Backend, Cpu, Held};
use crate::error::Result;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Shape, Storage, Tensor,
};
use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex};

type CandleResult<T> = candle_core::Result<T>;

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
}

/// Where the numbers of an operand live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anywhere: operations are composed of candle's.
    Composed,
    F32,
    F64,
}

impl Kind {
    fn of(x: &Tensor) -> Self {
        match (x.device().is_cpu() && x.elem_count() > 0, x.dtype()) {
            (true, DType::F32) => Kind::F32,
            (true, DType::F64) => Kind::F64,
            _ => Kind::Composed,
        }
    }
}

/// A value of the engine and its place in candle's graph.
pub(super) struct Fused<B: Backend> {
    pub token: Tensor,
    pub slot: Arc<Slot<B>>,
    pub value: Held<B>,
}

impl<B: Backend> Clone for Fused<B> {
    fn clone(&self) -> Self {
        Self {
            token: self.token.clone(),
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
        }
    }
    fn device(&self) -> &Device {
        match &self.0 {
            Inner::Composed(x) => x.device(),
            _ => &Device::Cpu,
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
    /// Lets a candle tensor in. On the CPU, in f32 and f64, operations on the handle are fused, and have
    /// a first and a second derivative; a third is refused. Elsewhere, and for a tensor without entries,
    /// they are composed of candle's, as with [`Handle::composed`], and have as many as candle's have.
    ///
    /// # Errors
    /// If candle fails.
    pub fn enter(x: &Tensor) -> Result<Self> {
        Ok(Self(match Kind::of(x) {
            Kind::F32 => Inner::F32(Fused::enter(x)?),
            Kind::F64 => Inner::F64(Fused::enter(x)?),
            Kind::Composed => Inner::Composed(x.clone()),
        }))
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
        }
    }

    /// The value's shape.
    pub fn dims(&self) -> &[usize] {
        match &self.0 {
            Inner::Composed(x) => x.dims(),
            Inner::F32(x) => &x.slot.shape,
            Inner::F64(x) => &x.slot.shape,
        }
    }

    fn any(&self) -> &dyn Any {
        match &self.0 {
            Inner::Composed(x) => x,
            Inner::F32(x) => x,
            Inner::F64(x) => x,
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
                got: format!("{:?}", x.dims()),
            });
        }
        let x = x.contiguous()?;
        let value = Held::of_tensor(&x)?;
        let slot = Arc::new(Slot::new(x.dims(), x.track_op()));
        let token = match x.track_op() {
            true => x.apply_op1(Enter {
                slot: Arc::clone(&slot),
                made: sweep::tick(),
            })?,
            false => zero_token()?,
        };
        Ok(Self { token, slot, value })
    }

    pub fn exit(&self) -> Result<Tensor> {
        let slot = Arc::clone(&self.slot);
        let numbers = B::storage(&*self.value.view()?)?;
        if !slot.tracked {
            // An untracked token would be fine, too, but a constant needs no graph.
            return constant(numbers, &slot.shape);
        }
        slot.add_consumer("exit");
        Ok(self.token.apply_op1(Exit {
            slot,
            numbers: Once::new(numbers),
        })?)
    }
}

/// Numbers that become a tensor when candle puts an operation into its graph, which it does once.
struct Once(Mutex<Option<Storage>>);

impl Once {
    fn new(numbers: Storage) -> Self {
        Self(Mutex::new(Some(numbers)))
    }

    fn take(&self, shape: &[usize]) -> CandleResult<(CpuStorage, Shape)> {
        let numbers = self.0.lock().unwrap_or_else(|e| e.into_inner()).take();
        match numbers {
            Some(Storage::Cpu(numbers)) => Ok((numbers, Shape::from(shape))),
            // Another backend's tokens must be on its device, and its own method of the operation runs.
            _ => {
                candle_core::bail!("a value left the fused operations twice, or on another device")
            }
        }
    }
}

/// Numbers as a tensor without a graph.
fn constant(numbers: Storage, shape: &[usize]) -> Result<Tensor> {
    struct Constant(Once, Vec<usize>);
    impl CustomOp1 for Constant {
        fn name(&self) -> &'static str {
            "constant"
        }
        fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
            self.0.take(&self.1)
        }
    }
    let op = Constant(Once::new(numbers), shape.to_vec());
    Ok(zero_token()?.apply_op1_no_bwd(&op)?)
}

/// A tensor's way into the engine.
struct Enter<B: Backend> {
    slot: Arc<Slot<B>>,
    /// When, among the passes.
    made: u64,
}

impl<B: Backend> CustomOp1 for Enter<B> {
    fn name(&self) -> &'static str {
        "enter"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        token_storage()
    }
    fn bwd(&self, x: &Tensor, _: &Tensor, gradient_token: &Tensor) -> CandleResult<Option<Tensor>> {
        let slot = &self.slot;
        let gradient = slot.take_gradient()?;
        slot.clear_cotangent()?;
        let numbers = match gradient {
            Some(gradient) => gradient,
            None => B::zeros(slot.length())?,
        };
        let numbers = B::into_storage(numbers)?;
        let (gradient, port) = match gradient_token.track_op() {
            false => (constant(numbers, &slot.shape)?, None),
            true => {
                let op = EnteredGradient {
                    slot: Arc::clone(slot),
                    numbers: Once::new(numbers),
                };
                let port = variables::port(slot, gradient_token)?;
                (gradient_token.apply_op1(op)?, Some(port))
            }
        };
        if !x.is_variable() || !variables::is_collecting(self.made) {
            return Ok(Some(gradient));
        }
        variables::collect(Collected {
            variable: x.clone(),
            gradient,
            port,
        });
        Ok(None)
    }
}

/// The gradient of a tensor that entered, as a function of the token of its gradient.
struct EnteredGradient<B: Backend> {
    slot: Arc<Slot<B>>,
    numbers: Once,
}

impl<B: Backend> CustomOp1 for EnteredGradient<B> {
    fn name(&self) -> &'static str {
        "gradient of enter"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        self.numbers.take(&self.slot.shape)
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, cotangent: &Tensor) -> CandleResult<Option<Tensor>> {
        sweep::expect_last(self.slot.consumer(), cotangent.track_op())?;
        self.slot.set_cotangent(Held::of_tensor(cotangent)?)?;
        zero_token().map(Some)
    }
}

/// A value's way out of the engine.
struct Exit<B: Backend> {
    slot: Arc<Slot<B>>,
    numbers: Once,
}

impl<B: Backend> CustomOp1 for Exit<B> {
    fn name(&self) -> &'static str {
        "exit"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        self.numbers.take(&self.slot.shape)
    }
    fn bwd(&self, token: &Tensor, _: &Tensor, gradient: &Tensor) -> CandleResult<Option<Tensor>> {
        self.slot.add_gradient(B::copy(gradient)?)?;
        let slot = Arc::clone(&self.slot);
        // A function of the value's token too, so that it is tracked wherever the graph is kept, even
        // for the gradient 1 of a loss that comes straight out of the engine.
        token.apply_op2(gradient, ExitGradient { slot }).map(Some)
    }
}

struct ExitGradient<B: Backend> {
    slot: Arc<Slot<B>>,
}

impl<B: Backend> CustomOp2 for ExitGradient<B> {
    fn name(&self) -> &'static str {
        "gradient of exit"
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        token_storage()
    }
    fn bwd(
        &self,
        token: &Tensor,
        gradient: &Tensor,
        _: &Tensor,
        cotangent_token: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        sweep::expect_last("exit", cotangent_token.track_op())?;
        let cotangent = match (gradient.track_op(), self.slot.read_cotangent()?) {
            (false, _) => None,
            (true, None) => Some(gradient.zeros_like()?.detach()),
            (true, Some(held)) => {
                let numbers = B::storage(&*held.view()?)?;
                Some(constant(numbers, gradient.dims())?)
            }
        };
        let zero = token.track_op().then(zero_token).transpose()?;
        Ok((zero, cotangent))
    }
}
