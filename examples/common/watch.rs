//! What every run has besides its task: a folder, a flag that stops it, and files, pictures and a bar
//! (lines, where no terminal is) that follow it.

use anyhow::{Context, Result};
use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use trainers::callbacks::{Curves, JsonLines, ProgressBar, StatusLines, SummaryFile, TensorBoard};
use trainers::{Batches, RunFolder, Task, Trainer};

/// A trainer that writes into this folder, with the run's settings as text and its name in pictures.
pub fn watched<T: Task, B: Batches<Batch = T::Batch>>(
    trainer: Trainer<T, B>,
    folder: &RunFolder,
    settings: String,
    label: &str,
    stop: &Arc<AtomicBool>,
) -> Trainer<T, B> {
    let summary = SummaryFile::new(folder.summary());
    let trainer = trainer
        .run_folder(folder, settings)
        .stop_flag(stop.clone())
        .callback(JsonLines::new(folder.metrics()))
        .callback(TensorBoard::new(folder.path()))
        .callback(Curves::new(folder.curves(), folder.metrics(), label))
        .callback(summary.version("examples", env!("CARGO_PKG_VERSION")));
    match stderr().is_terminal() {
        true => trainer.callback(ProgressBar::new()),
        false => trainer.callback(StatusLines::new(Box::new(stderr())).label(label)),
    }
}

/// Where `--audit` asks for it: whether the gradients and Hessian-vector products of the run's loss are
/// its derivatives, before anything is trained.
///
/// # Errors
/// With everything that is wrong, and the variables' names.
pub fn audited<T: Task, B: Batches<Batch = T::Batch>>(
    trainer: &mut Trainer<T, B>,
    wanted: Option<bool>,
) -> Result<()> {
    if wanted.unwrap_or(false) {
        let audit = trainer.audit().context("--audit")?;
        println!("  audit: {audit}");
    }
    Ok(())
}
