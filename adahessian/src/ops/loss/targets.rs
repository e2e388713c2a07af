//! The targets of a cross entropy, checked.

use crate::error::Result;
use crate::ops::wrong;
use candle_core::{DType, Device, Tensor};

/// What every row should be.
pub(super) struct Targets {
    /// The class of every row, `None` where it is not counted.
    pub classes: Vec<Option<usize>>,
    /// One over the number of counted rows.
    pub weight: f64,
    /// The mass spread over all classes.
    pub smoothing: f64,
}

impl Targets {
    /// The logits, with zeros in the rows that are not counted: whatever is there, it is in no sum and no derivative.
    pub fn counted(&self, logits: &Tensor) -> Result<Tensor> {
        if self.classes.iter().all(Option::is_some) {
            return Ok(logits.clone());
        }
        let counts: Vec<u8> = self.classes.iter().map(|c| u8::from(c.is_some())).collect();
        let counts = Tensor::from_vec(counts, (self.classes.len(), 1), logits.device())?;
        let zeros = logits.detach().zeros_like()?;
        let counts = counts.broadcast_as(logits.shape())?;
        Ok(counts.where_cond(logits, &zeros)?)
    }
}

/// Checks everything that [`cross_entropy`](super::cross_entropy()) says, for logits of this shape.
pub(super) fn read_targets(
    logits: &[usize],
    targets: &Tensor,
    smoothing: f64,
    ignore_index: Option<i64>,
) -> Result<Targets> {
    let (rows, count) = match logits {
        [rows @ .., count] if !rows.is_empty() => (rows, *count),
        _ => return wrong("logits", "[.., rows, classes]", format!("{logits:?}")),
    };
    if targets.dims() != rows || !targets.dtype().is_int() {
        return wrong(
            "targets",
            format!("{rows:?}, integers, for logits {logits:?}"),
            format!("{:?} of {:?}", targets.dims(), targets.dtype()),
        );
    }
    if !(0.0..=1.0).contains(&smoothing) {
        return wrong("label smoothing", "between 0 and 1", smoothing.to_string());
    }
    if count == 0 {
        return wrong("classes of a cross entropy", "at least one", "none");
    }
    let targets = targets.to_device(&Device::Cpu)?.flatten_all()?;
    let targets = targets.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let mut classes = Vec::with_capacity(targets.len());
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
            format!("{} rows, all of them ignored", classes.len()),
        ),
        counted => Ok(Targets {
            classes,
            weight: 1.0 / counted as f64,
            smoothing,
        }),
    }
}

/// w q [N, C] and w [N, 1] for these logits, made on their device from a class a row; zeros in the rows that
/// are ignored.
pub(super) fn distribution(targets: &Targets, logits: &Tensor) -> Result<[Tensor; 2]> {
    let (device, dtype) = (logits.device(), logits.dtype());
    let (rows, classes) = logits.dims2()?;
    let column = |data: Vec<u32>| Tensor::from_vec(data, (rows, 1), device);
    let own = targets.classes.iter();
    // In a row that is ignored no entry is its class.
    let own = column(own.map(|c| c.map_or(u32::MAX, |c| c as u32)).collect())?;
    let counts = targets.classes.iter().map(|c| u32::from(c.is_some()));
    let counts = column(counts.collect())?.to_dtype(dtype)?;
    let constant = |x: f64| Tensor::new(x, device)?.to_dtype(dtype);
    let even = targets.weight * targets.smoothing / classes as f64;
    let most = even + targets.weight * (1.0 - targets.smoothing);
    let all = Tensor::arange(0, classes as u32, device)?.reshape((1, classes))?;
    let q = own.broadcast_eq(&all)?.where_cond(
        &constant(most)?.broadcast_as((rows, classes))?,
        &constant(even)?.broadcast_as((rows, classes))?,
    )?;
    let weights = counts.broadcast_mul(&constant(targets.weight)?)?;
    Ok([q.broadcast_mul(&counts)?, weights])
}
