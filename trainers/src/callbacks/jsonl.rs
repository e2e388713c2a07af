//! `metrics.jsonl`: a JSON object a line, for each logged step and each evaluation.

use super::{Callback, EvalReport, StartReport, StepReport};
use crate::error::{Error, Result};
use crate::metrics::Scores;
use crate::trainer::Summary;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes the lines. A line is written whole and at once; when a run goes on from a checkpoint,
/// the lines of later steps are cut off first, so that no step appears twice.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: Option<File>,
}

impl JsonLines {
    /// Writes to this file, which a new run empties.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            file: None,
        }
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let error = |e: std::io::Error| Error::io("cannot write a line", &self.path)(e);
        let mut text = serde_json::to_vec(line).map_err(|e| error(e.into()))?;
        text.push(b'\n');
        match &mut self.file {
            Some(file) => file.write_all(&text).map_err(error),
            None => Ok(()),
        }
    }
}

/// Numbers that are not finite are written as `null`.
#[derive(Serialize)]
struct StepLine<'a> {
    kind: &'static str,
    step: u64,
    epoch: usize,
    loss: f64,
    lr: f64,
    gradient_norm: f64,
    update_norm: f64,
    /// Variables that the bound of the step held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    bounded: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    curvature_mean: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    curvature_max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    curvature_below_eps: Option<f64>,
    /// The step whose curvature it is, where that is an earlier one.
    #[serde(skip_serializing_if = "Option::is_none")]
    curvature_step: Option<u64>,
    seconds_per_step: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<&'a str>,
    skipped_total: u64,
}

#[derive(Serialize)]
struct EvalLine<'a> {
    kind: &'static str,
    step: u64,
    epoch: usize,
    main: &'a str,
    scores: &'a Scores,
    is_best: bool,
    plateau_factor: f64,
    seconds: f64,
}

/// What all lines have.
#[derive(Deserialize)]
struct AnyLine {
    step: u64,
    #[serde(default)]
    kind: String,
}

impl Callback for JsonLines {
    fn on_start(&mut self, report: &StartReport) -> Result<()> {
        let error = || Error::io("cannot write", &self.path);
        let file = match report.resumed_at {
            None => File::create(&self.path).map_err(error())?,
            Some(step) => {
                // Some systems cut nothing off through a file that is open for appending.
                let mut whole = OpenOptions::new();
                let whole = whole.write(true).create(true).truncate(false);
                let whole = whole.open(&self.path).map_err(error())?;
                let kept = kept_length(&self.path, step, report.owed)?;
                whole.set_len(kept).map_err(error())?;
                let file = OpenOptions::new().append(true).open(&self.path);
                file.map_err(error())?
            }
        };
        self.file = Some(file);
        Ok(())
    }

    fn on_step(&mut self, report: &StepReport) -> Result<()> {
        if !report.logged {
            return Ok(());
        }
        let (info, last) = (&report.info, report.curvature);
        let curvature = last.map(|last| last.info);
        self.write(&StepLine {
            kind: "step",
            step: report.step,
            epoch: report.epoch,
            loss: report.loss,
            lr: info.lr,
            gradient_norm: info.gradient_norm,
            update_norm: info.update_norm,
            bounded: (info.bounded > 0).then_some(info.bounded),
            curvature_mean: curvature.map(|c| c.mean_abs),
            curvature_max: curvature.map(|c| c.max_abs),
            curvature_below_eps: curvature.map(|c| c.below_eps),
            curvature_step: last.map(|last| last.step).filter(|of| *of != report.step),
            seconds_per_step: report.seconds,
            skipped: info.skipped.as_deref(),
            skipped_total: report.skipped_total,
        })
    }

    fn before_checkpoint(&mut self) -> Result<()> {
        match &self.file {
            Some(file) => file
                .sync_data()
                .map_err(Error::io("cannot bring the lines to the disk", &self.path)),
            None => Ok(()),
        }
    }

    fn on_end(&mut self, _summary: &Summary) -> Result<()> {
        self.before_checkpoint()
    }

    fn on_evaluation(&mut self, report: &EvalReport) -> Result<()> {
        self.write(&EvalLine {
            kind: "evaluation",
            step: report.step,
            epoch: report.epoch,
            main: report.scores.main_name(),
            scores: &report.scores,
            is_best: report.is_best,
            plateau_factor: report.plateau_factor,
            seconds: report.seconds,
        })
    }
}

/// The length of the lines up to this step, or up to its evaluation where that is made again. A last line without
/// its end was cut by a crash.
fn kept_length(path: &Path, step: u64, owed: bool) -> Result<u64> {
    let text = fs::read(path).map_err(Error::io("cannot read", path))?;
    let mut kept = 0;
    let whole = text
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"));
    for (number, line) in whole.enumerate() {
        let line_of = serde_json::from_slice::<AnyLine>(line).map_err(|e| Error::Log {
            path: path.into(),
            what: format!("line {}: {e}; repair or remove the line", number + 1),
        })?;
        let again = owed && line_of.step == step && line_of.kind == "evaluation";
        if line_of.step > step || again {
            break;
        }
        kept += line.len() as u64;
    }
    Ok(kept)
}
