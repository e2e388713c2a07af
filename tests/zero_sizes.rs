//! Tensors without entries: an error or the right empty result, never a panic, and no statistics of
//! nothing.

use adahessian::engine::Handle;
use adahessian::ops::{self, Bags, Dropout, Mode};
use adahessian::ops::{
    Activation, BatchNorm, Convolution, RunningStatistics, Window, avg_pool2d, conv_batch_norm,
    conv2d, global_avg_pool2d, max_pool2d, subsample_channels,
};
use adahessian::{Result, backward};
use candle_core::{DType, Device, Tensor, Var};
use testing::dropped_norm;
use testing::twins::{COMPOSED, Enter, FUSED};

const CPU: Device = Device::Cpu;

fn var(shape: &[usize], dtype: DType) -> Result<Tensor> {
    Ok(Var::ones(shape, dtype, &CPU)?.as_tensor().clone())
}

/// A name, a shape, an operation, and what is said where that refuses it. In the composed form, which need not, too.
type Case = (
    &'static str,
    &'static [usize],
    fn(&Handle, DType) -> Result<Handle>,
    &'static str,
);

fn ids(shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::zeros(shape, DType::U32, &CPU)?)
}

fn pooling(padding: usize) -> Window {
    Window {
        kernel: 2,
        stride: 2,
        padding,
    }
}

const CASES: &[Case] = &[
    (
        "max_pool2d without rows",
        &[1, 1, 0, 4],
        |x, _| max_pool2d(x, &pooling(1)),
        "",
    ),
    (
        "max_pool2d without channels",
        &[1, 0, 4, 4],
        |x, _| max_pool2d(x, &pooling(0)),
        "",
    ),
    (
        "max_pool2d without images",
        &[0, 1, 4, 4],
        |x, _| max_pool2d(x, &pooling(0)),
        "",
    ),
    (
        "avg_pool2d without columns",
        &[1, 1, 4, 0],
        |x, _| avg_pool2d(x, &pooling(1)),
        "",
    ),
    (
        "global_avg_pool2d without images",
        &[0, 3, 2, 2],
        |x, _| global_avg_pool2d(x),
        "",
    ),
    (
        "global_avg_pool2d without channels",
        &[2, 0, 2, 2],
        |x, _| global_avg_pool2d(x),
        "",
    ),
    (
        "subsample_channels without pixels",
        &[1, 2, 0, 4],
        |x, _| subsample_channels(x, 2, 4),
        "",
    ),
    (
        "subsample_channels without channels",
        &[1, 0, 4, 4],
        |x, _| subsample_channels(x, 2, 0),
        "",
    ),
    (
        "conv2d without rows",
        &[1, 1, 0, 4],
        |x, t| conv2d(x, &var(&[2, 1, 1, 1], t)?, None, &Convolution::new(2, 1)),
        "",
    ),
    (
        "conv2d without images",
        &[0, 2, 4, 4],
        |x, t| conv2d(x, &var(&[2, 2, 3, 3], t)?, None, &Convolution::new(1, 1)),
        "",
    ),
    (
        "conv2d without outputs",
        &[1, 2, 4, 4],
        |x, t| conv2d(x, &var(&[0, 2, 3, 3], t)?, None, &Convolution::new(1, 1)),
        "at least one entry",
    ),
    (
        "conv2d without inputs",
        &[1, 0, 4, 4],
        |x, t| conv2d(x, &var(&[2, 0, 3, 3], t)?, None, &Convolution::new(1, 1)),
        "",
    ),
    (
        "linear without outputs",
        &[2, 4],
        |x, t| ops::linear(x, &var(&[0, 4], t)?, None, 1, Activation::Gelu),
        "at least one entry",
    ),
    (
        "linear without inputs",
        &[2, 0],
        |x, t| ops::linear(x, &var(&[3, 0], t)?, None, 1, Activation::Identity),
        "at least one entry in the last dimension",
    ),
    (
        "linear without rows",
        &[0, 4],
        |x, t| {
            ops::linear(
                x,
                &var(&[3, 4], t)?,
                Some(&var(&[3], t)?),
                1,
                Activation::Tanh,
            )
        },
        "",
    ),
    (
        "layer_norm without width",
        &[2, 0],
        |x, t| {
            dropped_norm(
                x,
                None,
                &Dropout::none(),
                &var(&[0], t)?,
                &var(&[0], t)?,
                1e-5,
            )
        },
        "at least one entry in the last dimension",
    ),
    (
        "layer_norm without rows",
        &[0, 4],
        |x, t| {
            dropped_norm(
                x,
                None,
                &Dropout::none(),
                &var(&[4], t)?,
                &var(&[4], t)?,
                1e-5,
            )
        },
        "",
    ),
    (
        "attention without positions",
        &[2, 0, 4],
        |x, _| ops::attention([x, x, x], 2, None, true, &Dropout::none()),
        "no size of 0",
    ),
    (
        "attention without samples",
        &[0, 3, 4],
        |x, _| ops::attention([x, x, x], 2, None, false, &Dropout::none()),
        "no size of 0",
    ),
    (
        "attention without width",
        &[2, 3, 0],
        |x, _| ops::attention([x, x, x], 2, None, false, &Dropout::none()),
        "no size of 0",
    ),
    (
        "cross_entropy without rows",
        &[0, 4],
        |x, _| ops::cross_entropy(x, &ids(&[0])?, 0.1, None),
        "at least one row that counts",
    ),
    (
        "cross_entropy without classes",
        &[2, 0],
        |x, _| ops::cross_entropy(x, &ids(&[2])?, 0.0, None),
        "at least one",
    ),
    (
        "mse of nothing",
        &[0],
        |x, t| ops::mse(x, &Tensor::zeros(0, t, &CPU)?),
        "[rows], at least one",
    ),
    (
        "residual of nothing",
        &[0, 3],
        |x, _| ops::residual(x, x, &Dropout::none()),
        "",
    ),
    (
        "first_positions without positions",
        &[2, 0, 4],
        |x, _| ops::first_positions(x, 1),
        "expected 1 to 0",
    ),
    (
        "narrow to nothing",
        &[2, 3, 4],
        |x, _| ops::narrow(x, 1, 2, 0),
        "at least one entry",
    ),
    (
        "cat of nothing",
        &[2, 0, 4],
        |x, _| ops::cat(&[x, x], 1),
        "",
    ),
    (
        "reshape of nothing",
        &[2, 0, 4],
        |x, _| ops::reshape(x, &[0, 8]),
        "",
    ),
    (
        "first_positions without samples",
        &[0, 2, 4],
        |x, _| ops::first_positions(x, 1),
        "",
    ),
    (
        "dropout of nothing",
        &[0, 4],
        |x, _| {
            let mode = Mode::Train {
                seed: 0,
                step: 0,
                micro: 0,
            };
            ops::dropout(x, &Dropout::new(0.5, "here", &mode))
        },
        "",
    ),
    (
        "bags of no width",
        &[5, 0],
        |x, _| ops::bags(x, Bags::single(vec![0, 1], [2, 1])?),
        "",
    ),
    (
        "bags of no samples",
        &[5, 2],
        |x, _| ops::bags(x, Bags::single(vec![], [0, 1])?),
        "at least one number",
    ),
    (
        "bags of no rows",
        &[0, 2],
        |x, _| {
            ops::bags(
                x,
                Bags::new(vec![], vec![0, 0, 0], [2, 1], ops::Pooling::Sum)?,
            )
        },
        "",
    ),
    (
        "interaction without samples",
        &[0, 3],
        |x, t| ops::interaction(x, &Handle::enter(&var(&[0, 2, 3], t)?)?),
        "none of them 0",
    ),
    (
        "interaction without width",
        &[2, 0],
        |x, t| ops::interaction(x, &Handle::enter(&var(&[2, 2, 0], t)?)?),
        "none of them 0",
    ),
    (
        "interaction without tables",
        &[2, 3],
        |x, t| ops::interaction(x, &Handle::enter(&var(&[2, 0, 3], t)?)?),
        "none of them 0",
    ),
    (
        "binary_cross_entropy of nothing",
        &[0],
        |x, t| ops::binary_cross_entropy(x, &Tensor::zeros(0, t, &CPU)?),
        "[rows], at least one",
    ),
];

/// Through both passes. An `Ok` must be a number, or nothing where nothing is right.
fn passes(case: &Case, dtype: DType, enter: Enter) -> Result<()> {
    let x = Var::ones(case.1, dtype, &CPU)?;
    let y = (case.2)(&enter(&x)?, dtype)?.exit()?;
    let loss = y.sin()?.sum_all()?;
    let value = loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    assert!(value.is_finite(), "{}: {value}", case.0);
    let grads = backward(&loss)?;
    if let Some(g) = grads.get(&x) {
        let z = g.ones_like()?.detach();
        (g * z)?.sum_all()?.backward()?;
    }
    Ok(())
}

#[test]
fn tensors_without_entries_do_not_panic() {
    let mut problems = Vec::new();
    for case in CASES {
        for (form, enter) in [("fused", FUSED), ("composed", COMPOSED)] {
            for dtype in [DType::F32, DType::F64] {
                let outcome = std::panic::catch_unwind(|| passes(case, dtype, enter));
                let said = match outcome {
                    Err(_) => "a panic".to_string(),
                    Ok(Ok(())) => String::new(),
                    Ok(Err(error)) => error.to_string(),
                };
                let is_right = match case.3 {
                    "" => said.is_empty(),
                    // A worker catches the panics of a pass.
                    refused => {
                        let may = form == "composed" && said.is_empty();
                        may || said.contains(refused) && !said.contains("panicked")
                    }
                };
                if !is_right {
                    problems.push(format!("{} ({form}, {dtype:?}): `{said}`", case.0));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The mean of no images is not a number, and would stay in the running statistics.
#[test]
fn an_empty_batch_leaves_the_running_statistics_alone() -> anyhow::Result<()> {
    for enter in [FUSED, COMPOSED] {
        let running = RunningStatistics::new(2, DType::F32, &CPU)?;
        let (weight, scale) = (var(&[2, 1, 3, 3], DType::F32)?, var(&[2], DType::F32)?);
        let norm = BatchNorm::new(&scale, &scale, &running, true);
        for (shape, padding) in [([0, 1, 4, 4], 1), ([2, 1, 0, 4], 2)] {
            let x = enter(&Tensor::zeros(&shape[..], DType::F32, &CPU)?)?;
            let conv = Convolution::new(1, padding);
            let unit = conv_batch_norm(&x, &weight, &conv, &norm, None, Activation::Relu);
            testing::assert_says(unit, &["at least one", &format!("{shape:?}")]);
        }
        assert_eq!(running.mean.to_vec1::<f32>()?, [0.0, 0.0]);
        assert_eq!(running.variance.to_vec1::<f32>()?, [1.0, 1.0]);
    }
    Ok(())
}
