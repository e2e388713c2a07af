//! What is shown of a run while it goes on: running means, so that they can be read, and times.

use super::{EvalReport, StepReport};

/// Of the steps and evaluations so far.
#[derive(Debug, Default)]
pub(super) struct Running {
    loss: Option<f64>,
    seconds: Option<f64>,
    metric: String,
}

impl Running {
    /// Takes a step in; gives the means of loss and seconds a step.
    pub(super) fn step(&mut self, report: &StepReport) -> (f64, f64) {
        let loss = smooth(&mut self.loss, report.loss);
        (loss, smooth(&mut self.seconds, report.seconds))
    }

    pub(super) fn evaluation(&mut self, report: &EvalReport) {
        let scores = &report.scores;
        self.metric = format!(" {} {}", scores.main_name(), number(scores.main()));
    }

    /// The main value of the last evaluation behind a blank; nothing before the first one.
    pub(super) fn metric(&self) -> &str {
        &self.metric
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

/// ` (2 skipped)`, or nothing.
pub(super) fn skipped(steps: u64) -> String {
    match steps {
        0 => String::new(),
        _ => format!(" ({steps} skipped)"),
    }
}

/// `32.1 steps/s`, to three digits.
pub(super) fn rate(seconds_per_step: f64) -> String {
    let rate = 1.0 / seconds_per_step;
    match rate {
        _ if !rate.is_finite() => "? steps/s".into(),
        100.0.. => format!("{rate:.0} steps/s"),
        10.0.. => format!("{rate:.1} steps/s"),
        1.0.. => format!("{rate:.2} steps/s"),
        _ => format!("{rate:.3} steps/s"),
    }
}

/// `2:04`, or `1:02:04` from an hour on.
pub(super) fn time(seconds: f64) -> String {
    // Not-a-number becomes 0, and what is too large the largest number.
    let seconds = seconds.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// A score with four places; with its exponent where it is so large that the rest of the line would be lost, as the
/// perplexity of a run that ran away.
pub(super) fn number(value: f64) -> String {
    match value.abs() < 1e9 {
        true => format!("{value:.4}"),
        false => format!("{value:.2e}"),
    }
}
