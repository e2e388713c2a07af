//! What flows between the operations, and how tensors get in and out.

use super::node::{token_storage, zero_token};
use super::slot::Slot;
use super::sweep;
use super::variables::{self, Collected};
use super::{Buffer, Held, Real};
use crate::error::Result;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Shape, Tensor};
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
pub(crate) enum Inner {
    Composed(Tensor),
    F32(Fused<f32>),
    F64(Fused<f64>),
}

/// A value of the engine and its place in candle's graph.
#[derive(Clone)]
pub(crate) struct Fused<T: Real> {
    pub token: Tensor,
    pub slot: Arc<Slot<T>>,
    pub(super) value: Held<T>,
}

impl Handle {
    /// Lets a candle tensor in. On the CPU, in f32 and f64, operations on the handle are fused, and have
    /// a first and a second derivative; a third is refused. Elsewhere, and for a tensor without entries,
    /// they are composed of candle's, as with [`Handle::composed`], and have as many as candle's have.
    ///
    /// # Errors
    /// If candle fails.
    pub fn enter(x: &Tensor) -> Result<Self> {
        let fused = x.device().is_cpu() && x.elem_count() > 0;
        let inner = match (fused, x.dtype()) {
            (true, DType::F32) => Inner::F32(Fused::enter(x)?),
            (true, DType::F64) => Inner::F64(Fused::enter(x)?),
            _ => Inner::Composed(x.clone()),
        };
        Ok(Self(inner))
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

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }
}

impl From<Fused<f32>> for Handle {
    fn from(x: Fused<f32>) -> Self {
        Self(Inner::F32(x))
    }
}

impl From<Fused<f64>> for Handle {
    fn from(x: Fused<f64>) -> Self {
        Self(Inner::F64(x))
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

impl<T: Real> Fused<T> {
    /// A second operand: as it is where it is of this type, else through a candle tensor.
    pub fn of(handle: &Handle) -> Result<Self> {
        let any: &dyn std::any::Any = match handle.inner() {
            Inner::F32(x) => x,
            Inner::F64(x) => x,
            Inner::Composed(x) => return Self::enter(x),
        };
        match any.downcast_ref::<Self>() {
            Some(x) => Ok(x.clone()),
            None => Self::enter(&handle.exit()?),
        }
    }

    /// For a tensor on the CPU of this type.
    pub fn enter(x: &Tensor) -> Result<Self> {
        if x.dtype() != T::DTYPE || !x.device().is_cpu() {
            return super::super::wrong(
                "operand of a fused operation",
                format!("{:?} on the CPU like the image", T::DTYPE),
                format!("{:?} on {:?}", x.dtype(), x.device().location()),
            );
        }
        if x.elem_count() == 0 {
            return super::super::wrong(
                "operand of a fused operation",
                "at least one entry",
                format!("{:?}", x.dims()),
            );
        }
        let x = x.contiguous()?;
        let value = Held::of_tensor(x.detach());
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
        let data = self.value.view().to_vec();
        if !slot.tracked {
            // An untracked token would be fine, too, but a constant needs no graph.
            return Ok(T::tensor(data, &slot.shape)?);
        }
        slot.add_consumer("exit");
        Ok(self.token.apply_op1(Exit {
            slot,
            data: Mutex::new(data),
        })?)
    }
}

/// The data of a contiguous CPU tensor.
pub(super) fn data_of<T: Real>(x: &Tensor) -> CandleResult<Buffer<T>> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let start = layout.start_offset();
    match &*storage {
        candle_core::Storage::Cpu(storage) => {
            let data = T::slice(storage).unwrap_or(&[]);
            Ok(Buffer::copy_of(
                &data[start..start + layout.shape().elem_count()],
            ))
        }
        _ => candle_core::bail!("a fused operation got a gradient on another device"),
    }
}

/// The numbers of a tensor that nobody writes to, without a copy.
pub(super) fn held<T: Real>(x: &Tensor) -> CandleResult<Held<T>> {
    if x.dtype() != T::DTYPE || !x.device().is_cpu() {
        candle_core::bail!(
            "a fused operation got a cotangent of {:?} on {:?}, not of {:?} on the CPU",
            x.dtype(),
            x.device().location(),
            T::DTYPE
        );
    }
    Ok(Held::of_tensor(x.contiguous()?.detach()))
}

/// A tensor's way into the engine.
struct Enter<T: Real> {
    slot: Arc<Slot<T>>,
    /// When, among the passes.
    made: u64,
}

impl<T: Real> CustomOp1 for Enter<T> {
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
        let data = match gradient {
            Some(gradient) => gradient.into_vec(),
            None => vec![T::ZERO; slot.length()],
        };
        let (gradient, port) = match gradient_token.track_op() {
            false => (T::tensor(data, &slot.shape)?, None),
            true => {
                let op = EnteredGradient {
                    slot: Arc::clone(slot),
                    data: Mutex::new(data),
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
struct EnteredGradient<T: Real> {
    slot: Arc<Slot<T>>,
    data: Mutex<Vec<T>>,
}

impl<T: Real> CustomOp1 for EnteredGradient<T> {
    fn name(&self) -> &'static str {
        "gradient of enter"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        // Called once, when the operation is put into the graph.
        let data = std::mem::take(&mut *self.data.lock().unwrap_or_else(|e| e.into_inner()));
        Ok((T::storage(data), Shape::from(self.slot.shape.clone())))
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, cotangent: &Tensor) -> CandleResult<Option<Tensor>> {
        sweep::expect_last(self.slot.consumer(), cotangent.track_op())?;
        self.slot.set_cotangent(held(cotangent)?)?;
        zero_token().map(Some)
    }
}

/// A value's way out of the engine.
struct Exit<T: Real> {
    slot: Arc<Slot<T>>,
    data: Mutex<Vec<T>>,
}

impl<T: Real> CustomOp1 for Exit<T> {
    fn name(&self) -> &'static str {
        "exit"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        // Called once, as above.
        let data = std::mem::take(&mut *self.data.lock().unwrap_or_else(|e| e.into_inner()));
        Ok((T::storage(data), Shape::from(self.slot.shape.clone())))
    }
    fn bwd(&self, token: &Tensor, _: &Tensor, gradient: &Tensor) -> CandleResult<Option<Tensor>> {
        self.slot.add_gradient(data_of(gradient)?)?;
        let slot = Arc::clone(&self.slot);
        // A function of the value's token too, so that it is tracked wherever the graph is kept, even
        // for the gradient 1 of a loss that comes straight out of the engine.
        token.apply_op2(gradient, ExitGradient { slot }).map(Some)
    }
}

struct ExitGradient<T: Real> {
    slot: Arc<Slot<T>>,
}

impl<T: Real> CustomOp2 for ExitGradient<T> {
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
            (true, Some(data)) => Some(T::tensor(data.view().to_vec(), gradient.dims())?),
        };
        let zero = token.track_op().then(zero_token).transpose()?;
        Ok((zero, cotangent))
    }
}
