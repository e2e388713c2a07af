//! The backward pass that keeps its graph, and the second backward pass.
//!
//! # How, and why it is right
//! candle's `Tensor::backward` computes gradients with ordinary tensor operations, so the gradients
//! are themselves functions of the variables. By default it cuts each incoming gradient off that
//! graph (`detach`), and a second backward pass then silently returns a **wrong number**. The
//! environment variable `CANDLE_GRAD_DO_NOT_DETACH` switches the cutting off; every thread reads it
//! once, at its own first backward pass, and never again.
//!
//! So this module owns two threads. The *keeper* reads the variable while it is set, for a moment,
//! and keeps graphs from then on: it runs every first backward pass. The *finisher* reads it unset
//! and runs every second backward pass: nothing differentiates a third time, and without a graph of
//! its own that pass takes a third of the time and half of the memory. All other threads keep
//! candle's ordinary behaviour, whatever they ran before. Both threads have a large stack, since
//! candle walks and drops graphs recursively.

use crate::error::{Error, Result};
use crate::ops::engine;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread::ThreadId;

const FLAG: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// Holds graphs of about 20,000 operations in a chain. Only what is used of it takes memory.
const STACK_BYTES: usize = 256 << 20;

type Job = Box<dyn FnOnce() + Send>;

struct Worker {
    jobs: Mutex<mpsc::Sender<Job>>,
    thread: ThreadId,
}

impl Worker {
    fn spawn(name: &str) -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let handle = std::thread::Builder::new()
            .name(name.into())
            .stack_size(STACK_BYTES)
            .spawn(move || queue.into_iter().for_each(|job| job()))
            .map_err(|e| worker_error(format!("could not be started: {e}")))?;
        Ok(Self {
            jobs: Mutex::new(jobs),
            thread: handle.thread().id(),
        })
    }

    /// Runs `work` on the worker and waits for it. A panic there becomes an error here, and the
    /// worker lives on.
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        if std::thread::current().id() == self.thread {
            return Ok(work()); // an op's own backward that differentiates again
        }
        let (send, receive) = mpsc::sync_channel(1);
        let job = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            // The receiver waits below; it cannot have gone.
            let _ = send.send(outcome);
        });
        let jobs = self.jobs.lock().unwrap_or_else(|e| e.into_inner());
        jobs.send(job).map_err(|_| worker_error("is gone".into()))?;
        drop(jobs);
        match receive.recv() {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => Err(worker_error(format!("panicked: {}", panic_text(&*panic)))),
            Err(_) => Err(worker_error("is gone".into())),
        }
    }
}

fn worker_error(what: String) -> Error {
    Error::Worker { what }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

struct Workers {
    keeper: Worker,
    finisher: Worker,
    /// A key in the `GradStore`, set by `backward`: proof that the graph was kept. Nothing else in a
    /// store of a cut graph tells it apart.
    mark: Tensor,
    /// The key under which the value of the loss is left in the `GradStore`.
    loss: Tensor,
}

fn workers() -> Result<&'static Workers> {
    static WORKERS: OnceLock<std::result::Result<Workers, String>> = OnceLock::new();
    match WORKERS.get_or_init(|| start().map_err(|e| e.to_string())) {
        Ok(workers) => Ok(workers),
        Err(what) => Err(worker_error(format!("could not start: {what}"))),
    }
}

fn start() -> Result<Workers> {
    let keeper = Worker::spawn("adahessian-first-backward")?;
    let finisher = Worker::spawn("adahessian-second-backward")?;
    let before = std::env::var_os(FLAG);
    set_flag(Some("1".as_ref()));
    let kept = keeper.run(latch);
    set_flag(None);
    let cut = finisher.run(latch);
    set_flag(before.as_deref());
    kept??;
    cut??;
    self_check(&keeper, &finisher)?;
    Ok(Workers {
        keeper,
        finisher,
        mark: Tensor::zeros((), DType::F32, &Device::Cpu)?,
        loss: Tensor::zeros((), DType::F32, &Device::Cpu)?,
    })
}

fn set_flag(value: Option<&std::ffi::OsStr>) {
    // SAFETY: changing the environment is unsafe because C code in another thread may read it at
    // the same moment without Rust's lock. It happens three times in the life of the process, in
    // the initialiser of one static, for a few microseconds, and concerns a variable that only
    // candle reads, through Rust's lock. `init` lets a program choose the moment.
    unsafe {
        match value {
            Some(value) => std::env::set_var(FLAG, value),
            None => std::env::remove_var(FLAG),
        }
    }
}

/// The smallest backward pass: makes this thread read the flag for good.
fn latch() -> candle_core::Result<()> {
    Var::new(1f32, &Device::Cpu)?.sqr()?.backward().map(drop)
}

/// d²/dx² exp(2x) = 4 exp(2x): a cut graph gives half of it or nothing.
fn self_check(keeper: &Worker, finisher: &Worker) -> Result<()> {
    let x = Var::new(0.5f64, &Device::Cpu)?;
    let y = (x.as_tensor() * 2.0)?.exp()?;
    let first = keeper.run(move || y.backward())??;
    let slope = first.get(&x).cloned();
    let second = match slope {
        Some(slope) => finisher.run(move || slope.backward())??.get(&x).cloned(),
        None => None,
    };
    let got = second.map_or(Ok(0.0), |t| t.to_scalar::<f64>())?;
    let expected = 4.0 * 1f64.exp();
    match (got - expected).abs() < 1e-9 * expected {
        true => Ok(()),
        false => Err(Error::GraphCut { expected, got }),
    }
}

/// Starts the library's two threads and checks that second derivatives come out right.
///
/// Calling it is optional, everything else does. A program that starts many threads can call it
/// first in `main`, while no other thread looks at the environment.
///
/// # Errors
/// [`Error::GraphCut`] or [`Error::Worker`] (with the reason in its text) if candle does not behave
/// as this crate needs.
pub fn init() -> Result<()> {
    workers().map(drop)
}

fn check_scalar(loss: &Tensor) -> Result<()> {
    match loss.elem_count() {
        1 => Ok(()),
        _ => Err(Error::NotScalar {
            got: loss.dims().into(),
        }),
    }
}

/// The gradients of a loss, differentiable once more: first order, graph kept.
///
/// Use it like `loss.backward()`. The store also remembers that its graph was kept, so that an
/// optimizer can refuse gradients of which a Hessian would be wrong. Detach what you keep beyond
/// the step: these gradients hold the whole graph. Give those of a graph that is thousands of
/// operations deep to [`release`] when done; `backward_step` does so by itself.
///
/// # Errors
/// [`Error::NotScalar`] for a loss of several elements, candle's errors, and [`Error::Worker`] if a
/// custom op panicked.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    check_scalar(loss)?;
    let workers = workers()?;
    let root = loss.clone();
    let mut grads = workers.keeper.run(move || sweep(&root, vec![]))??;
    grads.insert(&workers.mark, workers.mark.clone());
    grads.insert(&workers.loss, loss.detach());
    Ok(grads)
}

/// A backward pass of its own, as far as fused operations are concerned, with the cotangents of
/// gradients that have a port.
fn sweep(root: &Tensor, ports: Vec<(Tensor, Tensor)>) -> candle_core::Result<GradStore> {
    engine::sweep::begin();
    engine::variables::collecting(ports, || root.backward())
}

/// The gradients of a loss without a graph of their own: cheaper, and all that a first-order
/// optimizer needs. The same as `loss.backward()` on a thread with candle's defaults, but on a
/// large stack.
///
/// # Errors
/// As [`backward`].
pub fn backward_detached(loss: &Tensor) -> Result<GradStore> {
    check_scalar(loss)?;
    let workers = workers()?;
    let root = loss.clone();
    let mut grads = workers.finisher.run(move || sweep(&root, vec![]))??;
    grads.insert(&workers.loss, loss.detach());
    Ok(grads)
}

/// Whether these gradients came from [`backward`], so that they can be differentiated again.
pub fn has_graph(grads: &GradStore) -> bool {
    workers().is_ok_and(|w| grads.get(&w.mark).is_some())
}

/// The value of the loss that these gradients belong to, where this module made them.
pub(crate) fn loss_of(grads: &GradStore) -> Option<Tensor> {
    grads.get(&workers().ok()?.loss).cloned()
}

/// A gradient with its graph.
#[derive(Clone)]
pub(crate) struct Gradient {
    pub tensor: Tensor,
    /// Where a fused operation takes the gradient's cotangent directly.
    pub port: Option<Tensor>,
}

/// The variable's gradient in this store.
pub(crate) fn gradient_of(grads: &GradStore, var: &Var) -> Option<Gradient> {
    let tensor = grads.get(var)?.clone();
    let port = engine::variables::port_of(grads, &tensor);
    Some(Gradient { tensor, port })
}

/// The second backward pass: ∇ Σᵢ ⟨gᵢ, zᵢ⟩ for gradients with a graph and constant vectors.
/// `None` where no gradient comes back.
pub(crate) fn second_backward(
    pairs: Vec<(Gradient, Tensor)>,
    vars: Vec<Var>,
) -> Result<Vec<Option<Tensor>>> {
    workers()?.finisher.run(move || {
        let mut sum: Option<Tensor> = None;
        let mut ports = Vec::new();
        for (gradient, vector) in pairs {
            // Through a port the vector itself is the cotangent; the value 0 of the port in place of
            // the inner product is as good as any.
            let part = match gradient.port {
                Some(port) => {
                    ports.push((port.clone(), vector));
                    port.sum_all()?
                }
                None => (gradient.tensor * vector)?.sum_all()?,
            };
            sum = Some(match sum {
                // Variables of several dtypes: the sum keeps that of the first.
                Some(sum) => (&sum + part.to_dtype(sum.dtype())?)?,
                None => part,
            });
        }
        let Some(sum) = sum else {
            return Ok(vec![None; vars.len()]);
        };
        let grads = sweep(&sum, ports)?;
        Ok(vars
            .iter()
            .map(|v| grads.get(v).map(Tensor::detach))
            .collect())
    })?
}

/// Drops a graph on a large stack: candle drops recursively, and a deep graph (thousands of
/// operations in a chain) would overflow the small stack of an ordinary thread.
pub fn release<T: Send + 'static>(graph: T) {
    if let Ok(workers) = workers() {
        // A failure here only means that the graph is already gone.
        let _ = workers.finisher.run(move || drop(graph));
    }
}
