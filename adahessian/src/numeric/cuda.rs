//! Where the numbers of a tensor lie on a CUDA device, for kernels of this crate's own.

use crate::error::{Error, Result};
use crate::numeric::traced::assembly::{ENTRY, F32, F64, Type};
use candle_core::backend::BackendStorage;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, DType, Device, InplaceOp1, Layout, Storage, Tensor,
};
use half::bf16;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, Mutex};

const ELSEWHERE: &str = "a kernel was given a tensor that is not on its device";

/// The device that has a tensor's numbers.
pub(crate) fn device(x: &Tensor) -> Option<&CudaDevice> {
    match x.device() {
        Device::Cuda(device) => Some(device),
        _ => None,
    }
}

/// The type as PTX has it, of those that kernels have.
pub(crate) fn type_of(dtype: DType) -> Option<Type> {
    match dtype {
        DType::F32 => Some(F32),
        DType::F64 => Some(F64),
        _ => None,
    }
}

/// An error of the driver.
pub(crate) fn driver(error: impl std::fmt::Display) -> Error {
    Error::Candle(candle_core::Error::msg(format!("CUDA kernel: {error}")))
}

/// The text of a kernel, made once, its name and that of its module.
pub(crate) struct Kernel {
    pub module: String,
    pub name: String,
    pub text: String,
}

/// Kernels by what they are made of. Each is written once, and loaded once by each device.
pub(crate) struct Kernels<K> {
    prefix: &'static str,
    all: LazyLock<Mutex<HashMap<K, Arc<Kernel>>>>,
}

impl<K: Eq + Hash> Kernels<K> {
    /// The modules' names begin so.
    pub const fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            all: LazyLock::new(Mutex::default),
        }
    }

    /// The kernel of this key, under this name, by which a profiler and `scripts/cuda_calls.c` know it; for
    /// `CudaDevice::get_or_load_custom_func`.
    pub fn kernel(
        &self,
        key: K,
        name: impl FnOnce(&K) -> String,
        write: impl FnOnce(&K) -> String,
    ) -> Arc<Kernel> {
        let mut all = self.all.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(kernel) = all.get(&key) {
            return Arc::clone(kernel);
        }
        let name = name(&key);
        let entry = |name: &str| format!(".entry {name}(");
        let kernel = Arc::new(Kernel {
            module: format!("{}-{}", self.prefix, all.len()),
            text: write(&key).replacen(&entry(ENTRY), &entry(&name), 1),
            name,
        });
        all.insert(key, Arc::clone(&kernel));
        kernel
    }
}

/// Where the numbers of a contiguous tensor begin, to be read. Call it once more after the launch, as
/// [`written_address`].
pub(crate) fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => Ok(read_address(storage, layout)?),
        _ => Err(Error::Candle(candle_core::Error::msg(ELSEWHERE))),
    }
}

fn read_address(storage: &CudaStorage, layout: &Layout) -> candle_core::Result<u64> {
    let stream = storage.device().cuda_stream();
    let begin = match storage.dtype() {
        DType::F64 => storage.as_cuda_slice::<f64>()?.device_ptr(&stream).0,
        DType::BF16 => storage.as_cuda_slice::<bf16>()?.device_ptr(&stream).0,
        _ => storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0,
    };
    Ok(begin + (layout.start_offset() * storage.dtype().size_in_bytes()) as u64)
}

/// Where the numbers of a contiguous tensor begin, to be written to. Call it once more after the launch: where
/// candle keeps events for every use of memory (programs with streams of their own), the first call waits for
/// others' uses and the second one marks this.
pub(crate) fn written_address(tensor: &Tensor) -> Result<u64> {
    let address = WrittenAddress::default();
    tensor.inplace_op1(&address)?;
    Ok(address.0.get())
}

/// candle lets an "operation in place" at a tensor's memory, and nothing else.
#[derive(Default)]
struct WrittenAddress(Cell<u64>);

impl InplaceOp1 for WrittenAddress {
    fn name(&self) -> &'static str {
        "address of a variable"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        candle_core::bail!("{ELSEWHERE}")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        let stream = storage.device().cuda_stream();
        let (dtype, bytes) = (storage.dtype(), storage.dtype().size_in_bytes());
        let begin = match dtype {
            DType::F64 => begin(storage.as_cuda_slice_mut::<f64>()?, &stream),
            DType::BF16 => begin(storage.as_cuda_slice_mut::<bf16>()?, &stream),
            _ => begin(storage.as_cuda_slice_mut::<f32>()?, &stream),
        };
        self.0.set(begin + (layout.start_offset() * bytes) as u64);
        Ok(())
    }
}

fn begin<T>(slice: &mut CudaSlice<T>, stream: &CudaStream) -> u64 {
    slice.device_ptr_mut(stream).0
}
