//! What a classifier's classes are called.

use crate::config::LABELS;
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::HashSet;

/// The names of a classifier's classes, by number: `LABEL_0` and so on where they have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labels(Vec<String>);

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
        Self((0..count).map(nameless).collect())
    }

    /// The same with names, one for each and no two alike.
    pub fn named(&self, names: &[String]) -> Result<Self> {
        let different: HashSet<&String> = names.iter().collect();
        match names.len() == self.len() && different.len() == names.len() {
            true => Ok(Self(names.to_vec())),
            false => Err(Error::Input {
                what: "names of labels",
                expected: format!("{} names, no two alike", self.len()),
                got: format!("{names:?}"),
            }),
        }
    }

    /// Those of a config.json's `id2label`, if it has a name of its own for each of so many.
    pub fn in_config(&self, id2label: &Value) -> Option<Self> {
        let by_id = id2label.as_object()?;
        let name = |id: usize| by_id.get(&id.to_string())?.as_str().map(String::from);
        let names: Option<Vec<String>> = (0..self.len()).map(name).collect();
        let names = names.filter(|_| by_id.len() == self.len())?;
        self.named(&names).ok()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Their names, unless these say nothing.
    pub fn own_names(&self) -> Option<&[String]> {
        let nameless = self
            .0
            .iter()
            .enumerate()
            .all(|(id, name)| *name == nameless(id));
        (!nameless).then_some(self.0.as_slice())
    }
}

/// What transformers calls a class without a name.
fn nameless(id: usize) -> String {
    format!("LABEL_{id}")
}

/// Whether a checkpoint's variable is the last map of a classifier: what decides which label is which.
pub(crate) fn is_head(name: &str) -> bool {
    matches!(name, "classifier.weight" | "classifier.out_proj.weight")
}

/// Names beside those that a checkpoint's classifier was trained for: upper or lower case is the same.
///
/// # Errors
/// [`Error::Labels`] if they are others, or in another order.
pub(crate) fn agree(has: Option<&[String]>, wanted: &[String]) -> Result<()> {
    let Some(has) = has else { return Ok(()) };
    let alike = |(a, b): (&String, &String)| a.to_lowercase() == b.to_lowercase();
    match has.len() == wanted.len() && has.iter().zip(wanted).all(alike) {
        true => Ok(()),
        false => Err(Error::Labels {
            expected: wanted.to_vec(),
            got: has.to_vec(),
        }),
    }
}
