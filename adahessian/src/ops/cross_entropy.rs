//! Softmax cross entropy for classification and language modelling.

use super::wrong;
use crate::error::Result;
use candle_core::{D, DType, Device, Tensor};

/// The mean over the counted rows of -Σ_c q_c log softmax(logits)_c, where q puts 1 - s on the
/// target and spreads s evenly over all C classes (s = `label_smoothing`; 0 is the plain loss).
///
/// `logits` are [N, C], `targets` `[N]` of an integer dtype; rows whose target is `ignore_index` are
/// not counted. The result is a scalar in the logits' dtype.
///
/// log softmax times a constant distribution, because `gather` (in `candle_nn::loss`) fails or is
/// silently wrong at second order as soon as something non-linear follows. The targets are read on
/// the CPU, where they usually come from.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes or dtypes that do not fit, a target that is no class (it
/// says in which row), no counted row at all, and smoothing outside [0, 1].
pub fn cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    label_smoothing: f64,
    ignore_index: Option<i64>,
) -> Result<Tensor> {
    let &[rows, classes] = logits.dims() else {
        return wrong("logits", "[rows, classes]", format!("{:?}", logits.dims()));
    };
    if targets.dims() != [rows] || !targets.dtype().is_int() {
        return wrong(
            "targets",
            format!("[{rows}], integers"),
            format!("{:?} of {:?}", targets.dims(), targets.dtype()),
        );
    }
    if !(0.0..=1.0).contains(&label_smoothing) {
        return wrong(
            "label smoothing",
            "between 0 and 1",
            label_smoothing.to_string(),
        );
    }
    let targets = targets.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let distribution = distribution(&targets, classes, label_smoothing, ignore_index)?;
    let distribution = Tensor::from_vec(distribution, (rows, classes), &Device::Cpu)?;
    let distribution = distribution
        .to_dtype(logits.dtype())?
        .to_device(logits.device())?;
    let log_probabilities = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    Ok((log_probabilities * distribution)?.sum_all()?.neg()?)
}

/// q / (number of counted rows), row by row; zeros in the rows that are ignored.
fn distribution(
    targets: &[i64],
    classes: usize,
    smoothing: f64,
    ignore_index: Option<i64>,
) -> Result<Vec<f64>> {
    let is_counted = |target: &&i64| Some(**target) != ignore_index;
    let counted = targets.iter().filter(is_counted).count();
    if counted == 0 {
        let got = format!("{} rows, all of them ignored", targets.len());
        return wrong(
            "targets of a cross entropy",
            "at least one row that counts",
            got,
        );
    }
    let weight = 1.0 / counted as f64;
    let mut all = vec![0.0; targets.len() * classes];
    for (row, target) in targets.iter().enumerate() {
        if Some(*target) == ignore_index {
            continue;
        }
        let class = usize::try_from(*target)
            .ok()
            .filter(|class| *class < classes);
        let Some(class) = class else {
            return wrong(
                "target of a cross entropy",
                format!("a class from 0 to {}", classes.saturating_sub(1)),
                format!("{target} in row {row}"),
            );
        };
        let q = &mut all[row * classes..][..classes];
        q.fill(weight * smoothing / classes as f64);
        q[class] += weight * (1.0 - smoothing);
    }
    Ok(all)
}
