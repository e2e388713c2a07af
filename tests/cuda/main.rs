//! What differs on a CUDA device: operations composed of candle's, candle's kernels in place of its
//! loops, contexts of threads. Run with `--features cuda`; without a device every test says that it is
//! skipped, and fails instead where `REQUIRE_CUDA` is set.

mod draws;
mod fused;
mod ids;
mod others;
mod passes;
mod steps;
mod tables;
mod training;
mod values;

use candle_core::Device;

/// A device of this test's own, so that its context is current on the test's thread.
fn device() -> Option<Device> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(e) if std::env::var_os("REQUIRE_CUDA").is_some() => panic!("no CUDA device: {e}"),
        Err(e) => {
            println!("skipped, no CUDA device: {e}");
            None
        }
    }
}
