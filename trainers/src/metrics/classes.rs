//! Metrics on predicted classes.

use super::{Scores, check_lengths};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which metrics a classification reports. The names are those of the GLUE tasks' metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassMetric {
    /// Accuracy (SST-2, MNLI, QNLI, RTE, WNLI).
    #[default]
    Accuracy,
    /// Binary F1.
    F1,
    /// Accuracy and binary F1; the main value is `combined`, their mean (MRPC, QQP).
    AccuracyF1,
    /// Matthews' correlation (CoLA).
    Matthews,
}

impl ClassMetric {
    /// The report for these predictions.
    ///
    /// # Errors
    /// [`Error::Metric`] for different lengths, no examples, or F1 of other classes than 0 and 1.
    pub fn scores(self, predictions: &[u32], targets: &[u32]) -> Result<Scores> {
        match self {
            Self::Accuracy => Ok(Scores::new("accuracy", accuracy(predictions, targets)?)),
            Self::F1 => Ok(Scores::new("f1", f1(predictions, targets)?)),
            Self::Matthews => Ok(Scores::new("matthews", matthews(predictions, targets)?)),
            Self::AccuracyF1 => {
                let (accuracy, f1) = (accuracy(predictions, targets)?, f1(predictions, targets)?);
                let combined = Scores::new("combined", 0.5 * (accuracy + f1));
                Ok(combined.with("accuracy", accuracy).with("f1", f1))
            }
        }
    }
}

/// The share of predictions, in 0..=1, that equal their target.
///
/// # Errors
/// [`Error::Metric`] for different lengths or no examples.
pub fn accuracy(predictions: &[u32], targets: &[u32]) -> Result<f64> {
    check_lengths("accuracy", predictions.len(), targets.len())?;
    let equal = predictions
        .iter()
        .zip(targets)
        .filter(|(p, t)| p == t)
        .count();
    Ok(equal as f64 / targets.len() as f64)
}

/// F1 of class 1 against class 0: 2 TP / (2 TP + FP + FN), the harmonic mean of precision and
/// recall. 0.0 where class 1 neither occurs nor is predicted, as scikit-learn has it.
///
/// # Errors
/// [`Error::Metric`] for different lengths, no examples, or a class above 1.
pub fn f1(predictions: &[u32], targets: &[u32]) -> Result<f64> {
    check_lengths("f1", predictions.len(), targets.len())?;
    if let Some(class) = predictions.iter().chain(targets).find(|c| **c > 1) {
        return Err(Error::Metric {
            metric: "f1",
            expected: "classes 0 and 1",
            got: format!("class {class}"),
        });
    }
    let pairs = || predictions.iter().zip(targets);
    let hits = pairs().filter(|(p, t)| **p == 1 && **t == 1).count() as f64;
    let errors = pairs().filter(|(p, t)| p != t).count() as f64;
    match hits {
        0.0 => Ok(0.0),
        _ => Ok(2.0 * hits / (2.0 * hits + errors)),
    }
}

/// Matthews' correlation coefficient, for two classes the Pearson correlation of the indicator
/// variables, for more its generalisation R_K (Gorodkin 2004):
///
/// ```text
/// R = (c n - Σₖ pₖ tₖ) / √((n² - Σₖ pₖ²)(n² - Σₖ tₖ²))
/// ```
///
/// with n examples, c hits, and pₖ, tₖ how often class k is predicted and true. 0.0 where all
/// predictions or all targets are one class, as scikit-learn has it.
///
/// # Errors
/// [`Error::Metric`] for different lengths or no examples.
pub fn matthews(predictions: &[u32], targets: &[u32]) -> Result<f64> {
    check_lengths("matthews", predictions.len(), targets.len())?;
    let n = targets.len() as f64;
    let hits = predictions
        .iter()
        .zip(targets)
        .filter(|(p, t)| p == t)
        .count() as f64;
    let mut counts: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    for (prediction, target) in predictions.iter().zip(targets) {
        counts.entry(*prediction).or_default().0 += 1.0;
        counts.entry(*target).or_default().1 += 1.0;
    }
    let sum = |f: fn(&(f64, f64)) -> f64| counts.values().map(f).sum::<f64>();
    let covariance = hits * n - sum(|(p, t)| p * t);
    let product = (n * n - sum(|(p, _)| p * p)) * (n * n - sum(|(_, t)| t * t));
    match product {
        0.0 => Ok(0.0),
        _ => Ok(covariance / product.sqrt()),
    }
}
