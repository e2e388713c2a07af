//! Learning-rate schedules as pure functions of the step.

use crate::error::{Error, Result};
use crate::numeric::power;
use std::fmt;
use std::str::FromStr;

/// Warm-ups before each other. One will do.
const MOST_WARMUPS: usize = 8;

/// A factor on the learning rate, a function of (step, total steps) and of nothing else.
///
/// As text, with all arguments in steps or as numbers, none below 0: `constant`, `step:GAMMA:AT[:AT…]`,
/// `inverse_sqrt`, `linear`, `polynomial:POWER[:END]`, `cosine[:END]`, `exponential:START:END`, each
/// optionally preceded by `warmup:STEPS+`. Places and warm-ups below 1 are shares of the total.
///
/// ```
/// use adahessian::Schedule;
/// let schedule: Schedule = "warmup:10+linear".parse()?;
/// assert_eq!(schedule.factor(4, 110), 0.5);
/// assert_eq!(schedule.factor(60, 110), 0.5);
/// # Ok::<(), adahessian::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Schedule {
    /// Always 1.
    #[default]
    Constant,
    /// γⁱ after i of the places have been reached (the paper's CIFAR: ×0.1 at epochs 80 and 120).
    Step {
        /// The factor at each place.
        gamma: f64,
        /// Steps, or shares of the total where below 1.
        at: Vec<f64>,
    },
    /// 1 / sqrt(1 + step): with a warm-up of w steps sqrt(w / (step + 1)) after it, as in the
    /// paper's translation experiments.
    InverseSqrt,
    /// From 1 to 0 in a line.
    Linear,
    /// end + (1 - end) (1 - step/total)^power.
    Polynomial {
        /// The exponent.
        power: f64,
        /// The factor at the end.
        end: f64,
    },
    /// end + (1 - end) (1 + cos(π step/total)) / 2.
    Cosine {
        /// The factor at the end.
        end: f64,
    },
    /// start · (end / start)^(step/total): the same factor from each step to the next, as in a range test
    /// of the learning rate.
    Exponential {
        /// The factor at the first step.
        start: f64,
        /// The factor at the end.
        end: f64,
    },
    /// (step + 1) / steps during the first steps, then another schedule whose step counts from
    /// there and whose total is what is left.
    Warmup {
        /// Steps, or a share of the total where below 1.
        steps: f64,
        /// What follows.
        then: Box<Schedule>,
    },
}

impl Schedule {
    /// This schedule after a linear warm-up.
    pub fn after_warmup(self, steps: f64) -> Self {
        Schedule::Warmup {
            steps,
            then: Box::new(self),
        }
    }

    /// Checks the numbers: those that the text of a schedule may have.
    ///
    /// # Errors
    /// [`Error::Setting`] for one that is negative or not finite, a geometric schedule from or to 0, steps without a place, and too
    /// many warm-ups of each other.
    pub fn check(&self) -> Result<()> {
        self.to_string().parse::<Self>().map(drop)
    }

    /// The sum of the factors of all steps of a run: how many steps at the full rate it is worth.
    pub fn sum(&self, total: u64) -> f64 {
        (0..total).map(|step| self.factor(step, total)).sum()
    }

    /// The factor at a step, counted from 0, of a run of `total` steps.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        let done = match total {
            0 => 0.0,
            _ => (step as f64 / total as f64).min(1.0),
        };
        match self {
            Schedule::Constant => 1.0,
            Schedule::Step { gamma, at } => {
                let reached = at.iter().filter(|p| step >= in_steps(**p, total));
                power(*gamma, reached.count() as u64)
            }
            Schedule::InverseSqrt => 1.0 / (step as f64 + 1.0).sqrt(),
            Schedule::Linear => 1.0 - done,
            Schedule::Polynomial { power, end } => end + (1.0 - end) * (1.0 - done).powf(*power),
            Schedule::Cosine { end } => {
                end + (1.0 - end) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
            Schedule::Exponential { start, end } => start * (end / start).powf(done),
            Schedule::Warmup { steps, then } => {
                let warmup = in_steps(*steps, total);
                match step < warmup {
                    true => (step + 1) as f64 / warmup as f64,
                    false => after_warmup(then, step, total, warmup),
                }
            }
        }
    }
}

fn after_warmup(then: &Schedule, step: u64, total: u64, warmup: u64) -> f64 {
    match then {
        // fairseq's form, continuous at the end of the warm-up.
        Schedule::InverseSqrt => (warmup.max(1) as f64 / (step + 1) as f64).sqrt(),
        other => other.factor(step - warmup, total.saturating_sub(warmup)),
    }
}

fn in_steps(place: f64, total: u64) -> u64 {
    match place < 1.0 {
        true => (place * total as f64).round() as u64,
        false => place as u64,
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Setting {
            what: "schedule",
            expected:
                "constant, step:GAMMA:AT[:AT...], inverse_sqrt, linear, polynomial:POWER[:END], \
                       cosine[:END] or exponential:START:END, after an optional warmup:STEPS+"
                    .into(),
            got: format!("`{}`", text.chars().take(100).collect::<String>()),
        };
        // A warm-up of a warm-up is a call within a call.
        if text.matches('+').count() > MOST_WARMUPS {
            return Err(wrong());
        }
        if let Some((warmup, then)) = text.split_once('+') {
            let steps = warmup.strip_prefix("warmup:").and_then(|s| s.parse().ok());
            let is_length = |s: &f64| *s >= 0.0 && s.is_finite();
            let steps: f64 = steps.filter(is_length).ok_or_else(wrong)?;
            return Ok(then.parse::<Schedule>()?.after_warmup(steps));
        }
        let mut parts = text.split(':');
        let kind = parts.next().unwrap_or_default();
        let numbers = parts.map(|p| p.parse::<f64>().ok().filter(|n| n.is_finite()));
        let numbers: Option<Vec<f64>> = numbers.collect();
        let negative = |numbers: &[f64]| numbers.iter().any(|n| *n < 0.0);
        if numbers.as_deref().is_some_and(negative) {
            return Err(wrong()); // a factor below 0 would climb
        }
        match (kind, numbers.as_deref()) {
            ("constant", Some([])) => Ok(Schedule::Constant),
            ("step", Some([gamma, at @ ..])) if !at.is_empty() => Ok(Schedule::Step {
                gamma: *gamma,
                at: at.into(),
            }),
            ("inverse_sqrt", Some([])) => Ok(Schedule::InverseSqrt),
            ("linear", Some([])) => Ok(Schedule::Linear),
            ("polynomial", Some([power])) => Ok(Schedule::Polynomial {
                power: *power,
                end: 0.0,
            }),
            ("polynomial", Some([power, end])) => Ok(Schedule::Polynomial {
                power: *power,
                end: *end,
            }),
            ("cosine", Some([])) => Ok(Schedule::Cosine { end: 0.0 }),
            ("cosine", Some([end])) => Ok(Schedule::Cosine { end: *end }),
            ("exponential", Some([start, end])) if *start > 0.0 && *end > 0.0 => {
                Ok(Schedule::Exponential {
                    start: *start,
                    end: *end,
                })
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Constant => write!(f, "constant"),
            Schedule::Step { gamma, at } => {
                write!(f, "step:{gamma}")?;
                at.iter().try_for_each(|place| write!(f, ":{place}"))
            }
            Schedule::InverseSqrt => write!(f, "inverse_sqrt"),
            Schedule::Linear => write!(f, "linear"),
            Schedule::Polynomial { power, end } => write!(f, "polynomial:{power}:{end}"),
            Schedule::Cosine { end } => write!(f, "cosine:{end}"),
            Schedule::Exponential { start, end } => write!(f, "exponential:{start}:{end}"),
            Schedule::Warmup { steps, then } => write!(f, "warmup:{steps}+{then}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, step: u64, total: u64) -> f64 {
        text.parse::<Schedule>().unwrap().factor(step, total)
    }

    #[test]
    fn closed_forms() {
        assert_eq!(at("constant", 7, 10), 1.0);
        assert_eq!(at("step:0.1:80:120", 79, 160), 1.0);
        assert!((at("step:0.1:80:120", 120, 160) - 0.01).abs() < 1e-15);
        assert!((at("step:0.1:0.5:0.75", 80, 160) - 0.1).abs() < 1e-15);
        assert_eq!(at("linear", 25, 100), 0.75);
        assert_eq!(at("linear", 200, 100), 0.0);
        assert_eq!(at("polynomial:2", 50, 100), 0.25);
        assert_eq!(at("polynomial:1:0.5", 100, 100), 0.5);
        assert!((at("cosine", 50, 100) - 0.5).abs() < 1e-15);
        assert!((at("cosine:0.1", 100, 100) - 0.1).abs() < 1e-15);
        assert_eq!(at("exponential:0.01:1", 0, 100), 0.01);
        assert!((at("exponential:0.01:1", 50, 100) - 0.1).abs() < 1e-15);
        assert_eq!(at("warmup:4+constant", 1, 10), 0.5);
        assert_eq!(at("warmup:8000+inverse_sqrt", 7999, 100_000), 1.0);
        assert_eq!(at("warmup:8000+inverse_sqrt", 31_999, 100_000), 0.5);
        assert_eq!(at("warmup:0.1+linear", 55, 100), 0.5);
    }

    #[test]
    fn the_sum_is_of_all_steps() {
        let sum = |text: &str, total| text.parse::<Schedule>().unwrap().sum(total);
        assert_eq!(sum("constant", 7), 7.0);
        assert_eq!(sum("linear", 4), 1.0 + 0.75 + 0.5 + 0.25);
        assert_eq!(sum("warmup:2+linear", 4), 0.5 + 1.0 + 1.0 + 0.5);
        assert_eq!(sum("linear", 0), 0.0);
    }

    #[test]
    fn text_there_and_back() {
        for text in [
            "constant",
            "step:0.1:80:120",
            "inverse_sqrt",
            "warmup:0.1+cosine:0",
            "polynomial:2:0",
            "exponential:0.001:10",
        ] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "stepp",
            "step:0.1",
            "linear:3",
            "warmup:x+linear",
            "warmup:inf+linear",
            "polynomial:nan",
            "polynomial:-1",
            "cosine:-1",
            "step:-0.1:5",
            "step:0.1:-5",
            "exponential:0:1",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
        // As deep as this, reading it would end the stack.
        let deep = "warmup:1+".repeat(1_000_000) + "linear";
        let message = deep.parse::<Schedule>().unwrap_err().to_string();
        assert!(message.len() < 1000, "{} bytes", message.len());
        assert!(
            ("warmup:1+".repeat(8) + "linear")
                .parse::<Schedule>()
                .is_ok()
        );
    }
}
