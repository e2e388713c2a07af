//! Correlations of predicted values with their targets.

use super::{Scores, check_lengths};
use crate::error::Result;

/// Which correlations an evaluation reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorrelationMetric {
    /// Pearson's.
    Pearson,
    /// Spearman's.
    Spearman,
    /// Both; the main value is `combined`, their mean (STS-B).
    PearsonSpearman,
}

impl CorrelationMetric {
    /// The report for these predictions.
    ///
    /// # Errors
    /// [`crate::Error::Metric`] for different lengths or no examples.
    pub fn scores(self, predictions: &[f64], targets: &[f64]) -> Result<Scores> {
        match self {
            Self::Pearson => Ok(Scores::new("pearson", pearson(predictions, targets)?)),
            Self::Spearman => Ok(Scores::new("spearman", spearman(predictions, targets)?)),
            Self::PearsonSpearman => correlations(predictions, targets),
        }
    }
}

/// Pearson and Spearman, with the main value `combined`, their mean (STS-B).
///
/// # Errors
/// [`crate::Error::Metric`] for different lengths or no examples.
pub fn correlations(predictions: &[f64], targets: &[f64]) -> Result<Scores> {
    let pearson = pearson(predictions, targets)?;
    let spearman = spearman(predictions, targets)?;
    let combined = Scores::new("combined", 0.5 * (pearson + spearman));
    Ok(combined.with("pearson", pearson).with("spearman", spearman))
}

/// Pearson's correlation Σ (x - x̄)(y - ȳ) / √(Σ (x - x̄)² Σ (y - ȳ)²), in -1..=1.
///
/// 0.0 where either side is constant (also for a single example): SciPy gives NaN there.
///
/// # Errors
/// [`crate::Error::Metric`] for different lengths or no examples.
pub fn pearson(predictions: &[f64], targets: &[f64]) -> Result<f64> {
    check_lengths("pearson", predictions.len(), targets.len())?;
    Ok(correlation(predictions, targets))
}

/// Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of their ranks.
///
/// 0.0 where either side is constant, see [`pearson`]; NaN where a value is NaN.
///
/// # Errors
/// [`crate::Error::Metric`] for different lengths or no examples.
pub fn spearman(predictions: &[f64], targets: &[f64]) -> Result<f64> {
    check_lengths("spearman", predictions.len(), targets.len())?;
    if predictions.iter().chain(targets).any(|x| x.is_nan()) {
        return Ok(f64::NAN);
    }
    Ok(correlation(&ranks(predictions), &ranks(targets)))
}

fn correlation(x: &[f64], y: &[f64]) -> f64 {
    // Compared exactly: a rounded mean would leave a tiny variance to a constant 0.1.
    if is_constant(x) || is_constant(y) {
        return 0.0;
    }
    let (x, y) = (centred(x), centred(y));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let norm = dot(&x, &x).sqrt() * dot(&y, &y).sqrt();
    (dot(&x, &y) / norm).clamp(-1.0, 1.0)
}

fn is_constant(x: &[f64]) -> bool {
    x.windows(2).all(|pair| pair[0] == pair[1])
        // A single NaN has no pair to compare.
        && x.iter().all(|x| !x.is_nan())
}

fn centred(x: &[f64]) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    x.iter().map(|x| x - mean).collect()
}

/// Ranks from 1; equal values get the mean of the ranks that they share.
fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|a, b| x[*a].total_cmp(&x[*b]));
    let mut ranks = vec![0.0; x.len()];
    let mut start = 0;
    for group in order.chunk_by(|a, b| x[*a] == x[*b]) {
        // The ranks start+1 ..= start+len have this mean.
        let mean = start as f64 + (group.len() + 1) as f64 / 2.0;
        for index in group {
            ranks[*index] = mean;
        }
        start += group.len();
    }
    ranks
}
