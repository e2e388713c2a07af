//! Metrics of predicted probabilities of a rare event: clicks.

use super::{Scores, check_lengths};
use crate::error::Result;

/// What [`clicks`] reports beside the scores when they cannot be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClickWarnings {
    /// All labels are the same: there is no AUC, and accuracy says nothing.
    pub one_label: bool,
    /// All predictions are the same number: an AUC of 0.5 and an accuracy of the larger class's share
    /// that look like a model's.
    pub constant: bool,
}

/// The scores of logits against labels 0 and 1, AUC first:
///
/// * `auc`, the probability that a click has a higher logit than what is none, ties counted half:
///   exact, by ranks;
/// * `accuracy` at probability ½;
/// * `loss`, the mean of -log p(label) (log loss);
/// * `normalised_entropy`, the loss over that of the constant prediction of the label rate (He et al.
///   2014, "Practical Lessons from Predicting Clicks on Ads at Facebook"): below 1 is better than nothing;
/// * `label_rate` and `prediction_rate`, the means of labels and probabilities.
///
/// Not-a-number among the logits makes every score but the label rate not-a-number.
///
/// # Errors
/// [`crate::Error::Metric`] for different lengths or no rows.
pub fn clicks(logits: &[f64], labels: &[bool]) -> Result<(Scores, ClickWarnings)> {
    check_lengths("clicks", logits.len(), labels.len())?;
    let count = logits.len() as f64;
    let positive = labels.iter().filter(|l| **l).count() as f64;
    let rate = positive / count;
    let rows = || logits.iter().zip(labels);
    let loss = rows().map(|(&l, &y)| log_loss(l, y)).sum::<f64>() / count;
    let hits = rows().filter(|(l, y)| (**l > 0.0) == **y).count() as f64;
    let broken = logits.iter().any(|l| l.is_nan());
    let entropy = -(x_log_x(rate) + x_log_x(1.0 - rate));
    let known = |value: f64| if broken { f64::NAN } else { value };
    let predicted = logits.iter().map(|l| 1.0 / (1.0 + (-l).exp())).sum::<f64>() / count;
    let scores = Scores::new("auc", known(auc(logits, labels)))
        .with("accuracy", known(hits / count))
        .with("loss", loss)
        .with("normalised_entropy", loss / entropy)
        .with("label_rate", rate)
        .with("prediction_rate", predicted);
    let warnings = ClickWarnings {
        one_label: positive == 0.0 || positive == count,
        constant: logits.iter().all(|l| *l == logits[0]),
    };
    Ok((scores, warnings))
}

/// -log σ(l) for a click, -log σ(-l) for none.
fn log_loss(logit: f64, label: bool) -> f64 {
    let against = if label { -logit } else { logit };
    // `max` would swallow not-a-number.
    let above = if against < 0.0 { 0.0 } else { against };
    above + (-against.abs()).exp().ln_1p()
}

fn x_log_x(x: f64) -> f64 {
    if x > 0.0 { x * x.ln() } else { 0.0 }
}

/// The area under the ROC curve: (Σ ranks of the clicks - P(P+1)/2) / (P N), where equal logits share the
/// mean of their ranks (Mann and Whitney 1947). Not a number where there is one label only.
fn auc(logits: &[f64], labels: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    let (mut ranks, mut before) = (0.0, 0);
    for tied in order.chunk_by(|a, b| logits[*a] == logits[*b]) {
        let mean = before as f64 + (tied.len() as f64 + 1.0) / 2.0;
        ranks += mean * tied.iter().filter(|i| labels[**i]).count() as f64;
        before += tied.len();
    }
    let positive = labels.iter().filter(|l| **l).count() as f64;
    let negative = labels.len() as f64 - positive;
    (ranks - positive * (positive + 1.0) / 2.0) / (positive * negative)
}
