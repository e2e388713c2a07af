//! What BLEU counts, which adds up.

use crate::error::{Error, Result};
use std::collections::HashMap;
use std::hash::Hash;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// N-grams of 1 .. `ORDERS` tokens are counted.
pub const ORDERS: usize = 4;

/// All that BLEU needs to know of a corpus. Those of its parts add up to those of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BleuStatistics {
    /// How many n-grams of the hypotheses are in a reference, by n - 1; each as often at most as it is in the
    /// reference that has it most often.
    pub matched: [u64; ORDERS],
    /// How many n-grams the hypotheses have, by n - 1.
    pub total: [u64; ORDERS],
    /// The tokens of the hypotheses.
    pub hypothesis_length: u64,
    /// The tokens of the references, of each sentence the one whose length is closest to the hypothesis', and
    /// the shorter of two that are equally close.
    pub reference_length: u64,
}

impl BleuStatistics {
    /// Those of one sentence's tokens, of whatever kind, against one or several references.
    ///
    /// # Errors
    /// [`Error::Metric`] without a reference.
    pub fn of<T: Eq + Hash>(hypothesis: &[T], references: &[&[T]]) -> Result<Self> {
        let lengths = references.iter().map(|reference| reference.len());
        let closest = lengths.min_by_key(|length| (length.abs_diff(hypothesis.len()), *length));
        let Some(closest) = closest else {
            return Err(wrong("a reference at least", "none".into()));
        };
        let mut statistics = Self {
            hypothesis_length: hypothesis.len() as u64,
            reference_length: closest as u64,
            ..Self::default()
        };
        for order in 1..=ORDERS {
            let known = most_often(references, order);
            for (ngram, count) in counted(hypothesis, order) {
                let limit = known.get(ngram).copied().unwrap_or(0);
                statistics.total[order - 1] += count;
                statistics.matched[order - 1] += count.min(limit);
            }
        }
        Ok(statistics)
    }
}

impl AddAssign for BleuStatistics {
    fn add_assign(&mut self, other: Self) {
        for order in 0..ORDERS {
            self.matched[order] += other.matched[order];
            self.total[order] += other.total[order];
        }
        self.hypothesis_length += other.hypothesis_length;
        self.reference_length += other.reference_length;
    }
}

impl Add for BleuStatistics {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sum for BleuStatistics {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Self::add)
    }
}

/// The statistics of a corpus whose sentences `split` cuts into tokens. References are lists as long as the
/// hypotheses' one, whose sentences they translate in the same order.
pub(super) fn corpus<H, R, F>(
    hypotheses: &[H],
    references: &[&[R]],
    split: F,
) -> Result<BleuStatistics>
where
    H: AsRef<str>,
    R: AsRef<str>,
    F: Fn(&str) -> Vec<String>,
{
    let is_other = |list: &&&[R]| list.len() != hypotheses.len();
    if let Some(other) = references.iter().find(is_other) {
        let got = format!(
            "{} hypotheses, {} references",
            hypotheses.len(),
            other.len()
        );
        return Err(wrong("a reference for each hypothesis", got));
    }
    if hypotheses.is_empty() || references.is_empty() {
        let got = format!(
            "{} hypotheses, {} lists of references",
            hypotheses.len(),
            references.len()
        );
        return Err(wrong("a hypothesis and a reference at least", got));
    }
    let sentence = |(index, hypothesis): (usize, &H)| {
        let of = |list: &&[R]| split(list[index].as_ref());
        let known: Vec<Vec<String>> = references.iter().map(of).collect();
        let known: Vec<&[String]> = known.iter().map(Vec::as_slice).collect();
        BleuStatistics::of(&split(hypothesis.as_ref()), &known)
    };
    hypotheses.iter().enumerate().map(sentence).sum()
}

/// How often each n-gram is there.
fn counted<T: Eq + Hash>(tokens: &[T], order: usize) -> HashMap<&[T], u64> {
    let mut counts = HashMap::new();
    for ngram in tokens.windows(order) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// How often each n-gram is in the reference that has it most often.
fn most_often<'a, T: Eq + Hash>(references: &[&'a [T]], order: usize) -> HashMap<&'a [T], u64> {
    let mut most = HashMap::new();
    for reference in references {
        for (ngram, count) in counted(reference, order) {
            let known: &mut u64 = most.entry(ngram).or_default();
            *known = count.max(*known);
        }
    }
    most
}

fn wrong(expected: &'static str, got: String) -> Error {
    Error::Metric {
        metric: "BLEU",
        expected,
        got,
    }
}
