//! What a program tells a CUDA device before it trains.

use crate::error::Result;
use candle_core::Device;

/// Tells a CUDA device to keep the memory that is freed on it for what comes next. By default the driver gives it
/// back to the system whenever the program waits for the device, and asks for it again a moment later. Does nothing
/// on other devices.
///
/// It holds for all that this process does on the device, as long as the process lives.
///
/// # Errors
/// If the driver does not know of pools of memory (CUDA before 11.2).
#[cfg(feature = "cuda")]
pub fn keep_memory(device: &Device) -> Result<()> {
    use candle_core::cuda::cudarc::driver::{result, sys};
    let Device::Cuda(device) = device else {
        return Ok(());
    };
    let failed =
        |e| candle_core::Error::msg(format!("cannot keep freed memory on the device: {e}"));
    let stream = device.cuda_stream();
    let all = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the device comes from its own context, the pool from the device, and the attribute is a u64, which
    // the driver copies before it returns.
    unsafe {
        let pool =
            result::device::get_default_mem_pool(stream.context().cu_device()).map_err(failed)?;
        result::mem_pool::set_attribute(
            pool,
            attribute,
            std::ptr::from_ref(&all).cast_mut().cast(),
        )
        .map_err(failed)?;
    }
    Ok(())
}

/// Tells a CUDA device to keep the memory that is freed on it. Built without CUDA: there is none.
///
/// # Errors
/// None.
#[cfg(not(feature = "cuda"))]
pub fn keep_memory(_: &Device) -> Result<()> {
    Ok(())
}
