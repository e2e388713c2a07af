//! A thread that ends the process where an input takes too long.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What an input may take. Most take less than a millisecond; the machine may be busy.
pub const LONGEST: Duration = Duration::from_secs(20);
/// The exit status of a process that took longer.
pub const EXIT: i32 = 4;

/// How often the thread looks. It counts how often it has seen an input, not the time: a process that was
/// stopped and goes on has not been slow.
const LOOK: Duration = Duration::from_millis(200);

/// The number of the input, from 1; 0 between inputs.
static INPUT: AtomicU64 = AtomicU64::new(0);

/// Input `index` begins.
pub fn begin(index: u64) {
    INPUT.store(index + 1, Relaxed);
}

/// It has ended.
pub fn end() {
    INPUT.store(0, Relaxed);
}

/// Starts to watch.
pub fn start() {
    std::thread::spawn(|| {
        let (mut last, mut seen) = (0, 0);
        loop {
            std::thread::sleep(LOOK);
            let input = INPUT.load(Relaxed);
            seen = if input > 0 && input == last {
                seen + 1
            } else {
                0
            };
            last = input;
            if LOOK * seen > LONGEST {
                eprintln!("an input takes more than {} s", LONGEST.as_secs());
                // SAFETY: ends the process without running what waits for the other threads.
                unsafe { libc::_exit(EXIT) }
            }
        }
    });
}
