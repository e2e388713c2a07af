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
/// log Σ eˡ less the logits times a constant distribution, because `gather` (in `candle_nn::loss`) fails or
/// is silently wrong at second order as soon as something non-linear follows. The largest logit of a row
/// is taken from all of them as a constant, which changes no derivative: as a function (in
/// `candle_nn::ops::log_softmax`) its own are sums of cancelling terms, and their rounding is twenty times
/// all other in a Hessian over thousands of classes. The targets are read on
/// the CPU, where they usually come from; from a GPU they are copied, which waits for it.
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
    let targets = read_targets(logits.dims(), targets, label_smoothing, ignore_index)?;
    let (rows, classes) = logits.dims2()?;
    let constant = |data: Vec<f64>, width: usize| {
        let data = Tensor::from_vec(data, (rows, width), &Device::Cpu)?;
        data.to_dtype(logits.dtype())?.to_device(logits.device())
    };
    let distribution = constant(distribution(&targets, classes), classes)?;
    let weights = targets.classes.iter().map(|class| match class {
        Some(_) => targets.weight,
        None => 0.0,
    });
    let weights = constant(weights.collect(), 1)?;
    let largest = logits.detach().max_keepdim(D::Minus1)?;
    let rest = logits.broadcast_sub(&largest)?;
    let norms = rest.exp()?.sum_keepdim(D::Minus1)?.log()?; // [N, 1]
    // The largest logit is in neither term: a small loss keeps its digits.
    Ok(((norms * weights)?.sum_all()? - (rest * distribution)?.sum_all()?)?)
}

/// What every row should be.
pub(super) struct Targets {
    /// The class of every row, `None` where it is not counted.
    pub classes: Vec<Option<usize>>,
    /// One over the number of counted rows.
    pub weight: f64,
    /// The mass spread over all classes.
    pub smoothing: f64,
}

/// Checks everything that [`cross_entropy`] says, for logits of this shape.
pub(super) fn read_targets(
    logits: &[usize],
    targets: &Tensor,
    smoothing: f64,
    ignore_index: Option<i64>,
) -> Result<Targets> {
    let &[rows, count] = logits else {
        return wrong("logits", "[rows, classes]", format!("{logits:?}"));
    };
    if targets.dims() != [rows] || !targets.dtype().is_int() {
        return wrong(
            "targets",
            format!("[{rows}], integers"),
            format!("{:?} of {:?}", targets.dims(), targets.dtype()),
        );
    }
    if !(0.0..=1.0).contains(&smoothing) {
        return wrong("label smoothing", "between 0 and 1", smoothing.to_string());
    }
    let targets = targets.to_device(&Device::Cpu)?;
    let targets = targets.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let mut classes = Vec::with_capacity(rows);
    for (row, target) in targets.iter().enumerate() {
        classes.push(match usize::try_from(*target) {
            _ if Some(*target) == ignore_index => None,
            Ok(class) if class < count => Some(class),
            _ => {
                return wrong(
                    "target of a cross entropy",
                    format!(
                        "a class from 0 to {}, or ignore_index",
                        count.saturating_sub(1)
                    ),
                    format!("{target} in row {row}"),
                );
            }
        });
    }
    match classes.iter().flatten().count() {
        0 => wrong(
            "targets of a cross entropy",
            "at least one row that counts",
            format!("{rows} rows, all of them ignored"),
        ),
        counted => Ok(Targets {
            classes,
            weight: 1.0 / counted as f64,
            smoothing,
        }),
    }
}

/// q / (number of counted rows), row by row; zeros in the rows that are ignored.
fn distribution(targets: &Targets, classes: usize) -> Vec<f64> {
    let Targets {
        weight, smoothing, ..
    } = *targets;
    let mut all = vec![0.0; targets.classes.len() * classes];
    for (row, class) in targets.classes.iter().enumerate() {
        let Some(class) = class else { continue };
        let q = &mut all[row * classes..][..classes];
        q.fill(weight * smoothing / classes as f64);
        q[*class] += weight * (1.0 - smoothing);
    }
    all
}
