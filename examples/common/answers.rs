//! What the programs share that ask a trained model: `predict` and `classify`.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use trainers::disk::write_whole;

/// Refuses a file that is there already: before the model is read, and not after it has answered.
///
/// # Errors
/// If it is there.
pub fn expect_new(out: Option<&Path>) -> Result<()> {
    match out.filter(|out| out.exists()) {
        Some(out) => bail!(
            "{}: is there already: remove it, or choose another --out",
            out.display()
        ),
        None => Ok(()),
    }
}

/// The folder of a run's model, if it is a run's: with `best` that of the best evaluation, where that is another than the
/// last one.
pub fn model_of_run(run: &Path, best: bool) -> Option<PathBuf> {
    let inside = [best.then_some("model-best"), Some("model")];
    let mut inside = inside.into_iter().flatten().map(|name| run.join(name));
    inside.find(|folder| folder.join("config.json").is_file())
}

/// Refuses logits that say nothing.
///
/// # Errors
/// If one is not finite.
pub fn expect_finite(logits: &[Vec<f64>]) -> Result<()> {
    if logits.iter().flatten().any(|logit| !logit.is_finite()) {
        bail!("the model answers with numbers that are not finite: its training ran away");
    }
    Ok(())
}

/// Writes a collected answer into its file, where it has one.
///
/// # Errors
/// If it cannot be written.
pub fn finish(out: Option<&Path>, answer: &[u8]) -> Result<()> {
    match out {
        Some(out) => Ok(write_whole(out, answer)?),
        None => Ok(()),
    }
}
