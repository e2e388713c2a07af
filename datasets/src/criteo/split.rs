//! Which rows are for training, for tests and for validation.

use std::ops::Range;

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

/// `count` days of `rows` rows, as Facebook's program cuts them: the file of the contest has seven
/// days one after the other but does not tell where one ends.
pub(super) fn days(rows: usize, count: usize) -> Result<Days> {
    if count < 2 {
        return Err(Error::Setting {
            name: "days",
            got: count.to_string(),
            expected: "at least 2: the last one is not trained on".to_string(),
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
