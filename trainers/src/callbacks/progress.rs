//! A bar on the terminal.

use super::{Callback, EvalReport, StartReport, StepReport};
use crate::error::{Error, Result};
use crate::trainer::Summary;
use indicatif::ProgressStyle;

const TEMPLATE: &str = "{bar:24} {pos}/{len} {msg} [{elapsed} < {eta}]";

/// Shows steps, loss, main metric, learning rate, seconds a step and the time left, on standard
/// error. Shows nothing where that is not a terminal.
#[derive(Debug)]
pub struct ProgressBar {
    bar: indicatif::ProgressBar,
    metric: String,
    /// Running means of the loss and of the seconds a step, so that they can be read.
    loss: Option<f64>,
    seconds: Option<f64>,
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
            metric: String::new(),
            loss: None,
            seconds: None,
        }
    }
}

impl Default for ProgressBar {
    fn default() -> Self {
        Self::new()
    }
}

/// A running mean over about twenty values; values that are not finite are left out.
fn smooth(mean: &mut Option<f64>, value: f64) -> f64 {
    match (*mean, value.is_finite()) {
        (old, false) => old.unwrap_or(value),
        (None, true) => *mean.insert(value),
        (Some(old), true) => *mean.insert(0.95 * old + 0.05 * value),
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
        let loss = smooth(&mut self.loss, report.loss);
        let seconds = smooth(&mut self.seconds, report.seconds);
        let mut message = format!(
            "loss {loss:.4}{} lr {:.2e} {seconds:.3} s/step",
            self.metric, report.info.lr
        );
        if report.skipped_total > 0 {
            message += &format!(" ({} skipped)", report.skipped_total);
        }
        self.bar.set_message(message);
        self.bar.set_position(report.step);
        Ok(())
    }

    fn on_evaluation(&mut self, report: &EvalReport) -> Result<()> {
        let scores = &report.scores;
        self.metric = format!(" {} {:.4}", scores.main_name(), scores.main());
        Ok(())
    }

    fn on_end(&mut self, _summary: &Summary) -> Result<()> {
        self.bar.abandon();
        Ok(())
    }
}
