//! Which pairs are worth training on.

use super::Pair;
use crate::error::{Error, Result};

/// Leaves out pairs that are empty on a side, too long, or of lengths that no translations have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Filter {
    /// The most tokens of either side, without an end.
    pub max_length: usize,
    /// The most times that the longer side may be as long as the shorter one.
    pub max_ratio: f64,
}

impl Default for Filter {
    /// 175 tokens and a ratio of 1.5: the numbers of IWSLT 2014's usual preparation, which counts words before they
    /// are cut into subwords.
    fn default() -> Self {
        Self {
            max_length: 175,
            max_ratio: 1.5,
        }
    }
}

impl Filter {
    /// Leaves out nothing but pairs with an empty side: for validation and test data.
    pub const NONE: Self = Self {
        max_length: usize::MAX,
        max_ratio: f64::INFINITY,
    };

    /// Makes sure that some pair can pass.
    ///
    /// # Errors
    /// If `max_length` is 0, or `max_ratio` is below 1 or not a number.
    pub fn check(&self) -> Result<()> {
        if self.max_length == 0 {
            return Err(Error::Setting {
                name: "max_length",
                got: "0".to_string(),
                expected: "at least one token a side".to_string(),
            });
        }
        if self.max_ratio.is_nan() || self.max_ratio < 1.0 {
            return Err(Error::Setting {
                name: "max_ratio",
                got: self.max_ratio.to_string(),
                expected: "the longer side's length over the shorter one's, 1 or more".to_string(),
            });
        }
        Ok(())
    }

    /// Whether a pair with so many tokens on its sides is kept.
    pub fn keeps(&self, source: usize, target: usize) -> bool {
        let (short, long) = (source.min(target), source.max(target));
        short > 0 && long <= self.max_length && long as f64 <= self.max_ratio * short as f64
    }

    /// [`Filter::keeps`] with the words between blanks as tokens.
    pub fn keeps_words(&self, pair: &Pair) -> bool {
        let words = |line: &str| line.split_whitespace().count();
        self.keeps(words(&pair.source), words(&pair.target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_ratio_and_empty_sides() {
        let filter = Filter {
            max_length: 6,
            max_ratio: 2.0,
        };
        for (source, target, kept) in [
            (1, 1, true),
            (6, 3, true),
            (3, 6, true),
            (7, 6, false),
            (6, 2, false),
        ] {
            assert_eq!(filter.keeps(source, target), kept, "{source} {target}");
        }
        assert!(
            !Filter::NONE.keeps(0, 1) && !Filter::NONE.keeps(0, 0) && !Filter::NONE.keeps(1, 0)
        );
        assert!(Filter::NONE.keeps(1, 1000));
        assert!(filter.keeps_words(&Pair::new("a b", " c\td ")));
        assert!(!filter.keeps_words(&Pair::new("a b", "  ")));
        assert!(filter.check().is_ok() && Filter::NONE.check().is_ok());
        for max_ratio in [0.5, f64::NAN] {
            assert!(
                Filter {
                    max_ratio,
                    ..filter
                }
                .check()
                .is_err()
            );
        }
        assert!(
            Filter {
                max_length: 0,
                ..filter
            }
            .check()
            .is_err()
        );
    }
}
