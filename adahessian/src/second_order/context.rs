//! CUDA's current context on the threads that passes run on.
//!
//! A call of the driver needs a context that is current on the calling thread. candle's allocations
//! and copies make theirs current by the way; looking up a kernel does not, and neither does freeing
//! memory. So a thread of its own that begins with a product of two gradients, or only drops a graph,
//! would have none.

use crate::error::Result;
use candle_core::Device;

/// The context that a pass needs, if it runs on a CUDA device.
#[cfg(feature = "cuda")]
pub(super) struct Context(Option<cuda::Shared>);

#[cfg(feature = "cuda")]
impl Context {
    /// That of the device. For the CPU the last one that was asked for: a loss may have come from a
    /// device before it was moved, and what is dropped may lie on one.
    pub fn of(device: &Device) -> Self {
        Self(cuda::of(device))
    }

    /// Makes it current on this thread.
    pub fn bind(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), cuda::bind)
    }

    /// Makes it current on this thread, which is the first of its pool, and on the pool's others, which
    /// an operation's own backward may use. They must have no work.
    pub fn bind_pool(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), cuda::bind_pool)
    }
}

/// Without CUDA there is none.
#[cfg(not(feature = "cuda"))]
pub(super) struct Context;

#[cfg(not(feature = "cuda"))]
impl Context {
    pub fn of(_: &Device) -> Self {
        Self
    }

    pub fn bind(&self) -> Result<()> {
        Ok(())
    }

    pub fn bind_pool(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use super::super::worker::worker_error;
    use crate::error::Result;
    use candle_core::Device;
    use candle_core::cuda::cudarc::driver::CudaContext;
    use std::cell::RefCell;
    use std::sync::{Arc, Mutex, Weak};

    pub type Shared = Arc<CudaContext>;

    /// The last context that was asked for. It is not kept alive: what lies in it does that.
    static LAST: Mutex<Weak<CudaContext>> = Mutex::new(Weak::new());

    thread_local! {
        /// What the helpers of this worker have.
        static OF_POOL: RefCell<Weak<CudaContext>> = const { RefCell::new(Weak::new()) };
    }

    pub fn of(device: &Device) -> Option<Shared> {
        let mut last = LAST.lock().unwrap_or_else(|e| e.into_inner());
        match device {
            Device::Cuda(device) => {
                let context = Arc::clone(device.cuda_stream().context());
                *last = Arc::downgrade(&context);
                Some(context)
            }
            _ => last.upgrade(),
        }
    }

    pub fn bind(context: &Shared) -> Result<()> {
        let bound = context.bind_to_thread();
        bound.map_err(|e| worker_error(format!("cannot use the CUDA device's context: {e}")))
    }

    pub fn bind_pool(context: &Shared) -> Result<()> {
        // Every time: an operation on another device may have bound its own here.
        bind(context)?;
        let known = OF_POOL.with_borrow(|known| known.ptr_eq(&Arc::downgrade(context)));
        if known {
            return Ok(());
        }
        rayon::broadcast(|_| bind(context))
            .into_iter()
            .collect::<Result<()>>()?;
        OF_POOL.set(Arc::downgrade(context));
        Ok(())
    }
}
