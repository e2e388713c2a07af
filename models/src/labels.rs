//! What a classifier's classes are called.

use crate::config::LABELS;
use crate::error::{Error, Result};
use crate::weights::LoadReport;
use serde_json::Value;
use std::collections::HashSet;

/// The names of a classifier's classes, by number: `LABEL_0` and so on where they have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labels {
    names: Vec<String>,
    /// Whether a checkpoint brought the classifier, and these are its names.
    fixed: bool,
}

impl Labels {
    /// Whether there may be so many.
    pub fn check(count: usize) -> Result<()> {
        match (1..=LABELS).contains(&count) {
            true => Ok(()),
            false => Err(Error::Input {
                what: "number of labels",
                expected: format!("1 (for sequences a regression) to {LABELS}"),
                got: count.to_string(),
            }),
        }
    }

    /// So many without names.
    pub fn nameless(count: usize) -> Self {
        Self {
            names: (0..count).map(|id| format!("LABEL_{id}")).collect(),
            fixed: false,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether anybody named them.
    pub fn are_named(&self) -> bool {
        *self != Self::nameless(self.len())
    }

    /// With other names, one for each and no two alike. Those that a checkpoint's classifier was trained for can only be
    /// written otherwise: in upper or lower case.
    pub fn renamed(&self, names: &[String]) -> Result<Self> {
        let different: HashSet<&String> = names.iter().collect();
        if names.len() != self.len() || different.len() != names.len() {
            return Err(Error::Input {
                what: "names of labels",
                expected: format!("{} names, no two alike", self.len()),
                got: format!("{names:?}"),
            });
        }
        let alike = |(a, b): (&String, &String)| a.to_lowercase() == b.to_lowercase();
        match !self.fixed || self.names.iter().zip(names).all(alike) {
            true => Ok(Self {
                names: names.to_vec(),
                fixed: self.fixed,
            }),
            false => Err(Error::Labels {
                expected: names.to_vec(),
                got: self.names.clone(),
            }),
        }
    }

    /// After a checkpoint was read: with the names of its config.json's `id2label`, if the classifier came from there and
    /// each of its classes has a name of its own.
    pub fn after_reading(self, id2label: &Value, report: &LoadReport) -> Self {
        match self.in_config(id2label) {
            Some(labels) if Self::are_of(report) && labels != self => Self {
                fixed: true,
                ..labels
            },
            _ => self,
        }
    }

    /// Whether the checkpoint has brought what decides which class is which: the last map.
    pub fn are_of(report: &LoadReport) -> bool {
        let is_last = |name: &String| {
            matches!(
                name.as_str(),
                "classifier.weight" | "classifier.out_proj.weight" | "fc.weight"
            )
        };
        report.loaded.iter().any(is_last)
    }

    fn in_config(&self, id2label: &Value) -> Option<Self> {
        let by_id = id2label.as_object()?;
        let name = |id: usize| by_id.get(&id.to_string())?.as_str().map(String::from);
        let names: Option<Vec<String>> = (0..self.len()).map(name).collect();
        let names = names.filter(|_| by_id.len() == self.len())?;
        self.renamed(&names).ok()
    }
}
