//! The sizes of a DLRM and its tables' first numbers.

use super::TABLES;
use crate::config::{require, within};
use crate::error::Result;
use adahessian::random::Stream;
use serde::{Deserialize, Serialize};

/// The widest layer.
const WIDEST: usize = 1 << 16;
/// The most numbers in tables: 2³⁸, a terabyte in f32.
const MOST_NUMBERS: usize = 1 << 38;
/// The most tables.
const MOST_TABLES: usize = 1 << 12;

/// The sizes of a DLRM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Widths of the bottom network, from the number of dense features to the tables' width.
    pub bottom: Vec<usize>,
    /// Rows of each table.
    pub tables: Vec<usize>,
    /// Widths of the top network after its input, the last one being 1.
    pub top: Vec<usize>,
}

impl Config {
    /// The network of the paper's Criteo Kaggle experiment: 13-512-256-64-16, 26 tables of width 16,
    /// 367-512-256-1.
    pub fn kaggle(tables: Vec<usize>) -> Self {
        Self {
            bottom: vec![13, 512, 256, 64, 16],
            tables,
            top: vec![512, 256, 1],
        }
    }

    /// The tables' width m.
    pub fn width(&self) -> usize {
        self.bottom.last().copied().unwrap_or(0)
    }

    /// Rows of all tables together.
    pub fn rows(&self) -> usize {
        self.tables.iter().sum()
    }

    /// Numbers that the top network reads.
    pub(super) fn interactions(&self) -> usize {
        let n = self.tables.len() + 1;
        self.width() + n * (n - 1) / 2
    }

    pub(super) fn check(&self) -> Result<()> {
        let widths = |widths: &[usize]| widths.iter().all(|w| (1..=WIDEST).contains(w));
        let (bottom, top, tables) = (&self.bottom, &self.top, &self.tables);
        let fits = bottom.len() >= 2 && widths(bottom);
        let expected = format!("at least two widths of 1 to {WIDEST}");
        require(fits, "bottom", expected, format!("{bottom:?}"))?;
        let fits = top.last() == Some(&1) && widths(top);
        let expected = format!("widths of 1 to {WIDEST} that end with 1");
        require(fits, "top", expected, format!("{top:?}"))?;
        within("number of tables", tables.len(), 1..=MOST_TABLES)?;
        let empty = tables.iter().position(|rows| *rows == 0);
        let got = format!("none in table {}", empty.unwrap_or(0));
        require(
            empty.is_none(),
            "tables",
            "at least one row in each, not 0 rows",
            got,
        )?;
        // Rows have numbers of 32 bits.
        let rows = tables
            .iter()
            .try_fold(0, |all: usize, rows| all.checked_add(*rows));
        let rows = rows.unwrap_or(usize::MAX);
        within("rows of all tables", rows, 1..=u32::MAX as usize)?;
        let numbers = rows.saturating_mul(self.width());
        within("numbers of all tables", numbers, 1..=MOST_NUMBERS)?;
        Ok(())
    }
}

/// The first numbers of a row: table i uniform within 1/√rows.
pub(super) fn initial(config: &Config, seed: u64) -> impl Fn(usize, &mut [f64]) + Sync + use<> {
    let stream = Stream::new(seed, &format!("weight/{TABLES}"), 0, 0);
    let ends = config.tables.iter().scan(0, |end, &rows| {
        *end += rows;
        Some((*end, 1.0 / (rows as f64).sqrt()))
    });
    let ends: Vec<(usize, f64)> = ends.collect();
    move |row, numbers| {
        let table = ends.partition_point(|(end, _)| *end <= row);
        let bound = ends.get(table).map_or(0.0, |(_, bound)| *bound);
        stream.uniform_from(row * numbers.len(), numbers);
        numbers
            .iter_mut()
            .for_each(|x| *x = bound * (2.0 * *x - 1.0));
    }
}
