//! A thread for backward passes, with helpers of its own.
//!
//! The caller waits while the worker works. Where the caller is itself a thread of rayon's pool, and
//! the loops of the pass ran in that pool, a pool whose threads all wait would never run them. So each
//! worker is the first thread of a pool of its own: its loops, candle's and ours, run there, and a pass
//! needs nobody outside. A waiting caller sleeps; it does not take up other work of its pool meanwhile,
//! which might want a lock that it holds.
//!
//! Before each pass on a CUDA device its context is made current there, and the pass is put in order with
//! what the caller does on the device before and after it, see [`super::context`].

use super::context::Context;
use crate::error::{Error, Result};
use candle_core::Device;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, mpsc};

/// Holds graphs of about 20,000 operations in a chain. Only what is used of it takes memory.
const STACK_BYTES: usize = 256 << 20;

/// What a worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// First passes, with their graph.
    Keeper,
    /// Passes without a graph of their own.
    Finisher,
}

impl Role {
    fn thread_name(self) -> &'static str {
        match self {
            Role::Keeper => "adahessian-first-backward",
            Role::Finisher => "adahessian-second-backward",
        }
    }
}

/// What a thread is to the workers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    /// The worker itself.
    Worker(Role),
    /// A helper in a worker's loops.
    Helper,
}

thread_local! {
    static PLACE: Cell<Place> = const { Cell::new(Place::Outside) };
}

type Job = Box<dyn FnOnce() + Send>;

pub(super) struct Worker {
    jobs: Mutex<mpsc::Sender<Job>>,
    role: Role,
}

impl Worker {
    pub fn spawn(role: Role) -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name(role.thread_name().into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                PLACE.set(Place::Worker(role));
                let pool = own_pool(role);
                let works = pool.as_ref().map(drop).map_err(ToString::to_string);
                // The receiver waits below; it cannot have gone.
                let _ = ready.send(works);
                if pool.is_ok() {
                    queue.into_iter().for_each(|job| job());
                }
            })
            .map_err(|e| worker_error(format!("could not be started: {e}")))?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self {
                jobs: Mutex::new(jobs),
                role,
            }),
            Ok(Err(what)) => Err(worker_error(format!("has no threads of its own: {what}"))),
            Err(_) => Err(worker_error("is gone".into())),
        }
    }

    /// Runs `work`, which uses this device, on the worker and waits for it. A panic there becomes an
    /// error here, and the worker lives on.
    ///
    /// A pass inside of an operation's own backward runs where it is if that gives the same numbers.
    /// It never waits for another worker, which may wait for this one.
    pub fn run<T: Send + 'static>(
        &self,
        device: &Device,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let context = Context::of(device);
        match (PLACE.get(), self.role) {
            (Place::Outside, _) => {}
            // A pass without a graph may keep one: it only costs more.
            (Place::Worker(Role::Keeper), _) | (_, Role::Finisher) => {
                context.bind()?;
                return Ok(work());
            }
            (Place::Worker(Role::Finisher) | Place::Helper, Role::Keeper) => return Err(nested()),
        }
        let (send, receive) = mpsc::sync_channel(1);
        let (there, before) = (context.clone(), context.mark()?);
        let job = Box::new(move || {
            let pass = || -> Result<T> {
                there.bind_pool()?;
                there.after(&before)?;
                Ok(work())
            };
            let outcome = catch_unwind(AssertUnwindSafe(pass));
            let done = there.mark();
            // The receiver waits below; it cannot have gone.
            let _ = send.send((outcome, done));
        });
        let jobs = self.jobs.lock().unwrap_or_else(|e| e.into_inner());
        jobs.send(job).map_err(|_| worker_error("is gone".into()))?;
        drop(jobs);
        let gone = |_| worker_error("is gone".into());
        let (outcome, done) = receive.recv().map_err(gone)?;
        let panicked =
            |panic: Box<dyn Any + Send>| worker_error(format!("panicked: {}", panic_text(&*panic)));
        // After a panic, too: what the worker still reads must not be freed before.
        let in_order = done.and_then(|done| context.after(&done));
        let value = outcome.map_err(panicked)??;
        in_order?;
        Ok(value)
    }
}

/// Makes this thread the first of a pool as large as the program's.
fn own_pool(role: Role) -> std::result::Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(rayon::current_num_threads())
        .thread_name(move |index| format!("{}-{index}", role.thread_name()))
        .start_handler(|_| {
            if PLACE.get() == Place::Outside {
                PLACE.set(Place::Helper);
            }
        })
        .use_current_thread()
        .build()
}

pub(super) fn worker_error(what: String) -> Error {
    Error::Worker { what }
}

fn nested() -> Error {
    Error::Engine {
        what: "an operation's backward asked for gradients with a graph inside of a pass that keeps none, or from a \
               parallel loop: they would be cut without a word. Use backward_detached there"
            .into(),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
