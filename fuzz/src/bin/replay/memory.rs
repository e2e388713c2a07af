//! How much memory an input asks for; the process ends where it is too much.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that an input may have at once.
pub const MOST: usize = 1 << 30;
/// The exit status of a process that wanted more.
pub const EXIT: i32 = 3;

static LIVE: AtomicUsize = AtomicUsize::new(0);
/// What was there before the input.
static BEFORE: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// Another input begins.
pub fn begin() {
    let live = LIVE.load(Relaxed);
    BEFORE.store(live, Relaxed);
    LARGEST.store(live, Relaxed);
}

/// The most bytes that the input has had at once.
pub fn largest() -> usize {
    LARGEST.load(Relaxed).saturating_sub(BEFORE.load(Relaxed))
}

/// The system's allocator, with a count.
pub struct Counting;

impl Counting {
    /// Before the system is asked: what is never touched costs nothing there, and counts here.
    fn more(bytes: usize) {
        let live = LIVE.fetch_add(bytes, Relaxed).saturating_add(bytes);
        LARGEST.fetch_max(live, Relaxed);
        if live.saturating_sub(BEFORE.load(Relaxed)) > MOST {
            // Nothing that allocates.
            let text = b"more than 1 GiB of memory\n";
            // SAFETY: a text of this length, and then nothing more.
            unsafe {
                libc::write(2, text.as_ptr().cast(), text.len());
                libc::_exit(EXIT)
            }
        }
    }
}

// SAFETY: every call is the system's, with a count beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::more(layout.size());
        // SAFETY: the caller's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::more(layout.size());
        // SAFETY: the caller's promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there at once.
        Self::more(size);
        // SAFETY: the caller's promises.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        LIVE.fetch_sub(layout.size(), Relaxed);
        moved
    }
}
