//! One file over the network: how much was announced, a progress bar, and an end to waiting.

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError};
use indicatif::{ProgressBar, ProgressStyle};

/// Why there is no file.
pub(super) enum Failure {
    /// The client's reason.
    Refused(ApiError),
    /// Nothing came for as long as was to be waited.
    Silent,
}

/// What is known of a transfer while it goes on.
struct State {
    announced: Option<u64>,
    /// When something came, or was sent.
    heard: Instant,
}

/// The file's path, and its length as the server announced it.
///
/// The client reads without an end to its patience. So it reads on a thread of its own, which stays behind if the server
/// is silent for `patience`, and ends when the connection does.
pub(super) fn download(
    builder: ApiBuilder,
    repo: hf_hub::Repo,
    file: &str,
    bar: Option<ProgressBar>,
    patience: Duration,
) -> Result<(PathBuf, Option<u64>), Failure> {
    let state = Arc::new(Mutex::new(State {
        announced: None,
        heard: Instant::now(),
    }));
    let (sender, receiver) = channel();
    let progress = Download {
        state: Arc::clone(&state),
        bar: bar.clone(),
    };
    let file = file.to_string();
    std::thread::spawn(move || {
        let made = builder.build();
        let path = made.and_then(|api| api.repo(repo).download_with_progress(&file, progress));
        // Nobody is there any more who waits, or somebody is.
        let _ = sender.send(path);
    });
    let read = || state.lock().unwrap_or_else(|e| e.into_inner());
    loop {
        let silence = read().heard.elapsed();
        match receiver.recv_timeout(patience.saturating_sub(silence)) {
            Ok(Ok(path)) => return Ok((path, read().announced)),
            Ok(Err(error)) => return Err(Failure::Refused(error)),
            Err(RecvTimeoutError::Timeout) if read().heard.elapsed() < patience => {}
            // The thread sends whatever comes, unless the client panicked.
            Err(RecvTimeoutError::Disconnected) => {
                let ended = std::io::Error::other("the client ended without a result");
                return Err(Failure::Refused(ended.into()));
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
                return Err(Failure::Silent);
            }
        }
    }
}

/// Notes what comes, and draws the bar.
struct Download {
    state: Arc<Mutex<State>>,
    bar: Option<ProgressBar>,
}

impl Download {
    fn heard(&self, announced: Option<u64>) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        state.heard = Instant::now();
        state.announced = announced.or(state.announced);
    }
}

impl Progress for Download {
    /// Called twice a file: for the file, and for each (resumed) transfer.
    fn init(&mut self, size: usize, filename: &str) {
        self.heard(Some(size as u64));
        if let Some(bar) = &self.bar {
            bar.set_length(size as u64);
            bar.set_position(0);
            bar.set_message(filename.to_string());
            if let Ok(style) = ProgressStyle::with_template(
                "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec}",
            ) {
                bar.set_style(style);
            }
        }
    }

    fn update(&mut self, size: usize) {
        self.heard(None);
        if let Some(bar) = &self.bar {
            bar.inc(size as u64);
        }
    }

    fn finish(&mut self) {
        self.heard(None);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
