//! Tokens: candle tensors of one entry, 0, that stand for values in candle's graph, on the values' device.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, CustomOp3, DType, Device, Result, Shape, Tensor,
};

/// What candle knows a value by.
///
/// A pass of candle's own finds the gradients of variables where its graph ends, so that every variable has to be in
/// it, and every one costs. A pass of this library has them handed over, and takes a graph that ends before them.
#[derive(Clone)]
pub(super) struct Tokens {
    /// Its graph goes back to the variables.
    pub whole: Tensor,
    /// Its graph ends where variables entered. None where a tensor entered that is none: in its graph what left the
    /// engine before would have its turn a second time.
    pub short: Option<Tensor>,
}

impl Tokens {
    /// Whether a tensor has entered that is no variable.
    pub fn is_outside(&self) -> bool {
        self.short.is_none()
    }

    /// Several as one; none of none.
    pub fn joined(all: &[Self]) -> Result<Option<Self>> {
        let Some(whole) = joined(all.iter().map(|one| one.whole.clone()).collect())? else {
            return Ok(None);
        };
        let short: Option<Vec<Tensor>> = all.iter().map(|one| one.short.clone()).collect();
        let short = short.map_or(Ok(None), joined)?;
        Ok(Some(Self { whole, short }))
    }
}

/// Of a constant.
pub(super) fn zero(device: &Device) -> Result<Tensor> {
    Tensor::zeros(1, DType::F32, device)
}

/// Another one, without a graph.
pub(super) fn like(token: &Tensor) -> Tensor {
    token.detach()
}

pub(super) fn on_cpu() -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(vec![0.0]), Shape::from(1)))
}

/// On the GPU that this lies on.
pub(super) fn on_cuda(beside: &CudaStorage) -> Result<(CudaStorage, Shape)> {
    let shape = Shape::from(1);
    let token = beside.device().zeros_impl(&shape, DType::F32)?;
    Ok((token, shape))
}

/// The forward passes of an operation of candle's graph that gives a token, whatever it takes; a name for each operand
/// but the first.
macro_rules! gives_a_token {
    ($($other:ident),*) => {
        fn cpu_fwd(
            &self,
            _: &candle_core::CpuStorage,
            _: &candle_core::Layout,
            $($other: &candle_core::CpuStorage, _: &candle_core::Layout,)*
        ) -> candle_core::Result<(candle_core::CpuStorage, candle_core::Shape)> {
            crate::engine::token::on_cpu()
        }
        fn cuda_fwd(
            &self,
            beside: &candle_core::CudaStorage,
            _: &candle_core::Layout,
            $($other: &candle_core::CudaStorage, _: &candle_core::Layout,)*
        ) -> candle_core::Result<(candle_core::CudaStorage, candle_core::Shape)> {
            crate::engine::token::on_cuda(beside)
        }
    };
}
pub(super) use gives_a_token;

/// Tokens on one device as one.
pub(crate) fn joined(mut tokens: Vec<Tensor>) -> Result<Option<Tensor>> {
    while tokens.len() > 1 {
        let groups = tokens.chunks(3).map(|group| match group {
            [a, b, c] => a.apply_op3(b, c, Join),
            [a, b] => a.apply_op2(b, Join),
            rest => Ok(rest[0].clone()),
        });
        tokens = groups.collect::<Result<_>>()?;
    }
    Ok(tokens.pop())
}

/// Several tokens as one, where there are more than an operation of candle's may have.
pub(super) struct Join;

fn passed_on(to: &Tensor, gradient: &Tensor) -> Option<Tensor> {
    to.track_op().then(|| gradient.clone())
}

impl CustomOp2 for Join {
    fn name(&self) -> &'static str {
        "join"
    }
    gives_a_token!(_second);
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((passed_on(a, gradient), passed_on(b, gradient)))
    }
}

impl CustomOp3 for Join {
    fn name(&self) -> &'static str {
        "join"
    }
    gives_a_token!(_second, _third);
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = [a, b, c].map(|to| passed_on(to, gradient));
        Ok((a, b, c))
    }
}
