//! What becomes of the raw fields, and how two ways of it differ.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What happens to a line that breaks the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Malformed {
    /// It is an error that names file and line.
    #[default]
    Refuse,
    /// It is left out and counted, see [`Summary::skipped`](super::Summary::skipped).
    Skip,
}

/// How raw fields become inputs of a model; that of Facebook's DLRM by default.
///
/// Integers: missing and negative ones become 0, then `x` becomes `log(x + 1)`. Categorical values
/// become ids, see the fields. Files of other preprocessing are refused by
/// [`Store::expect`](super::Store::expect).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Whether lines begin with a label: 40 fields, else 39.
    pub labelled: bool,
    /// The id is the value modulo this number, a missing value counts as 0, and there is no
    /// vocabulary. `None`: ids by order of first appearance.
    pub hash_modulo: Option<u32>,
    /// Values seen less often in their table share id 0, and the others have ids from 1 in the
    /// order of their first appearance. With 1 all values have an id of their own, from 0.
    pub minimum_count: u32,
    /// What happens to lines that break the format.
    pub malformed: Malformed,
}

impl Default for Preprocessing {
    /// Labelled lines, an id for every value, errors for malformed lines.
    fn default() -> Self {
        Self {
            labelled: true,
            hash_modulo: None,
            minimum_count: 1,
            malformed: Malformed::Refuse,
        }
    }
}

impl Preprocessing {
    /// Refuses settings that contradict each other.
    pub(super) fn check(&self) -> Result<()> {
        let at_least = |name, what: &str| refuse(name, 0, format!("at least 1, {what}"));
        if self.minimum_count == 0 {
            return at_least("minimum_count", "which keeps every value");
        }
        match self.hash_modulo {
            Some(0) => at_least("hash_modulo", "the number of ids of a table"),
            Some(modulo) if self.minimum_count > 1 => {
                let expected = "none together with minimum_count above 1, as nothing is counted";
                refuse("hash_modulo", modulo, expected.to_string())
            }
            _ => Ok(()),
        }
    }

    /// Refuses settings that contradict vocabularies made with `minimum_count`.
    pub(super) fn check_with(&self, minimum_count: u32) -> Result<()> {
        if let Some(modulo) = self.hash_modulo {
            let expected = "none together with vocabularies; call prepare for hashes";
            return refuse("hash_modulo", modulo, expected.to_string());
        }
        if self.minimum_count != minimum_count {
            let expected = format!("{minimum_count}, as in the vocabularies");
            return refuse("minimum_count", self.minimum_count, expected);
        }
        Ok(())
    }

    /// How `self`, which is wanted, differs from `other`, which a file has; empty if the records
    /// are the same.
    pub(super) fn differences(&self, other: &Self, skipped: u64) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |name: &str, wanted: String, got: String| {
            if wanted != got {
                differences.push(format!("{name} is {got}, wanted {wanted}"));
            }
        };
        let modulo = |of: &Self| of.hash_modulo.map_or("none".to_string(), |n| n.to_string());
        compare(
            "labelled",
            self.labelled.to_string(),
            other.labelled.to_string(),
        );
        compare("hash_modulo", modulo(self), modulo(other));
        compare(
            "minimum_count",
            self.minimum_count.to_string(),
            other.minimum_count.to_string(),
        );
        if self.malformed == Malformed::Refuse && skipped > 0 {
            differences.push(format!(
                "{skipped} malformed lines were skipped, wanted none"
            ));
        }
        differences
    }
}

fn refuse(name: &'static str, got: u32, expected: String) -> Result<()> {
    Err(Error::Setting {
        name,
        got: got.to_string(),
        expected,
    })
}

/// Logarithms of the small integers, which most are.
static LOGARITHMS: LazyLock<Vec<f32>> = LazyLock::new(|| (0..1 << 15).map(exactly).collect());

/// `log(x + 1)` of a count.
pub(super) fn logarithm(count: u32) -> f32 {
    match LOGARITHMS.get(count as usize) {
        Some(&logarithm) => logarithm,
        None => exactly(count),
    }
}

fn exactly(count: u32) -> f32 {
    f64::from(count).ln_1p() as f32
}
