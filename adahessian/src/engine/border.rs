//! The ways into the engine and out of it, as operations of candle's graph.

use super::exits::Key;
use super::slot::Slot;
use super::sweep;
use super::token::{self, gives_a_token};
use super::{Backend, Held};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Shape, Storage, Tensor};
use std::sync::{Arc, Mutex};

type CandleResult<T> = candle_core::Result<T>;

/// Numbers that become a tensor when candle puts an operation into its graph, which it does once.
pub(super) struct Once(Mutex<Option<Storage>>);

impl Once {
    pub fn new(numbers: Storage) -> Self {
        Self(Mutex::new(Some(numbers)))
    }

    fn take(&self) -> Option<Storage> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).take()
    }

    fn on_cpu(&self, shape: &[usize]) -> CandleResult<(CpuStorage, Shape)> {
        match self.take() {
            Some(Storage::Cpu(numbers)) => Ok((numbers, Shape::from(shape))),
            _ => Self::refuse(),
        }
    }

    fn on_cuda(&self, shape: &[usize]) -> CandleResult<(CudaStorage, Shape)> {
        match self.take() {
            Some(Storage::Cuda(numbers)) => Ok((numbers, Shape::from(shape))),
            _ => Self::refuse(),
        }
    }

    fn refuse<X>() -> CandleResult<X> {
        candle_core::bail!("a value left the fused operations twice, or on another device")
    }
}

/// The way of a tensor into the engine that is no variable.
pub(super) struct Enter<B: Backend>(pub Arc<Slot<B>>);

impl<B: Backend> CustomOp1 for Enter<B> {
    fn name(&self) -> &'static str {
        "enter"
    }
    gives_a_token!();
    fn bwd(&self, x: &Tensor, _: &Tensor, gradient_token: &Tensor) -> CandleResult<Option<Tensor>> {
        sweep::part_of_pass(|| {
            let numbers = self.0.take_gradient()?;
            self.0.clear_cotangent()?;
            self.0.take_reached();
            let numbers = numbers.map_or_else(|| B::zeros(x), Ok)?;
            let slots = vec![Arc::clone(&self.0)];
            entered_gradient(slots, numbers, gradient_token).map(Some)
        })
    }
}

/// Numbers as the gradient of a tensor, where the graph is kept as a function of its token. The tensor may have entered
/// several times: its cotangent is that of each slot's gradient.
pub(super) fn entered_gradient<B: Backend>(
    slots: Vec<Arc<Slot<B>>>,
    numbers: B::Buffer,
    gradient_token: &Tensor,
) -> CandleResult<Tensor> {
    let shape = slots
        .first()
        .map_or_else(Vec::new, |slot| slot.shape.clone());
    if !gradient_token.track_op() {
        return Ok(B::into_constant(numbers, &shape)?);
    }
    gradient_token.apply_op1(EnteredGradient {
        slots,
        shape,
        numbers: Once::new(B::into_storage(numbers)?),
    })
}

/// The gradient of a tensor that entered, as a function of the token of its gradient.
struct EnteredGradient<B: Backend> {
    slots: Vec<Arc<Slot<B>>>,
    shape: Vec<usize>,
    numbers: Once,
}

impl<B: Backend> CustomOp1 for EnteredGradient<B> {
    fn name(&self) -> &'static str {
        "gradient of enter"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        self.numbers.on_cpu(&self.shape)
    }
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        self.numbers.on_cuda(&self.shape)
    }
    fn bwd(&self, token: &Tensor, _: &Tensor, cotangent: &Tensor) -> CandleResult<Option<Tensor>> {
        sweep::part_of_pass(|| {
            for slot in &self.slots {
                sweep::expect_last(slot.consumer(), cotangent.track_op())?;
                slot.set_cotangent(Held::of_tensor(cotangent)?)?;
            }
            Ok(Some(token::like(token)))
        })
    }
}

/// A value's way out of the engine.
pub(super) struct Exit<B: Backend> {
    pub slot: Arc<Slot<B>>,
    pub numbers: Once,
    /// Of the tensor, kept as long as its graph.
    pub _key: Key,
}

impl<B: Backend> CustomOp1 for Exit<B> {
    fn name(&self) -> &'static str {
        "exit"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        self.numbers.on_cpu(&self.slot.shape)
    }
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        self.numbers.on_cuda(&self.slot.shape)
    }
    fn bwd(&self, token: &Tensor, _: &Tensor, gradient: &Tensor) -> CandleResult<Option<Tensor>> {
        sweep::part_of_pass(|| {
            self.slot.reach();
            let address = std::ptr::from_ref(self).addr();
            self.slot.add_gradient(B::copy(gradient)?, (address, 0))?;
            let slot = Arc::clone(&self.slot);
            // A function of the value's token too, so that it is tracked wherever the graph is kept, even
            // for the gradient 1 of a loss that comes straight out of the engine.
            token.apply_op2(gradient, ExitGradient { slot }).map(Some)
        })
    }
}

struct ExitGradient<B: Backend> {
    slot: Arc<Slot<B>>,
}

impl<B: Backend> CustomOp2 for ExitGradient<B> {
    fn name(&self) -> &'static str {
        "gradient of exit"
    }
    gives_a_token!(_second);
    fn bwd(
        &self,
        token: &Tensor,
        gradient: &Tensor,
        _: &Tensor,
        cotangent_token: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        sweep::part_of_pass(|| {
            sweep::expect_last("exit", cotangent_token.track_op())?;
            self.slot.reach();
            let cotangent = match (gradient.track_op(), self.slot.read_cotangent()?) {
                (false, _) => None,
                (true, None) => Some(gradient.zeros_like()?.detach()),
                (true, Some(held)) => Some(B::constant(&*held.view()?, gradient.dims())?),
            };
            let zero = token.track_op().then(|| token::like(token));
            Ok((zero, cotangent))
        })
    }
}
