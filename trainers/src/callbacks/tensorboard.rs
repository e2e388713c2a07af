//! Scalars for TensorBoard: `tensorboard --logdir` of the folder above the runs.

use super::event_file::EVALUATION;
use super::{Callback, EvalReport, EventFile, StartReport, StepReport};
use crate::checkpoint::LastCurvature;
use crate::error::{Error, Result};
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

const BEGINNING: &str = "events.out.tfevents.";
const ENDING: &str = ".adahessian";

/// Writes `train/*` for each logged step and `eval/*` for each evaluation. When a run goes on from
/// a checkpoint, its event file is cut off there and continued; an evaluation of that step that is made
/// again is cut off, too.
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    file: Option<EventFile>,
}

impl TensorBoard {
    /// Writes an event file in this folder, the run's.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            file: None,
        }
    }

    /// The newest event file of this kind in the folder; their names have the time of their making.
    fn existing(&self) -> Result<Option<PathBuf>> {
        let error = || Error::io("cannot list", &self.folder);
        let mut newest = None;
        for entry in fs::read_dir(&self.folder).map_err(error())? {
            let path = entry.map_err(error())?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(BEGINNING) && name.ends_with(ENDING) {
                newest = newest.max(Some(path));
            }
        }
        Ok(newest)
    }

    fn write(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        match &mut self.file {
            Some(file) => file.scalars(now(), step, values),
            None => Ok(()),
        }
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |time| time.as_secs_f64())
}

impl Callback for TensorBoard {
    fn on_start(&mut self, report: &StartReport) -> Result<()> {
        let existing = match report.resumed_at {
            Some(step) => self.existing()?.map(|path| (path, step)),
            None => None,
        };
        self.file = Some(match existing {
            Some((path, step)) => EventFile::open_at(path, step, report.owed)?,
            None => {
                let name = format!("{BEGINNING}{:010}{ENDING}", now() as u64);
                EventFile::create(self.folder.join(name), now())?
            }
        });
        Ok(())
    }

    fn before_checkpoint(&mut self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), EventFile::sync)
    }

    fn on_step(&mut self, report: &StepReport) -> Result<()> {
        if !report.logged {
            return Ok(());
        }
        let info = &report.info;
        let mut values = vec![
            ("train/loss", report.loss),
            ("train/lr", info.lr),
            ("train/gradient_norm", info.gradient_norm),
            ("train/update_norm", info.update_norm),
            ("train/bounded", info.bounded as f64),
            ("train/seconds_per_step", report.seconds),
            ("train/skipped_steps", report.skipped_total as f64),
        ];
        if let Some(LastCurvature {
            info: curvature, ..
        }) = report.curvature
        {
            values.push(("train/curvature_mean", curvature.mean_abs));
            values.push(("train/curvature_max", curvature.max_abs));
            values.push(("train/curvature_below_eps", curvature.below_eps));
        }
        let values = values
            .into_iter()
            .map(|(tag, value)| (tag.to_owned(), value));
        self.write(report.step, &values.collect::<Vec<_>>())
    }

    fn on_evaluation(&mut self, report: &EvalReport) -> Result<()> {
        let values = report
            .scores
            .iter()
            .map(|(name, value)| (format!("{EVALUATION}{name}"), value));
        self.write(report.step, &values.collect::<Vec<_>>())
    }
}
