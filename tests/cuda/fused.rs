//! Fused operations on the device in shapes of every kind, against the composed forms on the CPU: value, gradient, Hz.

use super::device;
use super::values::same;
use adahessian::ops::{
    self, Activation, BatchNorm, Convolution, Dropout, Mode, RunningStatistics, conv_batch_norm,
    conv2d,
};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use testing::dropped_norm;
use testing::twins::vars;

const TRAINING: Mode = Mode::Train {
    seed: 4,
    step: 2,
    micro: 0,
};

/// (images, in, height, width), (out, kernel height, kernel width), (stride, padding, dilation, groups)
type Case = ([usize; 4], [usize; 3], [usize; 4]);

const CASES: [Case; 13] = [
    ([1, 1, 1, 1], [1, 1, 1], [1, 0, 1, 1]),
    ([2, 3, 5, 6], [4, 3, 3], [1, 1, 1, 1]),
    ([3, 2, 5, 6], [5, 3, 3], [2, 1, 1, 1]),
    ([2, 3, 8, 7], [2, 3, 3], [3, 1, 1, 1]),
    ([2, 3, 9, 9], [4, 3, 3], [1, 2, 2, 1]),
    ([1, 2, 10, 9], [3, 7, 7], [2, 3, 1, 1]),
    ([2, 4, 6, 6], [6, 1, 1], [1, 0, 1, 1]),
    ([2, 4, 7, 6], [6, 1, 1], [2, 0, 1, 1]),
    ([2, 2, 4, 9], [3, 1, 5], [1, 2, 1, 1]),
    ([2, 2, 6, 7], [3, 2, 3], [2, 2, 3, 1]),
    ([2, 4, 6, 5], [6, 3, 3], [1, 1, 1, 2]),
    ([5, 2, 24, 21], [3, 3, 3], [1, 1, 1, 1]),
    ([33, 3, 4, 4], [2, 2, 2], [2, 0, 1, 1]),
];

fn conv_of([stride, padding, dilation, groups]: [usize; 4]) -> Convolution {
    Convolution {
        dilation,
        groups,
        ..Convolution::new(stride, padding)
    }
}

#[test]
fn convolutions() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for (x, [out, kh, kw], settings) in CASES {
        let conv = conv_of(settings);
        let kernel = [out, x[1] / settings[3], kh, kw];
        let vars = vars(&[("x", &x), ("w", &kernel), ("b", &[out])])?;
        for bias in [false, true] {
            let what = format!("convolution of {x:?} by {kernel:?}, {settings:?}, bias {bias}");
            same(&what, &vars, &device, |vars, enter| {
                let bias = bias.then(|| vars.get("b")).transpose()?;
                conv2d(
                    &enter(vars.get("x")?)?,
                    vars.get("w")?,
                    bias.map(|b| &**b),
                    &conv,
                )?
                .exit()
            })?;
        }
    }
    Ok(())
}

#[test]
fn convolutions_with_norms() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for (number, (x, [out, kh, kw], settings)) in CASES.into_iter().enumerate().skip(1) {
        let conv = conv_of(settings);
        let (oh, ow) = conv.output_size((x[2], x[3]), (kh, kw))?;
        let vars = vars(&[
            ("x", &x),
            ("w", &[out, x[1] / settings[3], kh, kw]),
            ("gamma", &[out]),
            ("beta", &[out]),
            ("r", &[x[0], out, oh, ow]),
        ])?;
        let activation = [Activation::Identity, Activation::Relu, Activation::Silu][number % 3];
        for (training, residual) in [(true, false), (true, true), (false, true)] {
            let what = format!(
                "norm of {x:?}, {settings:?}, {activation}, training {training}, residual {residual}"
            );
            same(&what, &vars, &device, |vars, enter| {
                let gamma = vars.get("gamma")?;
                let running = RunningStatistics::new(out, gamma.dtype(), gamma.device())?;
                let norm = BatchNorm::new(gamma, vars.get("beta")?, &running, training);
                let residual = residual.then(|| enter(vars.get("r")?)).transpose()?;
                let x = enter(vars.get("x")?)?;
                let w = vars.get("w")?;
                conv_batch_norm(&x, w, &conv, &norm, residual.as_ref(), activation)?.exit()
            })?;
        }
    }
    Ok(())
}

/// What a batch leaves, also one that is not finite.
#[test]
fn running_statistics() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let follow = |device: &Device, broken: bool| -> Result<[Vec<f64>; 2]> {
        let mut pixels: Vec<f64> = (0..40).map(|i| (f64::from(i) * 0.7).sin()).collect();
        if broken {
            pixels[25] = f64::INFINITY;
        }
        let x = Tensor::from_vec(pixels, (2, 2, 2, 5), device)?;
        let ones = Tensor::ones(2, DType::F64, device)?;
        let w = Tensor::new(&[[[[1.0]], [[0.0]]], [[[0.0]], [[-2.0]]]], device)?;
        let running = RunningStatistics::new(2, DType::F64, device)?;
        let norm = BatchNorm::new(&ones, &ones, &running, true);
        conv_batch_norm(
            &x,
            &w,
            &Convolution::default(),
            &norm,
            None,
            Activation::Relu,
        )?;
        let read = |var: &candle_core::Var| var.as_detached_tensor().to_vec1::<f64>();
        Ok([read(&running.mean)?, read(&running.variance)?])
    };
    let (cpu, gpu) = (follow(&Device::Cpu, false)?, follow(&device, false)?);
    for (a, b) in cpu.iter().flatten().zip(gpu.iter().flatten()) {
        assert!((a - b).abs() < 1e-12, "{cpu:?}, {gpu:?}");
    }
    // 0 x ∞ is in the other channel's sum, too: both stay what they were.
    let gpu = follow(&device, true)?;
    assert_eq!(gpu, [vec![0.0; 2], vec![1.0; 2]]);
    Ok(())
}

#[test]
fn layer_norms() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for (shape, width) in [
        (vec![3, 5], 5),
        // Two entries always become 1 and -1, and the gradient is what is left of cancelling.
        (vec![1, 3], 3),
        (vec![2, 3, 33], 33),
        (vec![1, 700], 700),
        (vec![300, 4], 4),
        (vec![7, 11, 64], 64),
    ] {
        let vars = vars(&[
            ("x", &shape),
            ("r", &shape),
            ("gamma", &[width]),
            ("beta", &[width]),
        ])?;
        for (p, residual) in [(0.0, false), (0.0, true), (0.3, true)] {
            let dropout = Dropout::new(p, "here", &TRAINING);
            let what = format!("norm of {shape:?}, p {p}, residual {residual}");
            same(&what, &vars, &device, |vars, enter| {
                let residual = residual.then(|| enter(vars.get("r")?)).transpose()?;
                let (gamma, beta) = (vars.get("gamma")?, vars.get("beta")?);
                let x = enter(vars.get("x")?)?;
                dropped_norm(&x, residual.as_ref(), &dropout, gamma, beta, 1e-5)?.exit()
            })?;
        }
    }
    Ok(())
}

#[test]
fn linear_maps() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for (shape, outputs, groups) in [
        (vec![1, 1], 1, 1),
        (vec![3, 4], 6, 1),
        (vec![2, 5, 8], 33, 1),
        (vec![150, 3], 2, 1),
        (vec![2, 5, 8], 6, 2),
    ] {
        let inputs = shape[shape.len() - 1];
        let vars = vars(&[
            ("x", &shape),
            ("w", &[outputs, inputs / groups]),
            ("b", &[outputs]),
        ])?;
        for activation in ["linear", "gelu", "relu", "tanh", "silu"] {
            let activation: Activation = activation.parse()?;
            for bias in [false, true] {
                let what = format!("map of {shape:?} to {outputs}, {activation}, bias {bias}");
                same(&what, &vars, &device, |vars, enter| {
                    let bias = bias.then(|| vars.get("b")).transpose()?;
                    let (x, w) = (enter(vars.get("x")?)?, vars.get("w")?);
                    ops::linear(&x, w, bias.map(|b| &**b), groups, activation)?.exit()
                })?;
            }
        }
    }
    Ok(())
}

#[test]
fn attentions() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for (batch, queries, keys, causal) in [
        (1, 1, 1, false),
        (2, 3, 5, false),
        (2, 4, 4, true),
        (1, 2, 70, false),
    ] {
        let vars = vars(&[
            ("q", &[batch, queries, 6]),
            ("k", &[batch, keys, 6]),
            ("v", &[batch, keys, 6]),
        ])?;
        for (p, masked) in [(0.0, false), (0.3, false), (0.3, true)] {
            let dropout = Dropout::new(p, "weights", &TRAINING);
            let what = format!("attention {batch}x{queries}x{keys}, {causal}, {p}, {masked}");
            same(&what, &vars, &device, |vars, enter| {
                let all = ["q", "k", "v"].map(|name| enter(vars.get(name)?));
                let [q, k, v] = all;
                let (q, k, v) = (q?, k?, v?);
                let x = vars.get("q")?;
                let kept = (0..batch * keys).map(|i| if i % 3 == 1 { 0f32 } else { 1.0 });
                let mask: Vec<f32> = kept.collect();
                let mask = Tensor::from_vec(mask, (batch, keys), x.device())?;
                let mask = mask.to_dtype(x.dtype())?;
                let mask = masked.then_some(&mask);
                ops::attention([&q, &k, &v], 2, mask, causal, &dropout)?.exit()
            })?;
        }
    }
    Ok(())
}

/// tanh, eˣ and the normal distribution are the CPU's functions, over all of their range and beyond it.
#[test]
fn activations_to_the_last_bit() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let mut points: Vec<f32> = (-9000..9000).map(|i| i as f32 * 0.0101).collect();
    points.extend([
        1e-30,
        -1e-30,
        0.65,
        1e30,
        -1e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ]);
    let of = |device: &Device, activation: Activation| -> Result<Vec<f32>> {
        let x = Tensor::from_slice(&points, (points.len(), 1), device)?;
        let one = Tensor::ones((1, 1), DType::F32, device)?;
        let y = ops::linear(&x, &one, None, 1, activation)?;
        Ok(y.flatten_all()?.to_device(&Device::Cpu)?.to_vec1()?)
    };
    for activation in [
        Activation::Tanh,
        Activation::Gelu,
        Activation::Silu,
        Activation::Relu,
    ] {
        let (cpu, gpu) = (of(&Device::Cpu, activation)?, of(&device, activation)?);
        for ((x, a), b) in points.iter().zip(cpu).zip(gpu) {
            assert!(
                a == b || a.is_nan() && b.is_nan(),
                "{activation} of {x}: {b} for {a}"
            );
        }
    }
    Ok(())
}

#[test]
fn products_and_sums() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for (batch, queries, keys, width) in [(1, 1, 1, 1), (2, 3, 4, 5), (3, 17, 2, 40)] {
        let vars = vars(&[
            ("x", &[batch, queries, width]),
            ("w", &[batch, keys, width]),
            ("c", &[width]),
            ("r", &[queries, width]),
        ])?;
        let what = format!("rows {batch}x{queries}x{keys}x{width}");
        same(&what, &vars, &device, |vars, enter| {
            let [x, w, c, r] = ["x", "w", "c", "r"].map(|name| enter(vars.get(name)?));
            let x = ops::add_rows(&ops::multiply_columns(&x?, &c?)?, &r?)?;
            ops::products_of_rows(&x, &w?)?.exit()
        })?;
    }
    Ok(())
}
