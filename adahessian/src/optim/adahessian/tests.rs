//! A step in one pass against the one composed of candle's operations.

use super::slot::{Outcome, Rates, Slot};
use super::{AdaHessianBuilder, Average, Delay};
use crate::block::{Block, Blocks};
use crate::optim::group::Resolved;
use crate::optim::pending::Clipping;
use crate::random::Stream;
use candle_core::{DType, Device, Tensor, Var};

fn normal(name: &str, shape: &[usize], dtype: DType) -> Tensor {
    let stream = Stream::new(5, name, 0, 0);
    stream.normal_tensor(shape, dtype, &Device::Cpu).unwrap()
}

/// The largest difference, relative to the largest entry.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    let [a, b] = [a, b].map(|t| {
        let flat = t.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
        flat.to_vec1::<f64>().unwrap()
    });
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let scale = largest(&mut a.iter().map(|a| a.abs()));
    largest(&mut a.iter().zip(b).map(|(a, b)| (a - b).abs())) / scale.max(1e-30)
}

struct Run {
    var: Var,
    slot: Slot,
    outcomes: Vec<Outcome>,
}

/// Four steps, the third without a new D, in one pass or composed.
fn run(config: &AdaHessianBuilder, shape: &[usize], dtype: DType, composed: bool) -> Run {
    let settings = Resolved {
        lr_scale: 1.0,
        weight_decay: 0.1,
        block: None,
        allow_unreached: false,
    };
    let var = Var::from_tensor(&normal("value", shape, dtype)).unwrap();
    let mut slot = Slot::new(config, "w", &var, &settings).unwrap();
    let mut outcomes = Vec::new();
    for step in 0..4 {
        let rates = Rates {
            lr: 0.05,
            weight_decay: settings.weight_decay,
            clipping: Clipping {
                limit: Some(1.5),
                scale: (step == 1).then_some(0.5),
            },
        };
        let gradient = normal(&format!("g{step}"), shape, dtype);
        let diagonal = (step != 2).then(|| normal(&format!("d{step}"), shape, dtype));
        let (gradient, diagonal) = (Some(&gradient), diagonal.as_ref());
        let outcome = match composed {
            false => slot.step(config, &var, gradient, diagonal, &rates),
            true => slot.step_composed(config, &var, gradient, diagonal, &rates),
        };
        outcomes.push(outcome.unwrap());
    }
    Run {
        var,
        slot,
        outcomes,
    }
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

fn one_pass_is_the_composed_step(config: &AdaHessianBuilder, shape: &[usize], dtype: DType) {
    let [one, composed] = [false, true].map(|composed| run(config, shape, dtype, composed));
    let blocks = config.blocks.resolve("w", shape).unwrap();
    // Without blocks nothing is summed, and every bit is the same.
    let rounding = match dtype {
        DType::F32 => 1e-5,
        _ => 1e-13,
    };
    let tolerance = match (blocks, config.average) {
        (Block::Single, _) => 0.0,
        (_, Average::Absolute) => rounding,
        // The mean of a block can come out near zero; the step divides by it.
        (_, Average::Signed) => 100.0 * rounding,
    };
    let what = format!("{blocks} of {shape:?}, {dtype:?}, {:?}", config.average);
    for (name, a, b) in [
        ("θ", one.var.as_tensor(), composed.var.as_tensor()),
        ("m", &one.slot.exp_avg, &composed.slot.exp_avg),
        (
            "s",
            &one.slot.exp_hessian_diag_sq,
            &composed.slot.exp_hessian_diag_sq,
        ),
    ] {
        let apart = apart(a, b);
        assert!(apart <= tolerance, "{what}: {name} differs by {apart:e}");
    }
    for (a, b) in one.outcomes.iter().zip(&composed.outcomes) {
        let same = close(a.change_squared, b.change_squared, 1e-3)
            && close(a.abs_sum, b.abs_sum, 1e-5)
            && close(a.abs_max, b.abs_max, 1e-5)
            && (a.entries, a.updated) == (b.entries, b.updated);
        assert!(same, "{what}: {a:?} {b:?}");
    }
}

#[test]
fn one_pass_is_the_composed_step_for_all_blocks() {
    let blocks = [
        "single",
        "trailing:2",
        "chunks:32",
        "chunks:7",
        "rows",
        "whole",
    ];
    for text in blocks {
        let block: Block = text.parse().unwrap();
        for average in [Average::Absolute, Average::Signed] {
            let config = AdaHessianBuilder {
                average,
                blocks: Blocks::single().rule("w", block),
                ..AdaHessianBuilder::default()
            };
            for shape in [&[3, 5, 3, 3][..], &[40, 33, 3, 5], &[2, 20_000], &[1, 1]] {
                one_pass_is_the_composed_step(&config, shape, DType::F32);
                one_pass_is_the_composed_step(&config, shape, DType::F64);
            }
        }
    }
}

#[test]
fn one_pass_is_the_composed_step_for_other_powers_and_delays() {
    for (hessian_power, delay) in [
        (0.5, Delay::Hold),
        (0.0, Delay::Hold),
        (1.0, Delay::HoldTotalCount),
        (1.0, Delay::Stale),
    ] {
        let config = AdaHessianBuilder {
            hessian_power,
            delay,
            ..AdaHessianBuilder::default()
        };
        one_pass_is_the_composed_step(&config, &[50, 400], DType::F32);
        one_pass_is_the_composed_step(&config, &[50, 400], DType::F64);
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let config = AdaHessianBuilder {
        blocks: Blocks::single().rule("w", Block::Whole),
        ..AdaHessianBuilder::default()
    };
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let run = pool
            .unwrap()
            .install(|| run(&config, &[3, 30_000], DType::F32, false));
        (
            run.var.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            run.outcomes,
        )
    };
    let one = with(1);
    assert!(with(2) == one && with(4) == one);
}
