//! The result of an evaluation.

use crate::error::Error;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt;
use std::str::FromStr;

/// Named values in the order they were added. The first is the main one: it decides what the best
/// checkpoint is, early stopping, and the learning rate on a plateau.
///
/// As text, `higher accuracy=0.5 loss=0.7`, it reads back to the same bits. Serialised, it is a
/// map from name to value.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    values: Vec<(String, f64)>,
    higher_is_better: bool,
}

impl Scores {
    /// A report whose main value should be high.
    pub fn new(name: &str, value: f64) -> Self {
        Self {
            values: vec![(clean(name), value)],
            higher_is_better: true,
        }
    }

    /// A report whose main value should be low, such as a loss.
    pub fn lower_is_better(name: &str, value: f64) -> Self {
        Self {
            higher_is_better: false,
            ..Self::new(name, value)
        }
    }

    /// Adds a value that is only reported.
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.values.push((clean(name), value));
        self
    }

    /// Adds the values of another report, their names with this ending; they are only reported.
    pub fn and(self, other: &Self, suffix: &str) -> Self {
        let values = other.iter();
        values.fold(self, |all, (name, value)| {
            all.with(&format!("{name}{suffix}"), value)
        })
    }

    /// The main value's name.
    pub fn main_name(&self) -> &str {
        // There is always a first one: both constructors and the parser put it there.
        self.values.first().map_or("", |(name, _)| name)
    }

    /// The main value.
    pub fn main(&self) -> f64 {
        self.values.first().map_or(f64::NAN, |(_, value)| *value)
    }

    /// Whether a higher main value is better.
    pub fn higher_is_better(&self) -> bool {
        self.higher_is_better
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        let found = self.values.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| *value)
    }

    /// All (name, value) pairs in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, f64)> {
        self.values
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
    }

    /// Whether this main value is better than the other's.
    pub fn better_than(&self, other: &Self) -> bool {
        match self.higher_is_better {
            true => self.main() > other.main(),
            false => self.main() < other.main(),
        }
    }
}

/// Names are words in the text form: what would cut them becomes an underscore.
fn clean(name: &str) -> String {
    let replace = |c: char| {
        if c.is_whitespace() || c == '=' {
            '_'
        } else {
            c
        }
    };
    name.chars().map(replace).collect()
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.higher_is_better {
            "higher"
        } else {
            "lower"
        })?;
        let mut values = self.values.iter();
        values.try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

impl FromStr for Scores {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = || Error::Setting {
            what: "scores",
            expected: "`higher` or `lower` and at least one name=value".into(),
            got: format!("`{text}`"),
        };
        let mut words = text.split_whitespace();
        let higher_is_better = match words.next() {
            Some("higher") => true,
            Some("lower") => false,
            _ => return Err(error()),
        };
        let pair = |word: &str| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let values: Option<Vec<_>> = words.map(pair).collect();
        let values = values.filter(|v| !v.is_empty()).ok_or_else(error)?;
        Ok(Self {
            values,
            higher_is_better,
        })
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len()))?;
        for (name, value) in &self.values {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
