//! The loop's configuration.

use crate::error::{Error, Result};
use adahessian::Schedule;
use serde::{Deserialize, Serialize};

/// How to train. Steps are counted from the start of the run, across epochs and resumptions.
///
/// To resume a run bit for bit, keep what changes the steps: everything but `log_every`,
/// `checkpoint_every` and `keep_checkpoints`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// How often the training set is gone through, at most a million times.
    pub epochs: usize,
    /// The largest number of steps, whatever `epochs` says.
    pub max_steps: Option<u64>,
    /// Into how many micro-batches a batch is split. Each contributes its own gradient and its own
    /// Hessian-vector product, weighted by its share of the batch, so that the step is the mean of
    /// z ⊙ Hₘz over the micro-batches m, and only one of their graphs is in memory at a time. Running
    /// statistics of batch normalisations move with each of them.
    pub micro_batches: usize,
    /// On which share of each micro-batch, in (0, 1], the Hessian-vector products are computed: so many of its
    /// examples in a row, rounded up. Where they begin is a function of the seed, the step and the micro-batch, because
    /// batches may be sorted. The gradient always comes from all examples: with `AdaHessian` set `Unseen::Wait`, so that
    /// what only the others reach does not step without a curvature.
    pub curvature_fraction: f64,
    /// The factor on the learning rate as a function of the step, as text in configurations.
    #[serde(with = "schedule_text")]
    pub schedule: Schedule,
    /// After how many steps to evaluate; without it, after each epoch. There is always an
    /// evaluation at the end.
    pub eval_every: Option<u64>,
    /// After how many steps to save a checkpoint; without it, after each evaluation. There is
    /// always a checkpoint at the end.
    pub checkpoint_every: Option<u64>,
    /// How many checkpoints to keep besides the best one.
    pub keep_checkpoints: usize,
    /// On every how-manieth step [`crate::StepReport::logged`] is set; it is on the first and the
    /// last, too.
    pub log_every: u64,
    /// After how many evaluations in a row without a new best one to stop.
    pub patience: Option<u32>,
    /// Lowers the learning rate when evaluations no longer get better.
    pub plateau: Option<Plateau>,
    /// The seed of dropout, and of the examples for the curvature.
    pub seed: u64,
}

/// Multiplies the learning rate by `factor` after `patience` evaluations in a row without a new
/// best one, and counts anew.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plateau {
    /// The factor, in (0, 1).
    pub factor: f64,
    /// How many evaluations, at least one.
    pub patience: u32,
}

impl Default for TrainConfig {
    /// One epoch, whole batches, a constant learning rate, evaluation and checkpoint after the
    /// epoch.
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: None,
            micro_batches: 1,
            curvature_fraction: 1.0,
            schedule: Schedule::Constant,
            eval_every: None,
            checkpoint_every: None,
            keep_checkpoints: 2,
            log_every: 10,
            patience: None,
            plateau: None,
            seed: 0,
        }
    }
}

/// More would be a slip of the finger; and their batches are counted one epoch after the other.
const MOST_EPOCHS: usize = 1_000_000;

impl TrainConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first field out of range.
    pub fn check(&self) -> Result<()> {
        let at_least_one = [
            ("epochs", Some(self.epochs as u64)),
            ("micro_batches", Some(self.micro_batches as u64)),
            ("keep_checkpoints", Some(self.keep_checkpoints as u64)),
            ("log_every", Some(self.log_every)),
            ("max_steps", self.max_steps),
            ("eval_every", self.eval_every),
            ("checkpoint_every", self.checkpoint_every),
            ("patience", self.patience.map(u64::from)),
            (
                "plateau.patience",
                self.plateau.map(|p| u64::from(p.patience)),
            ),
        ];
        for (what, value) in at_least_one {
            setting(what, value != Some(0), "at least 1", 0.0)?;
        }
        if self.epochs > MOST_EPOCHS {
            return Err(Error::Setting {
                what: "epochs",
                expected: format!("at most {MOST_EPOCHS}"),
                got: self.epochs.to_string(),
            });
        }
        self.schedule.check()?;
        let fraction = self.curvature_fraction;
        let inside = fraction > 0.0 && fraction <= 1.0;
        setting(
            "curvature_fraction",
            inside,
            "a number above 0, at most 1",
            fraction,
        )?;
        let factor = self.plateau.map_or(0.5, |plateau| plateau.factor);
        let inside = factor > 0.0 && factor < 1.0;
        setting("plateau.factor", inside, "a number between 0 and 1", factor)
    }
}

fn setting(what: &'static str, ok: bool, expected: &str, got: f64) -> Result<()> {
    match ok {
        true => Ok(()),
        false => Err(Error::Setting {
            what,
            expected: expected.into(),
            got: got.to_string(),
        }),
    }
}

/// A schedule as its text.
mod schedule_text {
    use adahessian::Schedule;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(schedule: &Schedule, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(schedule)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Schedule, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
