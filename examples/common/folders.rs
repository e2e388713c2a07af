//! Where runs lie: a folder of their own, a new name where none was given, and where to go on.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use trainers::RunFolder;

/// `runs/NAME`, or the first of `runs/NAME-2`, `runs/NAME-3` … that is not there yet.
pub fn free(name: &str) -> PathBuf {
    let first = PathBuf::from(format!("runs/{name}"));
    let numbered = (2..).map(|n| PathBuf::from(format!("runs/{name}-{n}")));
    let mut folders = std::iter::once(first.clone()).chain(numbered);
    folders.find(|f| !f.exists()).unwrap_or(first)
}

/// Refuses a folder with something in it for a new comparison.
///
/// # Errors
/// If it is not empty, or cannot be read.
pub fn refuse_full(out: &Path) -> Result<()> {
    match out.exists() && out.read_dir()?.next().is_some() {
        true => bail!(
            "{}: is not empty: go on with --resume, or choose another --out",
            out.display()
        ),
        false => Ok(()),
    }
}

/// What `--resume [RUN]` and `--out DIR` mean together: the run or checkpoint to go on with.
///
/// # Errors
/// For `--resume` alone.
pub fn resume(resume: &Option<Option<PathBuf>>, out: &Option<PathBuf>) -> Result<Option<PathBuf>> {
    match resume {
        None => Ok(None),
        Some(Some(path)) => Ok(Some(path.clone())),
        Some(None) => {
            let out = out.clone();
            Ok(Some(out.context("--resume without a folder needs --out")?))
        }
    }
}

/// The folder that holds `config.toml`: a run's, that of several runs, or that of a checkpoint's run.
///
/// # Errors
/// If the path is none of these.
pub fn root(path: &Path) -> Result<PathBuf> {
    match path.join("config.toml").is_file() && !path.join("manifest").is_file() {
        true => Ok(path.into()),
        false => Ok(RunFolder::open(path)?.path().into()),
    }
}

/// Where the run of a folder goes on, if it has a checkpoint; `alone` is the checkpoint that was asked
/// for, where the run is the only one. What a run left that was cut off before its first one is removed.
pub fn begun(folder: &Path, alone: Option<&Path>) -> Option<PathBuf> {
    let checkpoints = RunFolder::open(folder).ok().map(|run| run.checkpoints());
    let latest = checkpoints.as_ref().and_then(|c| c.latest().ok()?);
    if latest.is_some() {
        return Some(alone.unwrap_or(folder).into());
    }
    // What is not removed shows when the run claims its folder, as does a run that is at work there.
    if checkpoints.is_none_or(|checkpoints| checkpoints.lock().is_ok()) {
        let _ = remove_leftovers(folder);
    }
    None
}

/// Removes the files of a run, and nothing else.
fn remove_leftovers(folder: &Path) -> std::io::Result<()> {
    for entry in folder.read_dir()? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.as_str() {
            "checkpoint" => std::fs::remove_dir_all(entry.path())?,
            "config.toml" | "metrics.jsonl" | "curves.svg" | "summary.json" => {
                std::fs::remove_file(entry.path())?;
            }
            name if name.starts_with("events.out.tfevents.") => {
                std::fs::remove_file(entry.path())?;
            }
            _ => {}
        }
    }
    Ok(())
}
