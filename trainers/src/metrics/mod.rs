//! Metrics of classification, regression and names in sentences, and the report of an evaluation.
//!
//! All are computed in f64 and agree with scikit-learn and SciPy, except that nothing here is
//! "not a number" for finite predictions: where a coefficient is undefined because one side is
//! constant, it is 0.0 (no relation was shown). scikit-learn does the same for F1 and Matthews;
//! SciPy gives NaN for its correlations, which would make an untrained model's evaluation look
//! like a diverged one. Predictions that are themselves NaN give NaN.

mod classes;
mod clicks;
mod correlation;
mod entities;
mod metric;
mod scores;
mod top_k;

pub use classes::{ClassMetric, accuracy, f1, matthews};
pub use clicks::{ClickWarnings, clicks};
pub use correlation::{CorrelationMetric, correlations, pearson, spearman};
pub use entities::{EntityMetric, entities};
pub use metric::{METRICS, Metric, metric_by_name};
pub use scores::Scores;
pub use top_k::top_k_hits;

use crate::error::{Error, Result};

fn check_lengths(metric: &'static str, predictions: usize, targets: usize) -> Result<()> {
    match predictions == targets && targets > 0 {
        true => Ok(()),
        false => Err(Error::Metric {
            metric,
            expected: "as many predictions as targets, and at least one",
            got: format!("{predictions} predictions and {targets} targets"),
        }),
    }
}
