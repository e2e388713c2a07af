//! The start of a program: threads, memory, messages, Ctrl-C.

use crate::say;
use anyhow::{Context, Result, bail};
use candle_core::Device;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// Says how long the steps waited for their batches.
pub fn waited(waited: &datasets::Waited) {
    say!(
        "  waited for batches: {:.3} s for the first, {:.3} s for the {} others",
        waited.first_seconds,
        waited.later_seconds,
        waited.batches.saturating_sub(1)
    );
}

/// Says on a terminal what is being done, and since when, for as long as `work` takes: a text may take minutes to prepare.
pub fn busy<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let bar = ProgressBar::new_spinner().with_message(what.to_string());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let outcome = work();
    bar.finish_and_clear();
    outcome
}

/// A line on standard output. Whoever reads it may have gone (`| head`), or its disk be full: no run ends because of that.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// A line on standard error, whose reader may have gone as well.
#[macro_export]
macro_rules! say_error {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

/// The words of the command line; of a path that is no Unicode what of it is.
fn words() -> impl Iterator<Item = String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned())
}

/// How this program was called.
pub fn command_line() -> String {
    let words: Vec<String> = words().map(|word| quoted(&word)).collect();
    words.join(" ")
}

/// A word as a shell reads it.
pub fn quoted(word: &str) -> String {
    let plain =
        |c: char| c.is_alphanumeric() || "_./:=,+@%-".contains(c) || (cfg!(windows) && c == '\\');
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// This program as it was called, with its subcommand where it has one: what is printed can be typed.
pub fn command_name() -> String {
    with_subcommand(&quoted(&words().next().unwrap_or_default()))
}

/// The same without where it lies, which is the caller's own.
pub fn short_name() -> String {
    let program = words().next().unwrap_or_default();
    let name = Path::new(&program).file_stem().unwrap_or_default();
    with_subcommand(&name.to_string_lossy())
}

fn with_subcommand(program: &str) -> String {
    match words().nth(1).filter(|first| !first.starts_with('-')) {
        Some(subcommand) => format!("{program} {subcommand}"),
        None => program.into(),
    }
}

/// The present time, for people.
pub fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    date(since.map(|since| since.as_secs()).unwrap_or_default())
}

/// `2026-11-26 04:26 UTC` of seconds since 1970, by the calendar's rules of 400 years (Hinnant 2013).
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + later;
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
        rest / 3600,
        rest / 60 % 60
    )
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

/// The number of a CUDA device; none for the CPU.
///
/// # Errors
/// For a name that is none.
pub fn ordinal(name: &str) -> Result<Option<usize>> {
    match name.split_once(':') {
        None if name == "cpu" => Ok(None),
        None if name == "cuda" => Ok(Some(0)),
        Some(("cuda", n)) => Ok(Some(n.parse().with_context(|| format!("--device {name}"))?)),
        _ => bail!("--device {name}: expected cpu, cuda or cuda:N"),
    }
}

/// `cpu`, or `cuda` and `cuda:N`.
///
/// # Errors
/// If there is no such device, or the program was built without CUDA.
pub fn device(name: &str) -> Result<Device> {
    let Some(ordinal) = ordinal(name)? else {
        return Ok(Device::Cpu);
    };
    if !candle_core::utils::cuda_is_available() {
        bail!("no CUDA device: this program was built without it; build with --features cuda");
    }
    let device = Device::new_cuda(ordinal);
    let device = device.map_err(|e| anyhow::anyhow!("no CUDA device {ordinal}: {e}"))?;
    prepare(&device);
    Ok(device)
}

/// Lets a CUDA device keep freed memory, and spares it two events for every tensor.
#[cfg(feature = "cuda")]
fn prepare(device: &Device) {
    if let Err(error) = adahessian::cuda::keep_memory(device) {
        tracing::warn!("{error}");
    }
    if let Device::Cuda(device) = device {
        // SAFETY: the events order uses of a tensor on several streams that were made with `new_stream`. These
        // programs make none: their threads have streams of their own, for which candle has no events either, and
        // what goes from one to another is put in order by the passes and by the thread that makes batches.
        unsafe { device.disable_event_tracking() };
    }
}

/// Without CUDA there is nothing to prepare.
#[cfg(not(feature = "cuda"))]
fn prepare(_: &Device) {}

/// Signals within this time of the first one are the same wish: `timeout` and batch systems send a process its own and
/// its group's.
const ONE_WISH: Duration = Duration::from_secs(1);

/// A flag that Ctrl-C or a termination signal sets; a second one, a second later or more, ends the process at once. What
/// `nohup` has the process ignore stays ignored.
///
/// # Errors
/// If the handler cannot be installed.
pub fn stop_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = flag.clone();
    let outlives_terminal = ignore_hangup();
    let mut first: Option<Instant> = None;
    ctrlc::set_handler(move || {
        handler.store(true, Ordering::SeqCst);
        match first {
            None => {
                say_error!(
                    "stopping after this step with a checkpoint; once more, a second later, to stop at once"
                );
                // Behind the message, which may have to wait for its reader.
                first = Some(Instant::now());
            }
            Some(first) if first.elapsed() < ONE_WISH => {}
            Some(_) => std::process::exit(130),
        }
    })?;
    if outlives_terminal {
        ignore_hangup();
    }
    Ok(flag)
}

/// Ignores the end of the terminal; whether it was ignored before.
#[cfg(unix)]
fn ignore_hangup() -> bool {
    // SAFETY: no code of ours takes the handler's place; a signal may be ignored at any time.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) == libc::SIG_IGN }
}

/// There is no such signal.
#[cfg(not(unix))]
fn ignore_hangup() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::{date, quoted};

    #[test]
    fn words_are_quoted_where_a_shell_reads_them_otherwise() {
        for plain in ["--out", "runs/a-b.c", "lr=1e-3,1e-2", "squeezebert/x@main"] {
            assert_eq!(quoted(plain), plain);
        }
        assert_eq!(quoted("my runs/x"), "'my runs/x'");
        assert_eq!(
            quoted("betas=0.9,0.99;0.9,0.98"),
            "'betas=0.9,0.99;0.9,0.98'"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_709_251_199), "2024-02-29 23:59 UTC");
        assert_eq!(date(1_795_667_160), "2026-11-26 04:26 UTC");
    }
}
