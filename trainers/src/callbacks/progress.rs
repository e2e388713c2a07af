//! A bar on the terminal.

use super::running::{self, Running};
use super::{Callback, EvalReport, StartReport, StepReport};
use crate::error::{Error, Result};
use crate::trainer::Summary;
use indicatif::ProgressStyle;

const TEMPLATE: &str = "{bar:24} {pos}/{len} {msg} [{elapsed}, {eta} left]";

/// Shows steps, loss, main metric, learning rate, steps a second and the time left, on standard error.
/// Shows nothing where that is not a terminal: there, [`super::StatusLines`] say the same.
#[derive(Debug)]
pub struct ProgressBar {
    bar: indicatif::ProgressBar,
    running: Running,
}

impl ProgressBar {
    /// A bar that appears when the run starts.
    pub fn new() -> Self {
        Self::on(indicatif::ProgressBar::new(0))
    }

    /// A bar of the program's own, for example one of several.
    pub fn on(bar: indicatif::ProgressBar) -> Self {
        Self {
            bar,
            running: Running::default(),
        }
    }
}

impl Default for ProgressBar {
    fn default() -> Self {
        Self::new()
    }
}

impl Callback for ProgressBar {
    fn on_start(&mut self, report: &StartReport) -> Result<()> {
        let style = ProgressStyle::with_template(TEMPLATE).map_err(Error::user)?;
        self.bar.set_style(style);
        self.bar.set_length(report.total_steps);
        // The time left is estimated from this process's steps alone.
        self.bar.set_position(report.resumed_at.unwrap_or(0));
        self.bar.reset_eta();
        Ok(())
    }

    fn on_step(&mut self, report: &StepReport) -> Result<()> {
        let (loss, seconds) = self.running.step(report);
        let message = format!(
            "loss {loss:.4}{} lr {:.2e} {}{}",
            self.running.metric(),
            report.info.lr,
            running::rate(seconds),
            running::skipped(report.skipped_total),
        );
        self.bar.set_message(message);
        self.bar.set_position(report.step);
        Ok(())
    }

    fn on_evaluation(&mut self, report: &EvalReport) -> Result<()> {
        self.running.evaluation(report);
        Ok(())
    }

    fn on_end(&mut self, _summary: &Summary) -> Result<()> {
        self.bar.abandon();
        Ok(())
    }
}
