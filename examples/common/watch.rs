//! What every run has besides its task: a folder, a flag that stops it, and files, pictures and a bar
//! that follow it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use trainers::callbacks::{Curves, JsonLines, ProgressBar, SummaryFile, TensorBoard};
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
    trainer
        .run_folder(folder, settings)
        .stop_flag(stop.clone())
        .callback(JsonLines::new(folder.metrics()))
        .callback(TensorBoard::new(folder.path()))
        .callback(Curves::new(folder.curves(), folder.metrics(), label))
        .callback(summary.version("examples", env!("CARGO_PKG_VERSION")))
        .callback(ProgressBar::new())
}
