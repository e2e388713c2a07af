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
/// candle's own operations know nothing of it and keep their graph wherever a variable goes into them. It holds for this
/// thread, and for handles that were made before, too; a loss that is computed in it has no gradient, which a step
/// refuses as a variable that is not reached.
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
    /// Restores what was, whatever happens.
    struct Before(bool);

    impl Drop for Before {
        fn drop(&mut self) {
            KEPT.set(self.0);
        }
    }

    let _before = Before(KEPT.replace(false));
    compute()
}
