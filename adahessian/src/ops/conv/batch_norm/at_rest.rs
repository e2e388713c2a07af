//! Forward passes that are no step of the training.

use std::cell::Cell;

thread_local! {
    static AT_REST: Cell<bool> = const { Cell::new(false) };
}

/// Whether running statistics stay as they are on this thread now.
pub(super) fn are() -> bool {
    AT_REST.get()
}

/// Puts back what was before, also when the work panics.
struct Before(bool);

impl Drop for Before {
    fn drop(&mut self) {
        AT_REST.set(self.0);
    }
}

/// Does `work`, in which batch normalisations in training leave their running statistics alone.
///
/// For every forward pass of a step but one, and for those that are no step at all: a second loss on a
/// part of the batch for the curvature, an evaluation of the loss beside the training, the many losses
/// of [`check::audit`](crate::check::audit()). It counts on the calling thread, for
/// [`conv_batch_norm`](super::conv_batch_norm()); candle's own `BatchNorm` knows nothing of it.
pub fn statistics_at_rest<R>(work: impl FnOnce() -> R) -> R {
    let _before = Before(AT_REST.replace(true));
    work()
}
