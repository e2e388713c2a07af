//! Whether what is computed is kept for a backward pass.

use std::cell::Cell;

thread_local! {
    static KEPT: Cell<bool> = const { Cell::new(true) };
}

/// Whether this thread keeps graphs.
pub(super) fn is_kept() -> bool {
    KEPT.get()
}

/// Runs `compute` without a graph: what enters the fused operations there is a constant to them, so that nothing is
/// kept for a backward pass, and memory is used again as soon as a value is read. For evaluations; what PyTorch calls
/// `no_grad`. The numbers are the same.
///
/// It holds for this thread, and for handles that were made before, too; [`with_graph`] keeps graphs again for a part of
/// it. candle's own operations know nothing of it and keep theirs wherever a variable goes into them. A loss that is
/// computed in it has no gradient, which a step refuses as variables that are not reached.
///
/// ```
/// use adahessian::ops::{Activation, linear};
/// use adahessian::without_graph;
/// use candle_core::{DType, Device, Tensor, Var};
///
/// let weight = Var::ones((5, 3), DType::F32, &Device::Cpu)?;
/// let x = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?;
/// let y = || linear(&x, &weight, None, 1, Activation::Gelu);
/// assert!(y()?.track_op());
/// assert!(!without_graph(y)?.track_op());
/// # Ok::<(), adahessian::Error>(())
/// ```
pub fn without_graph<R>(compute: impl FnOnce() -> R) -> R {
    keeping(false, compute)
}

/// Runs `compute` with graphs, in [`without_graph`], too: for a model that differentiates in its own forward pass, which an
/// evaluation runs without. What PyTorch calls `enable_grad`.
///
/// ```
/// use adahessian::ops::{Activation, activation};
/// use adahessian::{backward_detached, with_graph, without_graph};
/// use candle_core::{Device, Var};
///
/// // The slope of a function, as an output.
/// let x = Var::new(&[0.5f32], &Device::Cpu)?;
/// let slope = || {
///     let y = activation(x.as_tensor(), Activation::Tanh)?.sum_all()?;
///     Ok::<_, adahessian::Error>(backward_detached(&y)?.get(&x).cloned())
/// };
/// assert!(without_graph(slope)?.is_none());
/// let found = without_graph(|| with_graph(slope))?.expect("a slope").to_vec1::<f32>()?;
/// assert!((found[0] - (1.0 - 0.5f32.tanh().powi(2))).abs() < 1e-6);
/// # Ok::<(), adahessian::Error>(())
/// ```
pub fn with_graph<R>(compute: impl FnOnce() -> R) -> R {
    keeping(true, compute)
}

fn keeping<R>(keep: bool, compute: impl FnOnce() -> R) -> R {
    /// Restores what was, whatever happens.
    struct Before(bool);

    impl Drop for Before {
        fn drop(&mut self) {
            KEPT.set(self.0);
        }
    }

    let _before = Before(KEPT.replace(keep));
    compute()
}
