//! One step's gradients and curvature.

use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::task::Task;
use adahessian::Optim;
use adahessian::ops::Mode;
use adahessian::ops::statistics_at_rest;
use adahessian::random::Stream;
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

/// The gradient from all examples of a part, the curvature from some in a row that are drawn anew each time.
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

    let (start, count) = drawn(task.size(part), fraction, mode);
    let few = with_weight(task, part, start, count)?;
    // Running statistics have moved with the first loss; once a step is enough.
    let loss = statistics_at_rest(|| task.loss(&few, mode))?;
    let gradients = adahessian::backward(&loss)?;
    let outcome = optimizer.accumulate_curvature(&gradients, share);
    adahessian::release(gradients);
    outcome?;
    Ok(value)
}

/// Where the examples for the curvature begin, and how many they are, a function of the mode alone.
///
/// Batches may be sorted, by length for example: their first examples stand for them badly. So one of the evenly
/// spaced places is drawn from which as few windows as can be cover all examples.
fn drawn(size: usize, fraction: f64, mode: &Mode) -> (usize, usize) {
    // A product like 0.07 · 100 is a little above the number that is meant.
    let few = (fraction * size as f64 * (1.0 - 4.0 * f64::EPSILON)).ceil() as usize;
    let count = few.clamp(1, size);
    let last = size.div_ceil(count) - 1;
    let Mode::Train { seed, step, micro } = *mode else {
        return (0, count);
    };
    let [number] = Stream::new(seed, "examples of the curvature", step, micro).uniform(1)[..]
    else {
        return (0, count);
    };
    let place = ((number * (last + 1) as f64) as usize).min(last);
    // The last window ends where the examples do.
    (place * (size - count) / last.max(1), count)
}

/// These examples, and as many around them as it takes to have one that counts; the whole has.
fn with_weight<T: Task>(
    task: &T,
    part: &T::Batch,
    mut start: usize,
    mut count: usize,
) -> Result<T::Batch> {
    let size = task.size(part);
    loop {
        let few = task.narrow(part, start, count)?;
        if count >= size || task.weight(&few)? > 0.0 {
            return Ok(few);
        }
        start -= usize::from(start + count == size);
        count += 1;
    }
}

fn value(loss: &Tensor) -> Result<f64> {
    Ok(loss.detach().sum_all()?.to_dtype(DType::F64)?.to_scalar()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn windows_cover_all_examples_and_each_is_drawn_alike() {
        let cases = [
            (16, 0.5, 8),
            (16, 0.125, 2),
            (10, 0.21, 3),
            (10, 0.75, 8),
            (7, 1e-9, 1),
            (1, 0.5, 1),
            (100, 0.07, 7),
        ];
        for (size, fraction, count) in cases {
            let mut starts = BTreeMap::new();
            for step in 0..4000 {
                let mode = Mode::Train {
                    seed: 3,
                    step,
                    micro: 1,
                };
                let (start, taken) = drawn(size, fraction, &mode);
                assert_eq!(taken, count);
                assert_eq!((start, taken), drawn(size, fraction, &mode));
                *starts.entry(start).or_insert(0) += 1;
            }
            let windows = size.div_ceil(count);
            assert_eq!(starts.len(), windows, "{size} {fraction}: {starts:?}");
            let covered = (0..size).all(|i| starts.keys().any(|&s| (s..s + count).contains(&i)));
            assert!(covered && starts.keys().all(|s| s + count <= size));
            let mean = 4000.0 / windows as f64;
            // Six standard deviations.
            let far = |n: &i32| (f64::from(*n) - mean).abs() > 6.0 * mean.sqrt();
            assert!(!starts.values().any(far), "{size} {fraction}: {starts:?}");
        }
    }
}
