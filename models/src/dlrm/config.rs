//! The sizes of a DLRM and its first numbers.

use super::TABLES;
use crate::error::{Error, Result};
use crate::weights::{Fill, Parameter};
use adahessian::random::Stream;
use serde::{Deserialize, Serialize};

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
    fn interactions(&self) -> usize {
        let n = self.tables.len() + 1;
        self.width() + n * (n - 1) / 2
    }

    pub(super) fn check(&self) -> Result<()> {
        let fail = |field: &'static str, expected: &str, got: String| {
            Err(Error::Config {
                field,
                expected: expected.into(),
                got,
            })
        };
        if self.bottom.len() < 2 || self.bottom.contains(&0) {
            let expected = "at least two widths, none of them 0";
            return fail("bottom", expected, format!("{:?}", self.bottom));
        }
        if self.top.last() != Some(&1) || self.top.contains(&0) {
            let expected = "widths that end with 1, none of them 0";
            return fail("top", expected, format!("{:?}", self.top));
        }
        if self.tables.is_empty() || self.tables.contains(&0) {
            let expected = "at least one table, none of 0 rows";
            return fail("tables", expected, format!("{} tables", self.tables.len()));
        }
        Ok(())
    }

    /// Layers as (name, inputs, outputs): Facebook's numbers count the activations in between.
    pub(super) fn layers(&self) -> [Vec<(String, usize, usize)>; 2] {
        let of = |prefix: &str, widths: &[usize]| {
            let pairs = widths.windows(2).enumerate();
            pairs
                .map(|(i, pair)| (format!("{prefix}.{}", 2 * i), pair[0], pair[1]))
                .collect()
        };
        let mut top = vec![self.interactions()];
        top.extend(&self.top);
        [of("bot_l", &self.bottom), of("top_l", &top)]
    }

    /// W ~ N(0, 2/(inputs + outputs)), b ~ N(0, 1/outputs).
    pub(super) fn parameters(&self) -> Vec<Parameter> {
        let layers = self.layers().into_iter().flatten();
        let parameters = layers.flat_map(|(name, inputs, outputs)| {
            let weight = Fill::Deviation((2.0 / (inputs + outputs) as f64).sqrt());
            let bias = Fill::Deviation((1.0 / outputs as f64).sqrt());
            [
                Parameter::new(format!("{name}.weight"), &[outputs, inputs], weight),
                Parameter::new(format!("{name}.bias"), &[outputs], bias),
            ]
        });
        parameters.collect()
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
