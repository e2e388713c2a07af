//! The border to crates that panic on some malformed files: here such a panic is an error.
//!
//! tokenizers and parquet index and unwrap what a file says; a download that was cut off must not end
//! the program, nor print a backtrace into it. A panic runs the process's panic hook before it can be
//! caught, and hooks exist only for the whole process. So the first guarded call wraps the hook that is
//! there: the wrapper looks at a flag of its own thread and passes on every panic outside of guarded
//! calls. (A program that sets a hook later puts it in the wrapper's place: then guarded panics reach
//! that hook, and are errors all the same.) What unwinds cannot hurt: it is either what the foreign crate
//! was making, which is dropped, or a value that is only read. With `panic = "abort"` nothing can be
//! caught, so no profile of this workspace has it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is within a guarded call.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Puts the flag back, however the call ends.
struct Flag(bool);

impl Drop for Flag {
    fn drop(&mut self) {
        GUARDED.set(self.0);
    }
}

/// Calls into another crate; a panic's message if it panics. On this thread: what it does on others is
/// not silenced.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    wrap_the_hook();
    let _flag = Flag(GUARDED.replace(true));
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        format!("the decoder panicked: {}", text.unwrap_or("no reason"))
    })
}

fn wrap_the_hook() {
    static ONCE: Once = Once::new();
    // While a thread unwinds its hook cannot be taken.
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(wrap);
}

fn wrap() {
    let program = take_hook();
    set_hook(Box::new(move |info| {
        if !GUARDED.get() {
            program(info);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static SEEN: AtomicUsize = AtomicUsize::new(0);

    /// One test: a process has one hook. Other tests may have wrapped an earlier one.
    #[test]
    fn a_guarded_panic_is_a_message_and_any_other_reaches_the_hook() {
        set_hook(Box::new(|_| {
            SEEN.fetch_add(1, Ordering::Relaxed);
        }));
        wrap();
        assert_eq!(guarded(|| 1), Ok(1));
        let message = guarded(|| -> u32 { panic!("at {}", 7) });
        assert_eq!(message, Err("the decoder panicked: at 7".to_string()));
        let nested = guarded(|| {
            assert!(guarded(|| -> u32 { panic!("inside") }).is_err());
            panic!("outside")
        });
        assert!(matches!(nested, Err::<(), _>(text) if text.contains("outside")));
        assert_eq!(SEEN.load(Ordering::Relaxed), 0);
        assert!(catch_unwind(|| panic!("ours")).is_err());
        let thread = std::thread::spawn(|| panic!("another thread's"));
        assert!(thread.join().is_err());
        assert_eq!(SEEN.load(Ordering::Relaxed), 2);
    }
}
