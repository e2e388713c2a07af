//! Which backward pass is running: stamps that keep two of them apart.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static CURRENT: Cell<u64> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
}

/// Marks the beginning of a backward pass on this thread. Without it, all passes of a thread share
/// one stamp, which is enough unless one of them fails half way.
pub(crate) fn begin() {
    CURRENT.set(NEXT.fetch_add(1, Ordering::Relaxed));
}

/// The stamp of the backward pass on this thread.
pub(super) fn current() -> u64 {
    CURRENT.get()
}
