//! Whether the right class is among the most probable ones.

use crate::error::{Error, Result};
use candle_core::{DType, Tensor};

/// How many rows of `logits` [N, C] have their class of `labels` `[N]` among their k largest
/// entries. Of equal entries the one of the lower class counts as larger, so a constant row has
/// class 0 first. A row whose right entry is not a number is no hit.
///
/// # Errors
/// [`Error::Metric`] for shapes that do not fit and a label that is no class.
pub fn top_k_hits(logits: &Tensor, labels: &Tensor, k: usize) -> Result<usize> {
    let wrong = |expected, got| Error::Metric {
        metric: "top-k accuracy",
        expected,
        got,
    };
    let (shape, expected) = (logits.dims(), "logits [N, C] and labels [N]");
    if shape.len() != 2 || labels.dims() != &shape[..1] {
        return Err(wrong(
            expected,
            format!("{shape:?} and {:?}", labels.dims()),
        ));
    }
    let rows = logits.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let labels = labels.to_dtype(DType::U32)?.to_vec1::<u32>()?;
    let mut hits = 0;
    for (row, label) in rows.iter().zip(labels) {
        let label = label as usize;
        let Some(right) = row.get(label) else {
            let got = format!("{label} of {} classes", row.len());
            return Err(wrong("labels below the number of classes", got));
        };
        let is_ahead =
            |class: usize, x: f64| x.is_nan() || x > *right || (x == *right && class < label);
        let ahead = row.iter().enumerate().filter(|(c, x)| is_ahead(*c, **x));
        hits += usize::from(!right.is_nan() && ahead.count() < k);
    }
    Ok(hits)
}
