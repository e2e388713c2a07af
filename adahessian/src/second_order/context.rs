//! CUDA's current context on the threads that passes run on.
//!
//! A call of the driver needs a context that is current on the calling thread. candle's allocations
//! and copies make theirs current by the way; looking up a kernel does not, and neither does freeing
//! memory. So a thread of its own that begins with a product of two gradients, or only drops a graph,
//! would have none.
//!
//! Nor is a thread's work for the device in any order with another's: a device that `Device::new_cuda` has
//! made gives every thread a stream of its own, and a pass would read what its caller has asked for, but not
//! got yet, and free what is still read. So who hands work over leaves a [`Mark`] in its stream, and who takes
//! it up lets its own stream wait for that. No thread waits, only the device.

use crate::error::Result;
use candle_core::Device;

/// The context that a pass needs, if it runs on a CUDA device.
#[cfg(feature = "cuda")]
#[derive(Clone)]
pub(super) struct Context(Option<cuda::Shared>);

/// All that a thread has asked of the device so far.
#[cfg(feature = "cuda")]
pub(super) struct Mark(Option<cuda::Event>);

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

    /// Marks what this thread has asked of the device so far.
    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark(self.0.as_ref().map(cuda::mark).transpose()?))
    }

    /// What this thread asks of the device from now on comes after what was marked.
    pub fn after(&self, mark: &Mark) -> Result<()> {
        match (&self.0, &mark.0) {
            (Some(context), Some(event)) => cuda::after(context, event),
            _ => Ok(()),
        }
    }
}

/// Without CUDA there is none.
#[cfg(not(feature = "cuda"))]
#[derive(Clone)]
pub(super) struct Context;

/// Without CUDA a thread's work is done when it says so.
#[cfg(not(feature = "cuda"))]
pub(super) struct Mark;

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

    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark)
    }

    pub fn after(&self, _: &Mark) -> Result<()> {
        Ok(())
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use super::super::worker::worker_error;
    use crate::error::Result;
    use candle_core::Device;
    use candle_core::cuda::cudarc::driver::{CudaContext, CudaEvent, DriverError};
    use std::cell::RefCell;
    use std::sync::{Arc, Mutex, Weak};

    pub type Shared = Arc<CudaContext>;
    pub type Event = CudaEvent;

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

    /// In the calling thread's own stream. What lies in a stream of the program's (`Device::new_cuda_with_stream`)
    /// is in order already, whichever thread asks.
    pub fn mark(context: &Shared) -> Result<Event> {
        let event = context.per_thread_stream().record_event(None);
        event.map_err(out_of_order)
    }

    pub fn after(context: &Shared, event: &Event) -> Result<()> {
        let waits = context.per_thread_stream().wait(event);
        waits.map_err(out_of_order)
    }

    fn out_of_order(error: DriverError) -> crate::error::Error {
        worker_error(format!(
            "cannot put its work on the CUDA device in order: {error}"
        ))
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
