//! A progress bar, and an end to waiting.

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::request::{Failure, Request, Watch};

/// The file's path.
///
/// A read has no end to its patience. So it happens on a thread of its own, which stays behind if the server
/// is silent for `patience`, and ends when the connection does.
pub(super) fn download(
    request: Request,
    bar: Option<ProgressBar>,
    patience: Duration,
) -> Result<PathBuf, Failure> {
    let heard = Arc::new(Mutex::new(Instant::now()));
    let (sender, receiver) = channel();
    if let Some(bar) = &bar {
        show(bar, &request.file);
    }
    let mut progress = Progress {
        heard: Arc::clone(&heard),
        bar: bar.clone(),
    };
    std::thread::spawn(move || {
        // Nobody is there any more who waits, or somebody is.
        let _ = sender.send(request.fetch(&mut progress));
    });
    let silence = || heard.lock().unwrap_or_else(|e| e.into_inner()).elapsed();
    let fetched = loop {
        match receiver.recv_timeout(patience.saturating_sub(silence())) {
            Ok(fetched) => break fetched,
            Err(RecvTimeoutError::Timeout) if silence() < patience => {}
            Err(RecvTimeoutError::Timeout) => break Err(Failure::Silent),
            // The thread sends whatever comes, unless something panicked.
            Err(RecvTimeoutError::Disconnected) => {
                let ended = std::io::Error::other("the download ended without a result");
                break Err(Failure::Io(ended));
            }
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    fetched
}

fn show(bar: &ProgressBar, file: &str) {
    bar.set_message(file.to_string());
    let style = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
}

/// Notes what comes, and draws the bar.
struct Progress {
    /// When something came, or was sent.
    heard: Arc<Mutex<Instant>>,
    bar: Option<ProgressBar>,
}

impl Watch for Progress {
    fn at(&mut self, bytes: u64, of: u64) {
        self.heard();
        if let Some(bar) = &self.bar {
            bar.set_length(of);
            bar.set_position(bytes);
        }
    }

    fn heard(&mut self) {
        *self.heard.lock().unwrap_or_else(|e| e.into_inner()) = Instant::now();
    }
}
