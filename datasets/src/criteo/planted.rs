//! A known model of clicks, and the rows it draws.

use std::ops::Range;

use super::{CATEGORIES, INTEGERS, Row, Store, mix};
use crate::error::{Error, Result};
use crate::random::Random;

/// Distinct values of each table: those of the contest, the largest tables cut to some 100,000s.
const VALUES: [u32; CATEGORIES] = [
    1460, 583, 500_000, 200_000, 305, 24, 12_517, 633, 3, 93_145, 5683, 400_000, 3194, 27, 14_992,
    300_000, 10, 5652, 2173, 4, 350_000, 18, 15, 286_181, 105, 142_572,
];
/// How often a value is empty, in percent.
const EMPTY_VALUES: [u8; CATEGORIES] = [
    0, 0, 3, 3, 0, 12, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 44, 44, 3, 76, 0, 3, 44, 44,
];
/// Mean and standard deviation of the logarithm of each count.
const LOGARITHMS: [(f64, f64); INTEGERS] = [
    (0.8, 1.0),
    (2.5, 1.8),
    (2.0, 1.3),
    (1.7, 0.8),
    (7.5, 2.2),
    (3.6, 1.4),
    (1.8, 1.3),
    (2.0, 0.9),
    (3.9, 1.2),
    (0.2, 0.5),
    (0.9, 0.8),
    (0.1, 0.7),
    (1.6, 0.9),
];
/// How often a count is empty, in percent.
const EMPTY_INTEGERS: [u8; INTEGERS] = [45, 0, 21, 22, 3, 22, 4, 0, 4, 45, 4, 77, 22];
/// The count that this is taken from, so that some are negative, as in the contest.
const NEGATIVE: (usize, i32) = (1, 3);
/// Weights of the logarithms of the counts.
const WEIGHTS: [f64; INTEGERS] = [
    0.25, 0.06, 0.0, -0.1, -0.08, -0.12, 0.2, 0.0, -0.06, 0.3, 0.15, 0.0, -0.1,
];
/// Pairs of tables whose values work together.
const PAIRS: [(usize, usize); 4] = [(5, 8), (13, 19), (16, 22), (0, 4)];
/// The largest effect of a value, of an empty count, and of a pair of values on the logit.
const EFFECTS: (f64, f64, f64) = (0.45, 0.2, 0.6);
/// The share of clicks that the bias is chosen for.
const CLICK_RATE: f64 = 0.25;
/// Rows that the bias is chosen by.
const SAMPLE: u64 = 4096;
/// Fills up the hash of a pair, so that it is never that of a single value.
const PAIR: u64 = 1 << 63;

/// A model of clicks: the logit is a bias, an effect of each categorical value, of four pairs of
/// values, and of the counts' logarithms; all a function of the seed.
///
/// Values of a table come about as often as by Zipf's law, counts are about log-normal, and a
/// quarter of the rows are clicks. The probability of a click is known, and with it the smallest
/// log loss that any model can reach.
#[derive(Debug, Clone)]
pub struct Planted {
    seed: u64,
    bias: f64,
}

impl Planted {
    /// The model number `seed`.
    pub fn new(seed: u64) -> Self {
        let mut model = Self { seed, bias: 0.0 };
        let logits: Vec<f64> = (0..SAMPLE)
            .map(|index| model.logit(&model.unlabelled(&mut model.random(index))))
            .collect();
        let (mut low, mut high) = (-20.0, 20.0);
        // 60 halvings of 40 are below the precision of a number near 1.
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            let clicks: f64 = logits.iter().map(|logit| sigmoid(logit + middle)).sum();
            match clicks < CLICK_RATE * SAMPLE as f64 {
                true => low = middle,
                false => high = middle,
            }
        }
        model.bias = low;
        model
    }

    /// Row number `index`, labelled; a function of the seed and of `index`.
    pub fn row(&self, index: u64) -> Row {
        self.draw(index).0
    }

    /// A row and its probability of a click.
    pub(super) fn draw(&self, index: u64) -> (Row, f64) {
        let mut random = self.random(index);
        let mut row = self.unlabelled(&mut random);
        let probability = self.probability(&row);
        row.label = Some(random.uniform(0.0, 1.0) < probability);
        (row, probability)
    }

    /// The probability of a click in this row; its label is not looked at.
    pub fn probability(&self, row: &Row) -> f64 {
        sigmoid(self.logit(row))
    }

    /// The logarithm of the odds of a click in this row.
    pub fn logit(&self, row: &Row) -> f64 {
        let (of_value, of_empty, of_pair) = EFFECTS;
        let mut logit = self.bias;
        for (table, &value) in row.categories.iter().enumerate() {
            logit += of_value * self.effect(key(table, value));
        }
        for (number, (one, other)) in PAIRS.into_iter().enumerate() {
            let (one, other) = (
                key(one, row.categories[one]),
                key(other, row.categories[other]),
            );
            let pair = mix(one) ^ other ^ PAIR ^ number as u64;
            logit += of_pair * self.effect(pair);
        }
        for (column, integer) in row.integers.iter().enumerate() {
            logit += match integer {
                Some(count) => {
                    let logarithm = libm::log1p(f64::from((*count).max(0)));
                    WEIGHTS[column] * (logarithm - LOGARITHMS[column].0)
                }
                None => of_empty * self.effect(key(CATEGORIES + column, None)),
            };
        }
        logit
    }

    /// The logits of some rows of a store of all rows of this model, from row 0 on, and their labels: what nobody
    /// can do better than, on average.
    ///
    /// # Errors
    /// If a row's label is not the one that the model drew: the store is another one.
    pub fn logits(&self, store: &Store, rows: Range<usize>) -> Result<(Vec<f64>, Vec<bool>)> {
        let of_row = |index| {
            let row = self.row(index as u64);
            if row.label != store.label(index) {
                return Err(Error::Setting {
                    name: "seed of the planted model",
                    got: self.seed.to_string(),
                    expected: format!(
                        "that of {}; its row {index} is another one",
                        store.path().display()
                    ),
                });
            }
            Ok((self.logit(&row), row.label == Some(true)))
        };
        rows.map(of_row).collect()
    }

    /// A number in -1..1, a function of the seed and of `key`.
    fn effect(&self, key: u64) -> f64 {
        let hash = mix(mix(self.seed) ^ key);
        (hash >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    fn random(&self, index: u64) -> Random {
        Random::of_example(self.seed, 0, index)
    }

    fn unlabelled(&self, random: &mut Random) -> Row {
        let mut row = Row {
            label: None,
            integers: [None; INTEGERS],
            categories: [None; CATEGORIES],
        };
        for (column, integer) in row.integers.iter_mut().enumerate() {
            if let Some(first) = unless(random, EMPTY_INTEGERS[column]) {
                // Four uniform numbers have a sum of mean 2 and variance 1/3.
                let sum = first + (0..3).map(|_| random.uniform(0.0, 1.0)).sum::<f64>();
                let (mean, deviation) = LOGARITHMS[column];
                let count = libm::exp(mean + deviation * (sum - 2.0) * 3f64.sqrt()) as i32;
                let less = if column == NEGATIVE.0 { NEGATIVE.1 } else { 0 };
                *integer = Some(count - less);
            }
        }
        for (table, category) in row.categories.iter_mut().enumerate() {
            *category = unless(random, EMPTY_VALUES[table]).map(|uniform| {
                // The rank r has a density of 1 / r: Zipf's law.
                let largest = f64::from(VALUES[table]);
                let rank = libm::exp(uniform * libm::log(largest + 1.0)) as u32;
                name(table, rank.clamp(1, VALUES[table]))
            });
        }
        row
    }
}

/// `None` in `percent` of cases, else a uniform number in 0..1.
fn unless(random: &mut Random, percent: u8) -> Option<f64> {
    let (uniform, limit) = (random.uniform(0.0, 1.0), f64::from(percent) / 100.0);
    (uniform >= limit).then(|| (uniform - limit) / (1.0 - limit))
}

/// The value of rank `rank` in a table; different ranks have different values, as every step is a
/// bijection of the integers of 32 bits.
fn name(table: usize, rank: u32) -> u32 {
    let value = rank ^ mix(table as u64) as u32;
    let value = (value ^ (value >> 16)).wrapping_mul(0x85eb_ca6b);
    let value = (value ^ (value >> 13)).wrapping_mul(0xc2b2_ae35);
    value ^ (value >> 16)
}

/// A number that no other value of any table has.
fn key(table: usize, value: Option<u32>) -> u64 {
    (table as u64) << 33 | value.map_or(1 << 32, u64::from)
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-logit))
}
