//! Which rows are for training, for tests and for validation.

use std::ops::Range;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A click log cut into days; all ranges are of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Days {
    /// All days; of equal length, up to one row more in the first ones.
    pub each: Vec<Range<usize>>,
    /// All days but the last.
    pub train: Range<usize>,
    /// The first half of the last day, the longer one.
    pub test: Range<usize>,
    /// The second half of the last day.
    pub validation: Range<usize>,
}

impl Days {
    /// The rows of a part.
    pub fn rows(&self, part: Part) -> Range<usize> {
        match part {
            Part::All => 0..self.validation.end,
            Part::Train => self.train.clone(),
            Part::Test => self.test.clone(),
            Part::Validation => self.validation.clone(),
            Part::LastDay => self.test.start..self.validation.end,
        }
    }
}

/// A part of [`Days`] by its name on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `all`: every row.
    All,
    /// `train`: all days but the last.
    Train,
    /// `test`: the first half of the last day.
    Test,
    /// `validation`: its second half.
    Validation,
    /// `last-day`: both halves.
    LastDay,
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "all" => Self::All,
            "train" => Self::Train,
            "test" => Self::Test,
            "validation" => Self::Validation,
            "last-day" => Self::LastDay,
            other => {
                return Err(Error::Setting {
                    name: "part of the days",
                    got: crate::excerpt::cut(other),
                    expected: "test, validation, last-day, train or all".to_string(),
                });
            }
        })
    }
}

/// `count` days of `rows` rows, as Facebook's program cuts them: the file of the contest has seven
/// days one after the other but does not tell where one ends.
pub(super) fn days(rows: usize, count: usize) -> Result<Days> {
    if count < 2 || count > rows {
        return Err(Error::Setting {
            name: "days",
            got: count.to_string(),
            expected: format!(
                "at least 2, as the last one is not trained on, and at most a day for each of the {rows} rows"
            ),
        });
    }
    let (length, longer) = (rows / count, rows % count);
    let start = |day: usize| day * length + day.min(longer);
    let each: Vec<_> = (0..count).map(|day| start(day)..start(day + 1)).collect();
    let last = start(count - 1);
    let middle = last + (rows - last).div_ceil(2);
    Ok(Days {
        each,
        train: 0..last,
        test: last..middle,
        validation: middle..rows,
    })
}

/// Consecutive ranges; each ends at the rounded sum of the fractions so far.
pub(super) fn fractions(rows: usize, fractions: &[f64]) -> Result<Vec<Range<usize>>> {
    let sum: f64 = fractions.iter().sum();
    if fractions.iter().any(|&f| f.is_nan() || f < 0.0) || sum > 1.0 + 1e-9 {
        return Err(Error::Setting {
            name: "fractions",
            got: format!("{fractions:?}"),
            expected: "numbers from 0 on, with a sum of at most 1".to_string(),
        });
    }
    let (mut start, mut sum) = (0, 0.0);
    let mut range = |fraction: &f64| {
        sum += fraction;
        let end = ((rows as f64 * sum).round() as usize).clamp(start, rows);
        std::mem::replace(&mut start, end)..end
    };
    Ok(fractions.iter().map(&mut range).collect())
}
