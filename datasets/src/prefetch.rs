//! Batches made ahead of the training step, on a thread of their own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::limits::MOST_AHEAD;

/// How long the consumer of a [`Prefetch`] stood still.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Waited {
    /// Batches taken.
    pub batches: usize,
    /// Seconds spent waiting for the first batch, which nothing can hide.
    pub first_seconds: f64,
    /// Seconds spent waiting for all others together: near zero if batches are made faster than
    /// they are used.
    pub later_seconds: f64,
}

/// An iterator over batches 0, 1, … that another thread makes ahead.
///
/// Batches come in order, and as `make` is called for one after the other, they are what they would
/// be without the thread. An error comes in its batch's place, and the next batches after it; a
/// panic of `make` becomes an error and ends the sequence. Dropping the iterator stops the thread
/// and waits for it, at most for the batch it is at.
pub struct Prefetch<T> {
    receiver: Option<Receiver<Result<T>>>,
    worker: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    waited: Waited,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts making batches `0..count`; at most `ahead` (at least 1) of them are kept waiting.
    ///
    /// # Errors
    /// If `ahead` is above [`MOST_AHEAD`], or the system refuses a thread.
    pub fn start(
        count: usize,
        ahead: usize,
        mut make: impl FnMut(usize) -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        if ahead > MOST_AHEAD {
            return Err(Error::Setting {
                name: "prefetch",
                got: ahead.to_string(),
                expected: format!(
                    "at most {MOST_AHEAD} batches, which all lie in memory; 3 will do"
                ),
            });
        }
        // While one batch waits to be sent it is outside the channel.
        let (sender, receiver) = sync_channel(ahead.max(1) - 1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            for index in 0..count {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let made = catch_unwind(AssertUnwindSafe(|| {
                    let batch = make(index)?;
                    arrived()?;
                    Ok(batch)
                }));
                let panicked = made.is_err();
                let what = || format!("batch {index}");
                let batch = made.unwrap_or_else(|payload| Err(panic_error(what(), &*payload)));
                // Sending fails once nobody listens.
                if sender.send(batch).is_err() || panicked {
                    return;
                }
            }
        };
        let worker = std::thread::Builder::new()
            .name("prefetch".to_string())
            .spawn(work)
            .map_err(|e| Error::Batch {
                reason: format!("no thread for making batches ahead: {e}"),
            })?;
        Ok(Self {
            receiver: Some(receiver),
            worker: Some(worker),
            stop,
            waited: Waited::default(),
        })
    }
}

impl<T> Prefetch<T> {
    /// How long [`Prefetch::next`] has waited up to now.
    pub fn waited(&self) -> Waited {
        self.waited
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = Instant::now();
        let batch = self.receiver.as_ref()?.recv().ok()?;
        let seconds = Duration::as_secs_f64(&start.elapsed());
        match self.waited.batches {
            0 => self.waited.first_seconds = seconds,
            _ => self.waited.later_seconds += seconds,
        }
        self.waited.batches += 1;
        Some(batch)
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A worker that waits for room in the channel wakes up when the other end is gone.
        self.receiver = None;
        if let Some(worker) = self.worker.take() {
            // It cannot have panicked outside of catch_unwind with anything to tell.
            let _ = worker.join();
        }
    }
}

/// Waits until what this thread has sent to a GPU is there. A device that `Device::new_cuda` has made gives every
/// thread a stream of its own: who takes the batch could read it before it has arrived.
#[cfg(feature = "cuda")]
fn arrived() -> Result<()> {
    use candle_core::cuda::cudarc::driver::{result, sys};
    // A thread without a context, or in a program that has not woken the driver, has sent nothing.
    let Ok(Some(_)) = result::ctx::get_current() else {
        return Ok(());
    };
    // SAFETY: the handle is the constant that stands for the calling thread's own stream in its current context
    // (CU_STREAM_PER_THREAD); it is never destroyed.
    let arrived = unsafe { result::stream::synchronize(0x2 as sys::CUstream) };
    arrived.map_err(|e| Error::Batch {
        reason: format!("it cannot be sent to the GPU: {e}"),
    })
}

/// Without CUDA a batch is there when it is made.
#[cfg(not(feature = "cuda"))]
fn arrived() -> Result<()> {
    Ok(())
}

/// The error of a panic at a batch.
pub(crate) fn panic_error(batch: String, payload: &(dyn Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    Error::Batch {
        reason: format!("the thread that makes batches panicked at {batch}: {text}"),
    }
}
