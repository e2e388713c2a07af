//! Lines where no terminal is: what the bar shows, now and then.

use super::running::{self, Running};
use super::{Callback, EvalReport, StartReport, StepReport};
use crate::error::Result;
use crate::trainer::Summary;
use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

/// How often there is a line.
const EVERY: Duration = Duration::from_secs(30);
/// What may pass unseen: an evaluation so soon after a line is announced by no other.
const SHORT: Duration = Duration::from_secs(1);

/// Writes a line when a run starts, after the first step of every thirty seconds, before and after each
/// evaluation, and at the end:
///
/// ```text
/// step 1200/5000 epoch 3 loss 0.1234 accuracy 0.9120 lr 1.20e-3 0.031 s/step 2:04 left
/// step 1250/5000 evaluated in 4.2 s: accuracy 0.9180 loss 0.2910, the best so far
/// ```
///
/// Loss and seconds a step are running means, epochs count from 1. The time left is reckoned from all the
/// time since this process began, evaluations included. Lines that cannot be written are lost: a log that
/// is full or closed ends no run.
///
/// ```
/// use std::io::{IsTerminal, stderr};
/// use trainers::callbacks::StatusLines;
///
/// let lines = (!stderr().is_terminal()).then(|| StatusLines::new(Box::new(stderr())));
/// ```
pub struct StatusLines {
    out: Box<dyn Write + Send>,
    clock: Box<dyn FnMut() -> Duration + Send>,
    every: Duration,
    label: String,
    running: Running,
    /// When this process began, and how many steps had been taken before.
    begin: (Duration, u64),
    /// When the last line was written.
    shown: Duration,
    total_steps: u64,
    /// The last step's line, which is written when it is time for one.
    last: String,
}

impl StatusLines {
    /// Lines to this writer, for example `Box::new(std::io::stderr())`. Whether the bar would be better
    /// there, the caller knows.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        let origin = Instant::now();
        Self {
            out,
            clock: Box::new(move || origin.elapsed()),
            every: EVERY,
            label: String::new(),
            running: Running::default(),
            begin: (Duration::ZERO, 0),
            shown: Duration::ZERO,
            total_steps: 0,
            last: String::new(),
        }
    }

    /// A line after so much time instead of thirty seconds; zero: after each step.
    pub fn every(mut self, time: Duration) -> Self {
        self.every = time;
        self
    }

    /// Begins every line with the run's name, where several runs write to one place.
    pub fn label(mut self, name: &str) -> Self {
        self.label = format!("{name}: ");
        self
    }

    /// Reads the time, since any beginning, from this clock, which never goes back.
    pub fn clock(mut self, clock: impl FnMut() -> Duration + Send + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    fn write(&mut self, now: Duration, line: &str) {
        // See above: no line is worth a run.
        let _ = writeln!(self.out, "{}{line}", self.label);
        let _ = self.out.flush();
        self.shown = now;
    }

    /// `2:04 left`, from the mean of the steps of this process.
    fn left(&self, now: Duration, step: u64) -> String {
        let (begin, before) = self.begin;
        let (taken, ahead) = (
            step.saturating_sub(before),
            self.total_steps.saturating_sub(step),
        );
        let each = now.saturating_sub(begin).as_secs_f64() / taken.max(1) as f64;
        format!("{} left", running::time(each * ahead as f64))
    }
}

impl fmt::Debug for StatusLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("StatusLines");
        shown.field("every", &self.every).field("last", &self.last);
        shown.finish_non_exhaustive()
    }
}

impl Callback for StatusLines {
    fn on_start(&mut self, report: &StartReport) -> Result<()> {
        let now = (self.clock)();
        self.begin = (now, report.resumed_at.unwrap_or(0));
        self.total_steps = report.total_steps;
        let from = match report.resumed_at {
            Some(step) => format!(", going on behind step {step}"),
            None => String::new(),
        };
        let (steps, epochs) = (report.total_steps, report.epochs);
        let word = if epochs == 1 { "epoch" } else { "epochs" };
        self.write(now, &format!("{steps} steps, {epochs} {word}{from}"));
        Ok(())
    }

    fn on_step(&mut self, report: &StepReport) -> Result<()> {
        let now = (self.clock)();
        let (loss, seconds) = self.running.step(report);
        self.last = format!(
            "step {}/{} epoch {} loss {loss:.4}{} lr {:.2e} {seconds:.3} s/step{} {}",
            report.step,
            report.total_steps,
            report.epoch + 1,
            self.running.metric(),
            report.info.lr,
            running::skipped(report.skipped_total),
            self.left(now, report.step),
        );
        if now.saturating_sub(self.shown) >= self.every {
            let line = self.last.clone();
            self.write(now, &line);
        }
        Ok(())
    }

    fn before_evaluation(&mut self, _step: u64) -> Result<()> {
        let now = (self.clock)();
        if now.saturating_sub(self.shown) >= SHORT {
            let line = format!("{}, evaluating", self.last);
            self.write(now, &line);
        }
        Ok(())
    }

    fn on_evaluation(&mut self, report: &EvalReport) -> Result<()> {
        let now = (self.clock)();
        self.running.evaluation(report);
        let scores = report.scores.iter();
        let scores: String = scores
            .map(|(n, value)| format!(" {n} {}", running::number(value)))
            .collect();
        let line = format!(
            "step {}/{} evaluated in {:.1} s:{scores}{}",
            report.step,
            self.total_steps,
            report.seconds,
            if report.is_best {
                ", the best so far"
            } else {
                ""
            },
        );
        self.write(now, &line);
        Ok(())
    }

    fn on_end(&mut self, summary: &Summary) -> Result<()> {
        let now = (self.clock)();
        let best = match &summary.best {
            Some(best) => format!(
                ", best {} {} at step {}",
                best.scores.main_name(),
                running::number(best.scores.main()),
                best.step
            ),
            None => String::new(),
        };
        let line = format!(
            "{} at step {}/{} after {}{best}",
            summary.outcome.name(),
            summary.steps,
            self.total_steps,
            running::time(summary.elapsed_seconds),
        );
        self.write(now, &line);
        Ok(())
    }
}
