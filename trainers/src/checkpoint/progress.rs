//! Where a run stands, apart from the variables and the optimizer.

use crate::config::Plateau;
use crate::metrics::Scores;
use adahessian::{CurvatureInfo, State};
use std::str::FromStr;

/// An evaluation and when it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// The number of steps taken before it.
    pub step: u64,
    /// Its result.
    pub scores: Scores,
}

/// Statistics of the curvature and the step that computed them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LastCurvature {
    /// The number of steps taken, that one included.
    pub step: u64,
    /// Its statistics.
    pub info: CurvatureInfo,
}

/// Where a run stands. Order and randomness are functions of the seed, the epoch and the step, so
/// these few numbers are all that there is to remember.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The number of steps taken, skipped ones included.
    pub step: u64,
    /// The epoch of the next batch, from 0.
    pub epoch: usize,
    /// The next batch's index in its epoch.
    pub position: usize,
    /// The best evaluation.
    pub best: Option<Evaluated>,
    /// The last evaluation.
    pub last: Option<Evaluated>,
    /// Evaluations in a row without a new best one, for early stopping.
    pub without_best: u32,
    /// The same since the last time that the plateau factor changed.
    pub on_plateau: u32,
    /// What reductions on plateaus have made of the learning rate, 1 at first.
    pub plateau_factor: f64,
    /// How many steps the optimizer skipped because something was not finite.
    pub skipped: u64,
    /// The newest curvature: with a Hessian on some of the steps only, those that are logged may have none of their own.
    pub curvature: Option<LastCurvature>,
    /// Seconds of training, over all processes that took part.
    pub elapsed_seconds: f64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            step: 0,
            epoch: 0,
            position: 0,
            best: None,
            last: None,
            without_best: 0,
            on_plateau: 0,
            plateau_factor: 1.0,
            skipped: 0,
            curvature: None,
            elapsed_seconds: 0.0,
        }
    }
}

impl Progress {
    /// Takes in an evaluation of the present step; whether it is the best so far.
    pub fn note(&mut self, scores: Scores, plateau: Option<Plateau>) -> bool {
        let evaluated = Evaluated {
            step: self.step,
            scores,
        };
        let best = self.best.as_ref();
        let better = best.is_none_or(|best| evaluated.scores.better_than(&best.scores));
        self.last = Some(evaluated.clone());
        if better {
            self.best = Some(evaluated);
            (self.without_best, self.on_plateau) = (0, 0);
            return true;
        }
        self.without_best += 1;
        self.on_plateau += 1;
        if let Some(plateau) = plateau.filter(|plateau| self.on_plateau >= plateau.patience) {
            self.plateau_factor *= plateau.factor;
            self.on_plateau = 0;
        }
        false
    }

    /// Whether two are the same but for the time that was taken.
    pub(super) fn is_but_for_time(&self, other: &Self) -> bool {
        let elapsed_seconds = other.elapsed_seconds;
        let mine = Self {
            elapsed_seconds,
            ..self.clone()
        };
        mine == *other
    }

    pub(super) fn write(&self, state: &mut State) {
        state.put("step", self.step);
        state.put("epoch", self.epoch);
        state.put("position", self.position);
        state.put("without_best", self.without_best);
        state.put("on_plateau", self.on_plateau);
        state.put("plateau_factor", self.plateau_factor);
        state.put("skipped", self.skipped);
        state.put("elapsed_seconds", self.elapsed_seconds);
        if let Some(LastCurvature { step, info }) = &self.curvature {
            let numbers = [info.mean_abs, info.max_abs, info.below_eps];
            state.put(
                "curvature",
                format!("{step} {}", numbers.map(|x| x.to_string()).join(" ")),
            );
        }
        for (name, evaluated) in [("best", &self.best), ("last", &self.last)] {
            if let Some(evaluated) = evaluated {
                state.put(name, format!("{} {}", evaluated.step, evaluated.scores));
            }
        }
    }

    pub(super) fn read(state: &State) -> adahessian::Result<Self> {
        fn optional<T: FromStr>(state: &State, name: &str) -> adahessian::Result<Option<T>> {
            let there = state.meta.contains_key(name);
            there.then(|| state.value(name)).transpose()
        }
        Ok(Self {
            step: state.value("step")?,
            epoch: state.value("epoch")?,
            position: state.value("position")?,
            best: optional(state, "best")?,
            last: optional(state, "last")?,
            without_best: state.value("without_best")?,
            on_plateau: state.value("on_plateau")?,
            plateau_factor: state.value("plateau_factor")?,
            skipped: state.value("skipped")?,
            curvature: optional(state, "curvature")?,
            elapsed_seconds: state.value("elapsed_seconds")?,
        })
    }
}

/// A step, a space and [`Scores`] as text.
impl FromStr for Evaluated {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Self> {
        let error = || crate::Error::Setting {
            what: "evaluation",
            expected: "a step and scores".into(),
            got: format!("`{text}`"),
        };
        let (step, scores) = text.split_once(' ').ok_or_else(error)?;
        Ok(Self {
            step: step.parse().map_err(|_| error())?,
            scores: scores.parse()?,
        })
    }
}

/// A step and three numbers with spaces between them.
impl FromStr for LastCurvature {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Self> {
        let error = || crate::Error::Setting {
            what: "curvature",
            expected: "a step and three numbers".into(),
            got: format!("`{text}`"),
        };
        let (step, numbers) = text.split_once(' ').ok_or_else(error)?;
        let numbers: Vec<f64> = numbers
            .split(' ')
            .map(|number| number.parse().map_err(|_| error()))
            .collect::<crate::Result<_>>()?;
        let &[mean_abs, max_abs, below_eps] = numbers.as_slice() else {
            return Err(error());
        };
        Ok(Self {
            step: step.parse().map_err(|_| error())?,
            info: CurvatureInfo {
                mean_abs,
                max_abs,
                below_eps,
            },
        })
    }
}
