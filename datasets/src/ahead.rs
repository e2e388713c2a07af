//! Batches made ahead of the step, on a thread of their own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use crate::batches::Batches;
use crate::error::{Error, Result};
use crate::prefetch::{Prefetch, Waited, panic_error};

/// Batches of any kind, of which the next ones are made while the loop uses the present one.
///
/// Whatever is asked for in whatever order, it gets the batches that it would get from `B` itself; those
/// that follow each other come from the thread.
pub struct Ahead<B: Batches> {
    batches: Arc<B>,
    ahead: usize,
    running: Mutex<Running<B::Batch>>,
}

struct Running<T> {
    prefetch: Option<Prefetch<T>>,
    /// The epoch and index of the batch that comes out next.
    next: (usize, usize),
    /// What earlier threads have been waited for.
    earlier: Waited,
}

impl<B> Ahead<B>
where
    B: Batches + Send + Sync + 'static,
    B::Batch: Send + 'static,
{
    /// Makes `ahead` batches ahead of use; 3 will do. With 0 each is made when it is asked for.
    pub fn new(batches: B, ahead: usize) -> Self {
        Self {
            batches: Arc::new(batches),
            ahead,
            running: Mutex::new(Running {
                prefetch: None,
                next: (0, 0),
                earlier: Waited::default(),
            }),
        }
    }

    /// How long [`Batches::get`] waited for batches under way, all together.
    pub fn waited(&self) -> Waited {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.waited()
    }

    fn start(&self, mut at: (usize, usize)) -> Result<Prefetch<B::Batch>> {
        let batches = Arc::clone(&self.batches);
        Prefetch::start(usize::MAX, self.ahead, move |_| {
            let (epoch, index) = at;
            at = following(&*batches, at);
            // Only here it is known which batch it is.
            let made = catch_unwind(AssertUnwindSafe(|| batches.get(epoch, index)));
            let what = || format!("batch {index} of epoch {epoch}, both counted from 0");
            made.unwrap_or_else(|payload| Err(panic_error(what(), &*payload)))
        })
    }
}

/// The epoch and index after these.
fn following(batches: &impl Batches, (epoch, index): (usize, usize)) -> (usize, usize) {
    match index + 1 < batches.len(epoch) {
        true => (epoch, index + 1),
        false => (epoch + 1, 0),
    }
}

impl<B> Batches for Ahead<B>
where
    B: Batches + Send + Sync + 'static,
    B::Batch: Send + 'static,
{
    type Batch = B::Batch;

    fn len(&self, epoch: usize) -> usize {
        self.batches.len(epoch)
    }

    fn get(&self, epoch: usize, index: usize) -> Result<B::Batch> {
        // One that is not there would set a thread to work on the next epoch.
        if self.ahead == 0 || index >= self.batches.len(epoch) {
            return self.batches.get(epoch, index);
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.next != (epoch, index) || running.prefetch.is_none() {
            running.stop();
            running.prefetch = Some(self.start((epoch, index))?);
        }
        running.next = following(&*self.batches, (epoch, index));
        match running.prefetch.as_mut().and_then(Iterator::next) {
            Some(batch) => batch,
            None => {
                // It panicked, and said so in an earlier batch.
                running.stop();
                Err(Error::Batch {
                    reason: "the thread that makes batches has ended".into(),
                })
            }
        }
    }
}

impl<T: Send + 'static> Running<T> {
    fn waited(&self) -> Waited {
        let now = self.prefetch.as_ref().map(Prefetch::waited);
        let now = now.unwrap_or_default();
        Waited {
            batches: self.earlier.batches + now.batches,
            first_seconds: self.earlier.first_seconds + now.first_seconds,
            later_seconds: self.earlier.later_seconds + now.later_seconds,
        }
    }

    fn stop(&mut self) {
        self.earlier = self.waited();
        self.prefetch = None;
    }
}
