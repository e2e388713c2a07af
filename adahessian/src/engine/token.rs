//! Tokens: candle tensors of one entry, 0, that stand for values in candle's graph, on the values' device.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{CpuStorage, CudaStorage, DType, Device, Result, Shape, Tensor};

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
