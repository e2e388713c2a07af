//! Settings that every optimizer has, and groups of variables with settings of their own.

use super::bound::StepBound;
use crate::block::{Block, name_matches, no_match};
use crate::error::{Error, Result};
use crate::vars::NamedVars;

/// Settings for the variables whose name ends with a pattern (or matches it, where it contains a
/// `*`). Of several groups that match, the last that sets a field decides that field. One that matches none
/// is an error of the optimizer's making.
///
/// ```
/// use adahessian::Group;
/// let groups = vec![
///     Group::new(".bias").weight_decay(0.0),
///     Group::new("classifier.*").lr_scale(10.0),
///     Group::new("*embeddings.*").frozen(true), // a pattern with `*` is of the whole name
/// ];
/// # let _ = groups;
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// A suffix of names, or a pattern with `*`.
    pub pattern: String,
    /// A factor on the learning rate.
    pub lr_scale: Option<f64>,
    /// The weight decay instead of the optimizer's.
    pub weight_decay: Option<f64>,
    /// The block instead of the one that `Blocks` gives.
    pub block: Option<Block>,
    /// Whether the variables are left out: no probe, no curvature, no update.
    pub frozen: Option<bool>,
}

impl Group {
    /// A group that sets nothing yet.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self {
            pattern: pattern.into(),
            ..Self::default()
        }
    }

    /// Multiplies the learning rate.
    pub fn lr_scale(mut self, scale: f64) -> Self {
        self.lr_scale = Some(scale);
        self
    }

    /// Replaces the weight decay.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.weight_decay = Some(decay);
        self
    }

    /// Replaces the block of the curvature.
    pub fn block(mut self, block: Block) -> Self {
        self.block = Some(block);
        self
    }

    /// Freezes the variables, or thaws what an earlier group froze.
    pub fn frozen(mut self, frozen: bool) -> Self {
        self.frozen = Some(frozen);
        self
    }
}

/// The settings that all optimizers share.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// The learning rate η.
    pub lr: f64,
    /// The weight decay; whether it is decoupled is the optimizer's nature.
    pub weight_decay: f64,
    /// Groups of variables, last match wins.
    pub groups: Vec<Group>,
    /// The largest norm of the gradient of all of this optimizer's variables; a longer one is scaled down to it. In a
    /// [`Composite`](crate::Composite) each part has its own; sparse tables have none.
    pub clip_norm: Option<f64>,
    /// The largest absolute value of a gradient's entry; before `clip_norm`.
    pub clip_value: Option<f64>,
    /// The longest step of each variable, relative to it; none by default.
    pub bound: Option<StepBound>,
    /// How many steps in a row with something that is not finite are skipped; one more is an error.
    pub max_skipped: u32,
    /// Variables that the first step need not reach: ends of names, or patterns with `*`, as in
    /// [`Group`]. Any other that it does not reach is an error; a pattern that matches none is none.
    pub allow_unreached: Vec<String>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            weight_decay: 0.0,
            groups: Vec::new(),
            clip_norm: None,
            clip_value: None,
            bound: None,
            max_skipped: 10,
            allow_unreached: Vec::new(),
        }
    }
}

/// The settings of one variable.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub lr_scale: f64,
    pub weight_decay: f64,
    pub block: Option<Block>,
    pub allow_unreached: bool,
}

impl Common {
    /// Common settings with this learning rate.
    pub fn new(lr: f64) -> Self {
        Self {
            lr,
            ..Self::default()
        }
    }

    fn last<T>(&self, name: &str, field: impl Fn(&Group) -> Option<T>) -> Option<T> {
        let matching = self
            .groups
            .iter()
            .rev()
            .filter(|g| name_matches(&g.pattern, name));
        matching.filter_map(field).next()
    }

    /// The variables that are trained and not frozen, each with its settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting out of its range, and for a group that matches nothing: a misspelled pattern would
    /// train, or decay, everything without a word.
    pub(crate) fn resolve(&self, vars: &NamedVars) -> Result<(NamedVars, Vec<Resolved>)> {
        self.check()?;
        let matches = |group: &&Group| vars.names().any(|name| name_matches(&group.pattern, name));
        if let Some(group) = self.groups.iter().find(|g| !matches(g)) {
            return Err(no_match("pattern of a group", &group.pattern, vars));
        }
        let (vars, _) = vars
            .trained()
            .partition(|name| self.last(name, |g| g.frozen) != Some(true));
        let settings = vars.names().map(|name| Resolved {
            lr_scale: self.last(name, |g| g.lr_scale).unwrap_or(1.0),
            weight_decay: self
                .last(name, |g| g.weight_decay)
                .unwrap_or(self.weight_decay),
            block: self.last(name, |g| g.block),
            allow_unreached: self.allow_unreached.iter().any(|p| name_matches(p, name)),
        });
        let settings = settings.collect();
        Ok((vars, settings))
    }

    fn check(&self) -> Result<()> {
        positive("learning rate", self.lr)?;
        not_negative("weight decay", self.weight_decay)?;
        for group in &self.groups {
            not_negative("lr_scale of a group", group.lr_scale.unwrap_or(1.0))?;
            not_negative("weight decay of a group", group.weight_decay.unwrap_or(0.0))?;
        }
        positive("clip_norm", self.clip_norm.unwrap_or(1.0))?;
        self.bound.map_or(Ok(()), |bound| bound.check())?;
        positive("clip_value", self.clip_value.unwrap_or(1.0))
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

pub(crate) fn positive(what: &'static str, x: f64) -> Result<()> {
    setting(what, x > 0.0 && x.is_finite(), "a finite number above 0", x)
}

pub(crate) fn not_negative(what: &'static str, x: f64) -> Result<()> {
    setting(
        what,
        x >= 0.0 && x.is_finite(),
        "a finite number of at least 0",
        x,
    )
}

pub(crate) fn fraction(what: &'static str, x: f64) -> Result<()> {
    setting(what, (0.0..1.0).contains(&x), "a number in 0..1", x)
}
