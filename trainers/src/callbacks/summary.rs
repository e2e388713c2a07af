//! `summary.json`: what came out of a run.

use super::Callback;
use crate::checkpoint::Evaluated;
use crate::disk::write_whole;
use crate::error::{Error, Result};
use crate::metrics::Scores;
use crate::trainer::Summary;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Writes the file at the end of the run, also of an interrupted one.
#[derive(Debug)]
pub struct SummaryFile {
    path: PathBuf,
    versions: BTreeMap<String, String>,
}

impl SummaryFile {
    /// Writes to this file, with the version of this crate.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let own = (
            env!("CARGO_PKG_NAME").into(),
            env!("CARGO_PKG_VERSION").into(),
        );
        Self {
            path: path.into(),
            versions: BTreeMap::from([own]),
        }
    }

    /// Adds a version, or anything else that says what ran.
    pub fn version(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.versions.insert(name.into(), version.into());
        self
    }
}

#[derive(Serialize)]
struct File<'a> {
    outcome: &'static str,
    steps: u64,
    epochs: usize,
    #[serde(rename = "final")]
    last: Option<Evaluation<'a>>,
    best: Option<Evaluation<'a>>,
    skipped_steps: u64,
    elapsed_seconds: f64,
    seconds_per_step: Option<f64>,
    peak_memory_mib: Option<f64>,
    seed: u64,
    versions: &'a BTreeMap<String, String>,
    system: String,
}

#[derive(Serialize)]
struct Evaluation<'a> {
    step: u64,
    main: &'a str,
    higher_is_better: bool,
    scores: &'a Scores,
}

fn evaluation(evaluated: &Option<Evaluated>) -> Option<Evaluation<'_>> {
    evaluated.as_ref().map(|e| Evaluation {
        step: e.step,
        main: e.scores.main_name(),
        higher_is_better: e.scores.higher_is_better(),
        scores: &e.scores,
    })
}

impl Callback for SummaryFile {
    fn on_end(&mut self, summary: &Summary) -> Result<()> {
        let file = File {
            outcome: summary.outcome.name(),
            steps: summary.steps,
            epochs: summary.epochs,
            last: evaluation(&summary.last),
            best: evaluation(&summary.best),
            skipped_steps: summary.skipped,
            elapsed_seconds: summary.elapsed_seconds,
            seconds_per_step: summary.seconds_per_step,
            peak_memory_mib: peak_memory_mib(),
            seed: summary.seed,
            versions: &self.versions,
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        };
        let text = serde_json::to_vec_pretty(&file);
        let text = text.map_err(|e| Error::io("cannot write", &self.path)(e.into()))?;
        write_whole(&self.path, &text)
    }
}

/// The largest resident memory of this process so far in MiB, where the system tells (Linux).
pub fn peak_memory_mib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
