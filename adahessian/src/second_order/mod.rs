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
//! candle walks and drops graphs recursively, and helpers of their own, so that they depend on nobody
//! who waits for them.
//!
//! # What is refused
//! A gradient that was changed after [`backward`] made it, where it has lost its graph (a sum made by
//! `GradStore::extend` has). A second pass after a variable of the loss was changed since the first one, by an optimizer
//! of this crate or through [`crate::NamedVars::assign`]: it would mix old values with new ones.
//! And a first pass after a variable that fused operations took was changed since. Not seen: changes that other code makes
//! through `Var::set`, and one between the forward pass and the first backward pass where candle's own operations alone
//! took the variable, which its own gradients mix up as well: a loss is differentiated where it was computed.

mod context;
mod failure;
pub(crate) mod versions;
mod worker;

use crate::engine;
use crate::engine::vector::Vector;
use crate::error::{Error, Result};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, TensorId, Var};
use context::Context;
use failure::failure;
use std::sync::OnceLock;
use worker::{Role, Worker, worker_error};

const FLAG: &str = "CANDLE_GRAD_DO_NOT_DETACH";

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
    let keeper = Worker::spawn(Role::Keeper)?;
    let finisher = Worker::spawn(Role::Finisher)?;
    let before = std::env::var_os(FLAG);
    set_flag(Some("1".as_ref()));
    let kept = keeper.run(&Device::Cpu, latch);
    set_flag(None);
    let cut = finisher.run(&Device::Cpu, latch);
    set_flag(before.as_deref());
    kept??;
    cut??;
    self_check(&keeper, &finisher)?;
    let key = || Tensor::zeros((), DType::F32, &Device::Cpu);
    Ok(Workers {
        keeper,
        finisher,
        mark: key()?,
        loss: key()?,
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
    let cpu = &Device::Cpu;
    let first = keeper.run(cpu, move || y.backward())??;
    let slope = first.get(&x).cloned();
    let second = match slope {
        Some(slope) => finisher
            .run(cpu, move || slope.backward())??
            .get(&x)
            .cloned(),
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
/// A custom operation's `bwd` runs on this crate's own thread, and may call this crate there. What it must not do is
/// start a thread that does so and wait for it: passes run one at a time, that thread would wait for this pass, and both
/// for ever.
///
/// # Errors
/// [`Error::NotScalar`] for a loss of several elements, candle's errors, and [`Error::Worker`] if a
/// custom op panicked.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    check_scalar(loss)?;
    let workers = workers()?;
    let root = loss.clone();
    let time = versions::now();
    let pass = move || swept(&root);
    let mut grads = workers.keeper.run(loss.device(), pass)??;
    mark_all(&mut grads, &workers.mark);
    grads.insert(&workers.loss, loss.detach());
    versions::stamp(&mut grads, time)?;
    Ok(grads)
}

/// Marks the store, and each gradient in it: what is put in its place later has no mark.
fn mark_all(grads: &mut GradStore, mark: &Tensor) {
    let gradients: Vec<TensorId> = grads
        .get_ids()
        .filter_map(|id| grads.get_id(*id))
        .map(Tensor::id)
        .collect();
    for gradient in gradients {
        if grads.get_id(gradient).is_none() {
            grads.insert_id(gradient, mark.clone());
        }
    }
    grads.insert(mark, mark.clone());
}

/// A backward pass of its own, as far as fused operations are concerned, with the cotangents of
/// gradients that have a port.
fn sweep(root: &Tensor, cotangents: Vec<(TensorId, Vector)>) -> Result<GradStore> {
    let _pass = engine::sweep::Pass::begin();
    engine::variables::collecting(cotangents, || root.backward()).map_err(failure)
}

/// A backward pass from a loss whose gradients are there for the caller, wherever they are.
///
/// The caller's work is put in order with that on the loss's device. A loss that was moved (to the CPU, say) tells
/// nothing of the others': there the pass waits, and who frees the graph gets to know them.
fn swept(loss: &Tensor) -> Result<GradStore> {
    let grads = sweep(&engine::exits::short(loss)?, vec![])?;
    let mut others: Vec<&Device> = Vec::new();
    for gradient in grads.get_ids().filter_map(|id| grads.get_id(*id)) {
        let device = gradient.device();
        let known = |other: &Device| device.same_device(other);
        if device.is_cuda() && !known(loss.device()) && !others.iter().any(|other| known(other)) {
            Context::of(device);
            device.synchronize()?;
            others.push(device);
        }
    }
    Ok(grads)
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
    let pass = move || swept(&root);
    let mut grads = workers.finisher.run(loss.device(), pass)??;
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
///
/// # Errors
/// [`Error::CutGradient`] if it is not the one that [`backward`] put there and has no graph.
pub(crate) fn gradient_of(grads: &GradStore, name: &str, var: &Var) -> Result<Option<Gradient>> {
    let Some(tensor) = grads.get(var).cloned() else {
        return Ok(None);
    };
    let port = match grads.get(&tensor) {
        Some(found) if found.id() == workers()?.mark.id() => None,
        Some(port) => Some(port.clone()),
        // A function of gradients that still has its graph can be differentiated.
        None if tensor.track_op() => None,
        None => return Err(Error::CutGradient { name: name.into() }),
    };
    Ok(Some(Gradient { tensor, port }))
}

/// The second backward pass: ∇ Σᵢ ⟨gᵢ, zᵢ⟩ for gradients with a graph and constant vectors.
/// `None` where no gradient comes back.
pub(crate) fn second_backward(
    pairs: Vec<(Gradient, Vector)>,
    vars: Vec<Var>,
) -> Result<Vec<Option<Tensor>>> {
    // Ports are on the CPU wherever there are some, so that the first of these tells.
    let mut devices = pairs.iter().map(|(gradient, _)| gradient.tensor.device());
    let device = devices.find(|d| d.is_cuda()).cloned();
    let device = device.unwrap_or(Device::Cpu);
    workers()?.finisher.run(&device, move || {
        let (mut parts, mut ports, mut cotangents) = (Vec::new(), Ports::default(), Vec::new());
        for (gradient, vector) in pairs {
            match gradient.port {
                // The vector itself is the cotangent.
                Some(port) => {
                    ports.push(port);
                    cotangents.push((gradient.tensor.id(), vector));
                }
                None => parts.push((gradient.tensor * vector.tensor()?)?.sum_all()?),
            }
        }
        parts.extend(ports.joined()?);
        let mut sum: Option<Tensor> = None;
        for part in parts {
            sum = Some(match sum {
                // Variables of several dtypes, or on several devices: the sum is as the first.
                Some(sum) => {
                    let part = part.to_device(sum.device())?;
                    (&sum + part.to_dtype(sum.dtype())?)?
                }
                None => part,
            });
        }
        let Some(sum) = sum else {
            return Ok(vec![None; vars.len()]);
        };
        let grads = sweep(&sum, cotangents)?;
        Ok(vars
            .iter()
            .map(|v| grads.get(v).map(Tensor::detach))
            .collect())
    })?
}

/// Ports of gradients, each once, by device.
#[derive(Default)]
struct Ports(Vec<Vec<Tensor>>);

impl Ports {
    fn push(&mut self, port: Tensor) {
        if self.0.iter().flatten().any(|other| other.id() == port.id()) {
            return;
        }
        let beside = |ports: &Vec<Tensor>| ports[0].device().same_device(port.device());
        match self.0.iter().position(beside) {
            Some(place) => self.0[place].push(port),
            None => self.0.push(vec![port]),
        }
    }

    /// A number for each device that is a function of its ports. It is 0, which is as good as their inner products.
    fn joined(self) -> candle_core::Result<Vec<Tensor>> {
        let joined = self.0.into_iter().map(engine::token::joined);
        let joined = joined.collect::<candle_core::Result<Vec<_>>>()?;
        joined.iter().flatten().map(Tensor::sum_all).collect()
    }
}

/// [`release`] for gradients, which tell what device their graph lies on.
pub(crate) fn release_gradients(grads: GradStore) {
    let device = {
        let mut all = grads.get_ids().filter_map(|id| grads.get_id(*id));
        let on_gpu = all.find(|gradient| gradient.device().is_cuda());
        on_gpu.map_or(Device::Cpu, |gradient| gradient.device().clone())
    };
    drop_on(&device, grads);
}

fn drop_on<T: Send + 'static>(device: &Device, graph: T) {
    if let Ok(workers) = workers() {
        // A failure here only means that the graph is already gone.
        let _ = workers.finisher.run(device, move || drop(graph));
    }
}

/// Drops a graph on a large stack: candle drops recursively, and a deep graph (thousands of
/// operations in a chain) would overflow the small stack of an ordinary thread.
pub fn release<T: Send + 'static>(graph: T) {
    // Its device is not known: the context of the last one that was used is current there.
    drop_on(&Device::Cpu, graph);
}
