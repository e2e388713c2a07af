//! The start of a program: threads, memory, messages, Ctrl-C.

use anyhow::{Context, Result, bail};
use candle_core::Device;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Prepares the process. Call it first in `main`, before any other thread exists.
///
/// # Errors
/// If candle does not behave as second derivatives need.
pub fn start(threads: Option<usize>) -> Result<()> {
    if let Some(threads) = threads {
        // SAFETY: this is the first statement of `main`, so no other thread reads the environment.
        // candle and rayon take the number of threads from this variable and from nowhere else.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    }
    keep_memory();
    candle_core::utils::init_global_threadpool();
    adahessian::init()?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| "warn".into());
    let messages = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false);
    // A second start in the same process keeps the first one's messages.
    let _ = messages.with_writer(std::io::stderr).try_init();
    Ok(())
}

/// Tells glibc to keep freed memory and to serve large blocks from it. By default every tensor
/// above 128 KiB is mapped anew and page-faults from its first byte to its last, which takes 30 %
/// of a training step.
fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets parameters of the allocator; values it does not like are ignored.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
        // One arena: the others end at 64 MiB, and the backward passes run on threads of their own.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives freed memory back and starts the peak anew, so that the next run's peak is its own. Does
/// nothing where the system does not offer it.
pub fn reset_peak_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: malloc_trim may be called at any time.
        unsafe { libc::malloc_trim(0) };
        // A kernel without this file leaves the peak as it is.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
}

/// `cpu`, or `cuda` and `cuda:N`.
///
/// # Errors
/// If there is no such device, or the program was built without CUDA.
pub fn device(name: &str) -> Result<Device> {
    let ordinal = match name.split_once(':') {
        None if name == "cpu" => return Ok(Device::Cpu),
        None if name == "cuda" => 0,
        Some(("cuda", n)) => n.parse().with_context(|| format!("--device {name}"))?,
        _ => bail!("--device {name}: expected cpu, cuda or cuda:N"),
    };
    if !candle_core::utils::cuda_is_available() {
        bail!("no CUDA device: this program was built without it; build with --features cuda");
    }
    Device::new_cuda(ordinal).map_err(|e| anyhow::anyhow!("no CUDA device {ordinal}: {e}"))
}

/// A flag that Ctrl-C or a termination signal sets; a second signal ends the process at once.
///
/// # Errors
/// If the handler cannot be installed.
pub fn stop_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = flag.clone();
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step with a checkpoint; once more to stop at once");
    })?;
    Ok(flag)
}
