//! The labels of a data set as classes.

use std::collections::BTreeSet;

use super::Sentence;
use crate::error::{Error, Result};
use crate::excerpt::{cut, excerpt};

/// The labels of the training sentences, sorted; a label's class is its place among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSet(Vec<String>);

impl LabelSet {
    /// The labels that these sentences have. The order of the sentences does not matter.
    ///
    /// # Errors
    /// If they have less than two different labels: there is nothing to learn.
    pub fn of(sentences: &[Sentence]) -> Result<Self> {
        let all: BTreeSet<&String> = sentences.iter().flat_map(|s| &s.labels).collect();
        if all.len() < 2 {
            return Err(Error::Setting {
                name: "labels",
                got: format!(
                    "{} in {} sentences",
                    cut(&format!("{all:?}")),
                    sentences.len()
                ),
                expected: "two different labels or more; is the label in the last column?"
                    .to_string(),
            });
        }
        Ok(Self(all.into_iter().cloned().collect()))
    }

    /// The number of classes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no labels; never so after [`LabelSet::of`].
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels in the order of their classes.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The class of a label.
    pub fn class(&self, label: &str) -> Option<u32> {
        let place = self.0.binary_search_by(|known| known.as_str().cmp(label));
        place.ok().map(|class| class as u32)
    }

    /// The label of a class.
    pub fn name(&self, class: u32) -> Option<&str> {
        self.0.get(class as usize).map(String::as_str)
    }

    /// What a label that is not in the set is told, with where it stands.
    pub(super) fn unseen(&self, place: String, label: &str) -> Error {
        Error::UnseenLabel {
            place,
            expected: excerpt(&self.0.join(", ")),
            got: cut(label),
        }
    }
}
