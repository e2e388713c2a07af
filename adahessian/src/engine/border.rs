//! The ways into the engine and out of it, as operations of candle's graph.

use super::slot::Slot;
use super::sweep;
use super::token::{self, gives_a_token};
use super::variables::{self, Collected};
use super::{Backend, Held};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Shape, Storage, Tensor,
};
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

/// The way of tensors into the engine, up to three at a time.
pub(super) struct Enter<B: Backend> {
    pub slots: Vec<Arc<Slot<B>>>,
    /// When, among the passes.
    pub made: u64,
}

impl<B: Backend> Enter<B> {
    /// One token for all of them.
    pub fn token(self, tensors: &[&Tensor]) -> CandleResult<Tensor> {
        match tensors {
            [a] => a.apply_op1(self),
            [a, b] => a.apply_op2(b, self),
            [a, b, c] => a.apply_op3(b, c, self),
            _ => candle_core::bail!("{} tensors entered at once", tensors.len()),
        }
    }

    /// The gradients, but of variables that hand theirs over.
    fn gradients<const N: usize>(
        &self,
        tensors: [&Tensor; N],
        gradient_token: &Tensor,
    ) -> CandleResult<[Option<Tensor>; N]> {
        let mut gradients = [const { None }; N];
        for ((slot, x), gradient) in self.slots.iter().zip(tensors).zip(&mut gradients) {
            let numbers = slot.take_gradient()?;
            slot.clear_cotangent()?;
            // Another one that entered with it may be all that this pass has come to. What is no variable enters alone.
            if slot.take_reached() || !x.is_variable() {
                let numbers = numbers.map_or_else(|| B::zeros(x), Ok)?;
                *gradient = Some(entered_gradient(slot, numbers, gradient_token)?);
            }
        }
        let hands_over = |x: &Tensor| x.is_variable() && variables::is_collecting(self.made);
        let all = self.slots.iter().zip(tensors).zip(&mut gradients);
        let handed: Vec<_> = all
            .filter(|((_, x), _)| hands_over(x))
            .filter_map(|((slot, x), gradient)| Some((slot, x, gradient.take()?)))
            .collect();
        let port = match gradient_token.track_op() && !handed.is_empty() {
            true => {
                let slots = handed
                    .iter()
                    .map(|(slot, _, gradient)| (Arc::clone(slot), gradient.id()));
                Some(variables::port(slots.collect(), gradient_token)?)
            }
            false => None,
        };
        for (_, variable, gradient) in handed {
            variables::collect(Collected {
                variable: variable.clone(),
                gradient,
                port: port.clone(),
            });
        }
        Ok(gradients)
    }
}

/// Numbers as the gradient of a tensor, where the graph is kept as a function of its token.
fn entered_gradient<B: Backend>(
    slot: &Arc<Slot<B>>,
    numbers: B::Buffer,
    gradient_token: &Tensor,
) -> CandleResult<Tensor> {
    if !gradient_token.track_op() {
        return Ok(B::into_constant(numbers, &slot.shape)?);
    }
    gradient_token.apply_op1(EnteredGradient {
        slot: Arc::clone(slot),
        numbers: Once::new(B::into_storage(numbers)?),
    })
}

impl<B: Backend> CustomOp1 for Enter<B> {
    fn name(&self) -> &'static str {
        "enter"
    }
    gives_a_token!();
    fn bwd(&self, x: &Tensor, _: &Tensor, gradient_token: &Tensor) -> CandleResult<Option<Tensor>> {
        let [x] = self.gradients([x], gradient_token)?;
        Ok(x)
    }
}

impl<B: Backend> CustomOp2 for Enter<B> {
    fn name(&self) -> &'static str {
        "enter"
    }
    gives_a_token!(_second);
    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _: &Tensor,
        gradient_token: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let [x, y] = self.gradients([x, y], gradient_token)?;
        Ok((x, y))
    }
}

impl<B: Backend> CustomOp3 for Enter<B> {
    fn name(&self) -> &'static str {
        "enter"
    }
    gives_a_token!(_second, _third);
    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        z: &Tensor,
        _: &Tensor,
        gradient_token: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [x, y, z] = self.gradients([x, y, z], gradient_token)?;
        Ok((x, y, z))
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
        self.numbers.on_cpu(&self.slot.shape)
    }
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        self.numbers.on_cuda(&self.slot.shape)
    }
    fn bwd(&self, token: &Tensor, _: &Tensor, cotangent: &Tensor) -> CandleResult<Option<Tensor>> {
        sweep::expect_last(self.slot.consumer(), cotangent.track_op())?;
        self.slot.set_cotangent(Held::of_tensor(cotangent)?)?;
        Ok(Some(token::like(token)))
    }
}

/// A value's way out of the engine.
pub(super) struct Exit<B: Backend> {
    pub slot: Arc<Slot<B>>,
    pub numbers: Once,
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
        self.slot.reach();
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
    gives_a_token!(_second);
    fn bwd(
        &self,
        token: &Tensor,
        gradient: &Tensor,
        _: &Tensor,
        cotangent_token: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        sweep::expect_last("exit", cotangent_token.track_op())?;
        self.slot.reach();
        let cotangent = match (gradient.track_op(), self.slot.read_cotangent()?) {
            (false, _) => None,
            (true, None) => Some(gradient.zeros_like()?.detach()),
            (true, Some(held)) => Some(B::constant(&*held.view()?, gradient.dims())?),
        };
        let zero = token.track_op().then(|| token::like(token));
        Ok((zero, cotangent))
    }
}
