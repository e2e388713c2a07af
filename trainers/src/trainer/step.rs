//! One step's gradients and curvature.

use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::task::Task;
use adahessian::Optim;
use adahessian::ops::Mode;
use adahessian::ops::statistics_at_rest;
use candle_core::{DType, Tensor};

/// Accumulates a batch in the optimizer, micro-batch by micro-batch; returns the mean loss.
///
/// The micro-batches are as equal as can be; a batch of fewer examples has fewer of them. Each is
/// weighted by its share, so that the mean gradient is that of the whole batch.
pub(super) fn accumulate<T: Task>(
    task: &T,
    batch: &T::Batch,
    optimizer: &mut dyn Optim,
    config: &TrainConfig,
    step: u64,
) -> Result<f64> {
    let (size, whole) = (task.size(batch), task.weight(batch)?);
    if size == 0 || whole <= 0.0 {
        return Err(Error::Batch {
            expected: "at least one example that counts".into(),
            got: format!("{size} examples of weight {whole} at step {step}"),
        });
    }
    let parts = config.micro_batches.min(size);
    let (mut start, mut mean) = (0, 0.0);
    for micro in 0..parts {
        let len = size / parts + usize::from(micro < size % parts);
        let narrowed;
        let part = match parts {
            1 => batch,
            _ => {
                narrowed = task.narrow(batch, start, len)?;
                &narrowed
            }
        };
        start += len;
        let share = task.weight(part)? / whole;
        if share == 0.0 {
            continue; // for example no token to predict: its mean loss would be 0 / 0
        }
        let mode = Mode::Train {
            seed: config.seed,
            step,
            micro: micro as u32,
        };
        let fraction = config.curvature_fraction;
        let loss = match fraction < 1.0 && optimizer.needs_graph() {
            true => accumulate_apart(task, part, optimizer, &mode, share, fraction)?,
            false => {
                let loss = task.loss(part, &mode)?;
                optimizer.accumulate_loss(&loss, share)?;
                value(&loss)?
            }
        };
        mean += share * loss;
    }
    Ok(mean)
}

/// The gradient from all examples of a part, the curvature from its first ones.
fn accumulate_apart<T: Task>(
    task: &T,
    part: &T::Batch,
    optimizer: &mut dyn Optim,
    mode: &Mode,
    share: f64,
    fraction: f64,
) -> Result<f64> {
    let loss = task.loss(part, mode)?;
    let gradients = adahessian::backward_detached(&loss)?;
    optimizer.accumulate_gradient(&gradients, share)?;
    let value = value(&loss)?;
    drop((gradients, loss)); // one graph at a time

    let size = task.size(part);
    // A product like 0.07 · 100 is a little above the number that is meant.
    let few = (fraction * size as f64 * (1.0 - 4.0 * f64::EPSILON)).ceil() as usize;
    let mut count = few.clamp(1, size);
    let mut few = task.narrow(part, 0, count)?;
    // The first examples may have nothing that counts; the part has something.
    while task.weight(&few)? == 0.0 && count < size {
        count += 1;
        few = task.narrow(part, 0, count)?;
    }
    // Running statistics have moved with the first loss; once a step is enough.
    let loss = statistics_at_rest(|| task.loss(&few, mode))?;
    let gradients = adahessian::backward(&loss)?;
    let outcome = optimizer.accumulate_curvature(&gradients, share);
    adahessian::release(gradients);
    outcome?;
    Ok(value)
}

fn value(loss: &Tensor) -> Result<f64> {
    Ok(loss.detach().sum_all()?.to_dtype(DType::F64)?.to_scalar()?)
}
