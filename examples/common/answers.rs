//! What the programs share that ask a trained model: `predict` and `classify`.

use crate::runs;
use anyhow::{Context, Result, anyhow, bail};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use trainers::disk::write_whole;

/// Refuses a file that is there already or cannot be made: before the model is read, and not after it has answered.
///
/// # Errors
/// If it is there, or cannot be made.
pub fn expect_new(out: Option<&Path>) -> Result<()> {
    let Some(out) = out else {
        return Ok(());
    };
    if out.exists() {
        bail!(
            "{}: is there already: remove it, or choose another --out",
            out.display()
        );
    }
    let made = File::create_new(out).and_then(|_| std::fs::remove_file(out));
    made.with_context(|| format!("{}: cannot be written", out.display()))
}

/// Whoever read standard output has gone (`| head`): nobody is left to answer, and nothing went wrong.
#[derive(Debug)]
pub struct ReaderGone;

impl std::fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("whoever read the answers has gone")
    }
}

impl std::error::Error for ReaderGone {}

/// What became of writing to standard output: [`ReaderGone`] in the place of a broken pipe.
///
/// # Errors
/// The same, or that.
pub fn printed<T>(written: Result<T>) -> Result<T> {
    written.map_err(|error| match error.downcast_ref::<io::Error>() {
        Some(of) if of.kind() == io::ErrorKind::BrokenPipe => ReaderGone.into(),
        _ => error,
    })
}

/// The folder of a run's model, if it is a run's: with `best` that of the best evaluation, where that is another than the
/// last one.
pub fn model_of_run(run: &Path, best: bool) -> Option<PathBuf> {
    let inside = [best.then_some("model-best"), Some("model")];
    let mut inside = inside.into_iter().flatten().map(|name| run.join(name));
    inside.find(|folder| folder.join("config.json").is_file())
}

/// What is to be said of a folder that holds no model itself: of a comparison's, which runs have one.
pub fn no_model(path: &Path, best: bool) -> anyhow::Error {
    let found = runs::named(path, |run| model_of_run(run, best).is_some()).unwrap_or_default();
    let found: Vec<_> = found.iter().filter(|run| *run != path).collect();
    let path = path.display();
    match found.as_slice() {
        [] => anyhow!(
            "{path}: neither a run nor a model: there is no config.json, model/config.json or model-best/config.json"
        ),
        [only] => anyhow!(
            "{path}: neither a run nor a model; {} is one",
            only.display()
        ),
        [first, ..] => anyhow!(
            "{path}: neither a run nor a model, but the folder of {} runs: name one of them, {} for example",
            found.len(),
            first.display()
        ),
    }
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

/// Writes what was answered before an error, if anything was.
///
/// # Errors
/// If it cannot be written.
pub fn finish_in_part(out: Option<&Path>, answer: &[u8]) -> Result<()> {
    match answer.is_empty() {
        true => Ok(()),
        false => finish(out, answer),
    }
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
