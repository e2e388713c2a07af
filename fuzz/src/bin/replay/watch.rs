//! A thread that ends the process where an input takes too long.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What an input may take. Most take less than a millisecond; the machine may be busy.
pub const LONGEST: Duration = Duration::from_secs(20);
/// The exit status of a process that took longer.
pub const EXIT: i32 = 4;

static ZERO: LazyLock<Instant> = LazyLock::new(Instant::now);
/// When the input began, in milliseconds from 1 on; 0 between inputs.
static BEGUN: AtomicU64 = AtomicU64::new(0);

fn now() -> u64 {
    1 + ZERO.elapsed().as_millis() as u64
}

/// Another input begins.
pub fn begin() {
    BEGUN.store(now(), Relaxed);
}

/// It has ended.
pub fn end() {
    BEGUN.store(0, Relaxed);
}

/// Starts to watch.
pub fn start() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let begun = BEGUN.load(Relaxed);
            if begun > 0 && now().saturating_sub(begun) > LONGEST.as_millis() as u64 {
                eprintln!("an input takes more than {} s", LONGEST.as_secs());
                // SAFETY: ends the process without running what waits for the other threads.
                unsafe { libc::_exit(EXIT) }
            }
        }
    });
}
