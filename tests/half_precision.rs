//! Variables in bf16 and f16: the optimizer's own numbers are in f32, and the step is that of float64
//! with the variable rounded.

use adahessian::nn::{self, BatchNorm};
use adahessian::ops::{self, Bags, Dropout, Mode, Pooling};
use adahessian::random::Stream;
use adahessian::{
    AdaHessian, Adagrad, Adam, AdamW, Block, Blocks, Builder, Common, Delay, FiniteDifference,
    Hessian, Lamb, LinearOperator, NamedVars, Optim, Optimizer, RmsProp, Rule, Sgd, SophiaH, State,
    VarVec, backward,
};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Module, ModuleT, Tensor, Var};
use testing::{assert_close, assert_number, assert_says};

const CPU: Device = Device::Cpu;
const COUNT: usize = 24;

fn normal(name: &str, step: u64, dtype: DType) -> Result<Tensor> {
    let values = Stream::new(11, name, step, 0).normal_tensor(&[COUNT], DType::F64, &CPU)?;
    Ok(values.to_dtype(dtype)?)
}

/// c·x + ½ d·(x - x₀)² at x = x₀: the gradient is c and the diagonal d, both without rounding in the
/// variable's type, since c and d are of that type.
fn loss(x: &Tensor, c: &Tensor, d: &Tensor) -> Result<Tensor> {
    let to = |t: &Tensor| t.to_dtype(x.dtype());
    let away = (x - x.detach())?;
    let square = ((away.sqr()? * to(d)?)? * 0.5)?;
    Ok(((x * to(c)?)? + square)?.sum_all()?)
}

type Make = fn(&NamedVars) -> adahessian::Result<Box<dyn Optim>>;

fn first_order(vars: &NamedVars, rule: impl Rule) -> adahessian::Result<Box<dyn Optim>> {
    let common = Common {
        weight_decay: 0.01,
        ..Common::new(0.03)
    };
    Ok(Box::new(rule.with(common).build(vars)?))
}

fn second_order(
    vars: &NamedVars,
    builder: Builder<AdaHessian>,
) -> adahessian::Result<Box<dyn Optim>> {
    Ok(Box::new(builder.lr(0.03).weight_decay(0.01).build(vars)?))
}

const TABLE: [(&str, Make); 13] = [
    ("sgd", |v| first_order(v, Sgd::default())),
    ("nesterov", |v| {
        first_order(
            v,
            Sgd {
                momentum: 0.9,
                nesterov: true,
            },
        )
    }),
    ("rmsprop", |v| {
        first_order(
            v,
            RmsProp {
                momentum: 0.5,
                ..RmsProp::default()
            },
        )
    }),
    ("adam", |v| first_order(v, Adam::default())),
    ("adamw", |v| first_order(v, AdamW::default())),
    ("adagrad", |v| first_order(v, Adagrad::default())),
    ("lamb", |v| first_order(v, Lamb::default())),
    ("adahessian", |v| second_order(v, AdaHessian::builder())),
    ("adahessian, power 1/2", |v| {
        second_order(v, AdaHessian::builder().hessian_power(0.5))
    }),
    ("adahessian, blocks", |v| {
        second_order(
            v,
            AdaHessian::builder().blocks(Blocks::single().rule("x", Block::Chunks(4))),
        )
    }),
    ("adahessian, delayed", |v| {
        second_order(v, AdaHessian::builder().every(3))
    }),
    ("sophiah", |v| {
        Ok(Box::new(SophiaH::builder().lr(0.03).every(3).build(v)?))
    }),
    ("adahessian, stale", |v| {
        second_order(v, AdaHessian::builder().every(3).delay(Delay::Stale))
    }),
];

fn variable(values: &Tensor) -> Result<(NamedVars, Var)> {
    let var = Var::from_tensor(values)?;
    Ok((NamedVars::new([("x".to_string(), var.clone())])?, var))
}

fn step(
    optimizer: &mut dyn Optim,
    vars: &NamedVars,
    var: &Var,
    [c, d]: [&Tensor; 2],
) -> Result<f64> {
    let grads = backward(&loss(var, c, d)?)?;
    if optimizer.needs_graph() {
        let probe = VarVec::new(vars, vec![var.ones_like()?.detach()])?;
        optimizer.accumulate_probed(&grads, &[probe], 1.0)?;
    }
    optimizer.accumulate_gradient(&grads, 1.0)?;
    Ok(optimizer.apply()?.update_norm)
}

fn follows(name: &str, make: Make, dtype: DType) -> Result<()> {
    let start = normal("x", 0, dtype)?;
    let ((vars, half), (exact_vars, exact)) =
        (variable(&start)?, variable(&start.to_dtype(DType::F64)?)?);
    let (mut optimizer, mut reference) = (make(&vars)?, make(&exact_vars)?);
    for at in 1..=20 {
        let (c, d) = (normal("c", at, dtype)?, normal("d", at, dtype)?);
        let what = |part: &str| format!("{name} in {dtype:?}, step {at}: {part}");
        step(&mut *optimizer, &vars, &half, [&c, &d])?;
        step(&mut *reference, &exact_vars, &exact, [&c, &d])?;
        // Rounded once, to the nearest: f32's own rounding may move the last half of a unit.
        let expected = exact.to_dtype(dtype)?.to_dtype(DType::F64)?;
        let unit = if dtype == DType::F16 {
            2f64.powi(-10)
        } else {
            2f64.powi(-7)
        };
        let (got, expected) = (
            half.to_dtype(DType::F64)?.to_vec1::<f64>()?,
            expected.to_vec1::<f64>()?,
        );
        let exact_values = exact.to_vec1::<f64>()?;
        for ((got, expected), exact) in got.iter().zip(&expected).zip(&exact_values) {
            let tie = (exact - got).abs() <= 0.5001 * unit * exact.abs().max(1e-4);
            assert!(
                got == expected || tie,
                "{}: {got} {expected}",
                what("value")
            );
        }
        // The reference goes on from the rounded variable.
        exact.set(&half.to_dtype(DType::F64)?)?;
        for (key, expected) in reference.state()?.tensors {
            let got = optimizer.state()?.tensors[&key].clone();
            assert_eq!(got.dtype(), DType::F32, "{}", what(&key));
            assert_close(&what(&key), &got, &expected, 1e-5)?;
        }
    }
    Ok(())
}

#[test]
fn twenty_steps_are_those_of_float64_with_the_variable_rounded() -> Result<()> {
    for dtype in [DType::BF16, DType::F16] {
        for (name, make) in TABLE {
            follows(name, make, dtype)?;
        }
    }
    Ok(())
}

/// What a rule keeps is in f32, and comes back from a file as it was.
#[test]
fn states_resume_bit_for_bit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for dtype in [DType::BF16, DType::F16] {
        for (index, (name, make)) in TABLE.into_iter().enumerate() {
            let (vars, var) = variable(&normal("start", 0, dtype)?)?;
            let mut optimizer = make(&vars)?;
            let given = |i: u64| -> Result<[Tensor; 2]> {
                Ok([normal("gradient", i, dtype)?, normal("diagonal", i, dtype)?])
            };
            for i in 0..5 {
                let [gradient, diagonal] = given(i)?;
                step(&mut *optimizer, &vars, &var, [&gradient, &diagonal])?;
            }
            let path = folder.path().join(format!("{index} {dtype:?}"));
            optimizer.state()?.save(&path)?;
            let (copies, copy) = variable(&var.as_detached_tensor().copy()?)?;
            let mut resumed = make(&copies)?;
            resumed.load_state(&State::load(&path)?)?;
            for i in 5..9 {
                let [gradient, diagonal] = given(i)?;
                step(&mut *optimizer, &vars, &var, [&gradient, &diagonal])?;
                step(&mut *resumed, &copies, &copy, [&gradient, &diagonal])?;
            }
            let what = format!("{name} {dtype:?}");
            assert_close(&what, &copy, &var, 0.0)?;
            let (state, expected) = (resumed.state()?, optimizer.state()?);
            assert_eq!(state.meta, expected.meta, "{what}");
            for (key, expected) in &expected.tensors {
                assert_eq!(
                    state.tensors[key].dtype(),
                    expected.dtype(),
                    "{what}, {key}"
                );
                assert_close(&what, &state.tensors[key], expected, 0.0)?;
            }
        }
    }
    Ok(())
}

/// β₂ = 0.999 is 1 in bf16, and (1-β₂)D² underflows in f16.
#[test]
fn five_thousand_steps_of_one_curvature() -> Result<()> {
    for dtype in [DType::BF16, DType::F16, DType::F32, DType::F64] {
        let ones = Tensor::ones(4, dtype, &CPU)?;
        let (vars, var) = variable(&ones)?;
        let mut optimizer = AdaHessian::builder().lr(1e-6).build(&vars)?;
        for _ in 0..5000 {
            step(&mut optimizer, &vars, &var, [&ones, &ones])?;
        }
        let s = optimizer.state()?.tensors["exp_hessian_diag_sq.x"].to_dtype(DType::F64)?;
        for s in s.to_vec1::<f64>()? {
            assert_number("s", s, 1.0 - 0.999f64.powi(5000), 1e-4)?;
            assert!((s - 0.993).abs() < 5e-4, "{dtype:?}: {s}");
        }
    }
    Ok(())
}

/// Adam's ε is 0 in f16, and 0/0 not a number; the squares of 300 are beyond f16.
#[test]
fn small_and_large_gradients_in_half_precision() -> Result<()> {
    for make in [TABLE[3].1, TABLE[4].1, TABLE[6].1, TABLE[7].1] {
        let start = Tensor::new(&[1f32, 1.0, 1.0], &CPU)?.to_dtype(DType::F16)?;
        let gradient = Tensor::new(&[0f32, 300.0, 1e-4], &CPU)?.to_dtype(DType::F16)?;
        let (vars, var) = variable(&start)?;
        let mut optimizer = make(&vars)?;
        for _ in 0..3 {
            assert!(step(&mut *optimizer, &vars, &var, [&gradient, &gradient])?.is_finite());
        }
        let values = var.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        assert!(
            values.iter().all(|x| x.is_finite()) && values[1] < 1.0,
            "{values:?}"
        );
    }
    Ok(())
}

/// A finite D whose square is beyond f32 would make s infinite, and freeze its entry for ever.
#[test]
fn a_curvature_whose_square_overflows_is_skipped_and_forgotten() -> Result<()> {
    let start = Tensor::new(&[1f32, 1.0], &CPU)?;
    let (vars, var) = variable(&start)?;
    let mut builder = AdaHessian::builder();
    builder.common.max_skipped = 2;
    let mut optimizer = builder.build(&vars)?;
    let (small, huge) = (
        Tensor::new(&[1f32, 1.0], &CPU)?,
        Tensor::new(&[1f32, 2e19], &CPU)?,
    );
    let run = |optimizer: &mut Optimizer<AdaHessian>, d: &Tensor| -> Result<Option<String>> {
        let grads = backward(&loss(&var, &small, d)?)?;
        let probe = VarVec::new(&vars, vec![small.clone()])?;
        optimizer.accumulate_probed(&grads, &[probe], 1.0)?;
        optimizer.accumulate_gradient(&grads, 1.0)?;
        Ok(optimizer.apply()?.skipped)
    };
    assert_eq!(run(&mut optimizer, &small)?, None);
    assert_eq!(run(&mut optimizer, &huge)?, Some("x".into()));
    assert_eq!(run(&mut optimizer, &small)?, None);
    let before = var.to_vec1::<f32>()?;
    assert_eq!(run(&mut optimizer, &small)?, None);
    let after = var.to_vec1::<f32>()?;
    assert!(before[1] != after[1], "frozen: {before:?} {after:?}");
    // The same for gradients of rules that square them.
    let mut adam = Adam::default().lr(0.01).build(&vars)?;
    let wild = backward(&loss(&var, &huge, &small)?)?;
    assert_eq!(adam.step(&wild)?.skipped, Some("x".into()));
    let mut clipped = Adam::default()
        .with(Common {
            clip_norm: Some(1.0),
            ..Common::new(0.01)
        })
        .build(&vars)?;
    assert_eq!(
        clipped.step(&wild)?.skipped,
        None,
        "clipped before it is squared"
    );
    assert!(var.to_vec1::<f32>()?.iter().all(|x| x.is_finite()));
    // After too many in a row it gives up.
    for _ in 0..2 {
        run(&mut optimizer, &huge)?;
    }
    assert_says(run(&mut optimizer, &huge), &["x", "3"]);
    Ok(())
}

/// The running statistics are (1 - m) r + m b in f32, rounded once: with 0.9 and 0.1 in bf16, which add up to less than
/// 1, they would end one and a half per cent below the batch's.
#[test]
fn running_statistics_are_rounded_once() -> Result<()> {
    let device = &Device::Cpu;
    let channels = 64;
    let x: Vec<f32> = (0..4 * channels)
        .map(|i| 1.0 + (i * 37 % 101) as f32 * 0.125)
        .collect();
    let exact = Tensor::from_vec(x, (4, channels), device)?;
    for (dtype, half_a_digit) in [(DType::BF16, 1.0 / 256.0), (DType::F16, 1.0 / 2048.0)] {
        let ones = Tensor::ones(channels, dtype, device)?;
        let norm = BatchNorm::new_no_bias(channels, ones.zeros_like()?, ones, 1e-5)?;
        norm.forward_train(&exact.to_dtype(dtype)?)?;
        let rows = exact.t()?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let read = |numbers: &Tensor| numbers.to_dtype(DType::F64)?.to_vec1::<f64>();
        let (means, variances) = (read(norm.running_mean())?, read(norm.running_var())?);
        for (row, (mean, variance)) in rows.iter().zip(means.iter().zip(&variances)) {
            let of_row = row.iter().sum::<f64>() / 4.0;
            let squares = row.iter().map(|x| (x - of_row).powi(2)).sum::<f64>();
            for (got, expected) in [(mean, 0.1 * of_row), (variance, 0.9 + 0.1 * squares / 3.0)] {
                let error = (got - expected).abs() / expected;
                assert!(error < 1.001 * half_a_digit, "{dtype:?}: {got}, {expected}");
            }
        }
    }
    Ok(())
}

/// A running variance that f16 has not stays what it was; a tenth of a batch's that f16 has not is taken.
#[test]
fn variances_at_the_end_of_f16() -> Result<()> {
    for (size, expected) in [(60000f32, 1.0), (300.0, 0.9 + 0.1 * 180_000.0)] {
        let x = Tensor::new(&[[size], [-size]], &CPU)?.to_dtype(DType::F16)?;
        let one = Tensor::ones(1, DType::F16, &CPU)?;
        let norm = BatchNorm::new_no_bias(1, one.zeros_like()?, one, 1e-5)?;
        norm.forward_train(&x)?;
        let variance = norm.running_var().to_dtype(DType::F32)?.to_vec1::<f32>()?;
        assert!((variance[0] / expected - 1.0).abs() < 1e-3, "{variance:?}");
    }
    Ok(())
}

/// Of a model in half precision they are in f32, and come to what the batches have.
#[test]
fn running_statistics_arrive() -> Result<()> {
    for dtype in [DType::BF16, DType::F16] {
        let map = candle_nn::VarMap::new();
        let vb = nn::VarBuilder::from_varmap(&map, dtype, &CPU);
        let config = nn::BatchNormConfig {
            momentum: 0.01,
            ..Default::default()
        };
        let norm = nn::batch_norm(1, config, vb)?;
        let x = Tensor::new(&[[0.25f32], [1.25]], &CPU)?.to_dtype(dtype)?;
        for _ in 0..1500 {
            norm.forward_train(&x)?;
        }
        for (got, expected) in [(norm.running_mean(), 0.75), (norm.running_var(), 0.5)] {
            assert_eq!(got.dtype(), DType::F32);
            let got = got.to_vec1::<f32>()?[0];
            assert!((got / expected - 1.0).abs() < 1e-4, "{got}, {expected}");
        }
        let y = norm.forward_t(&x, false)?;
        assert_eq!(y.dtype(), dtype);
    }
    Ok(())
}

/// A channel of a hundred thousand numbers: their sum is beyond f16, and bf16 stops adding long before.
#[test]
fn a_batch_is_normalised_in_half_precision() -> Result<()> {
    use adahessian::ops::{Activation, BatchNorm, Convolution, RunningStatistics, conv_batch_norm};
    let device = &Device::Cpu;
    let x: Vec<f32> = (0..8 * 2 * 64 * 64)
        .map(|i| 3.0 + (i * 7 % 11) as f32 * 0.25)
        .collect();
    let x = Tensor::from_vec(x, (8, 2, 64, 64), device)?;
    let weight = Tensor::new(&[1f32, 0.5, -0.25, 1.0], device)?.reshape((2, 2, 1, 1))?;
    let in_type = |dtype: DType| -> Result<(Tensor, Vec<f64>)> {
        let there = |x: &Tensor| x.to_dtype(dtype);
        let running = RunningStatistics::new(2, dtype, device)?;
        let (ones, zeros) = (
            Tensor::ones(2, dtype, device)?,
            Tensor::zeros(2, dtype, device)?,
        );
        let norm = BatchNorm::new(&ones, &zeros, &running, true);
        let conv = Convolution::default();
        let y = conv_batch_norm(
            &there(&x)?,
            &there(&weight)?,
            &conv,
            &norm,
            None,
            Activation::Identity,
        )?;
        let variance = running.variance.as_detached_tensor().to_dtype(DType::F64)?;
        Ok((y.to_dtype(DType::F32)?, variance.to_vec1()?))
    };
    let (exact, exact_variance) = in_type(DType::F32)?;
    for (dtype, tolerance) in [(DType::F16, 2e-3), (DType::BF16, 2e-2)] {
        let (y, variance) = in_type(dtype)?;
        testing::assert_close("normalised", &y, &exact, tolerance)?;
        for (got, expected) in variance.iter().zip(&exact_variance) {
            assert!(
                (got - expected).abs() < 3.0 * tolerance * expected,
                "{dtype:?}: {got}, {expected}"
            );
        }
    }
    Ok(())
}

/// Sums of a thousand and more in losses, softmax and means: half precision stops adding at 256 (bf16) and ends at 65,504
/// (f16).
#[test]
fn long_sums_of_half_precision_are_those_of_f32() -> Result<()> {
    let close = |what: &str, got: Tensor, expected: f64| -> Result<()> {
        let got = got.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        assert_number(what, got[0] / expected, 1.0, 0.01)
    };
    for dtype in [DType::BF16, DType::F16] {
        let ones = |shape: &[usize]| Tensor::ones(shape, dtype, &Device::Cpu);
        let zeros = |shape: &[usize]| Tensor::zeros(shape, dtype, &Device::Cpu);
        let classes = Tensor::new(&[7u32], &Device::Cpu)?;
        let logits = zeros(&[1, 30_000])?;
        let entropy = ops::cross_entropy(&logits, &classes, 0.0, None)?;
        close("cross entropy", entropy, 30_000f64.ln())?;
        let thousand = zeros(&[1, 1000])?;
        close("softmax", nn::ops::softmax(&thousand, 1)?, 1e-3)?;
        close(
            "log softmax",
            nn::ops::log_softmax(&thousand, 1)?,
            -(1000f64.ln()),
        )?;
        let (near, far) = (zeros(&[1000])?, ones(&[1000])?);
        close("mean squared error", ops::mse(&far, &near)?, 1.0)?;
        close(
            "mean squared error, candle_nn's",
            nn::loss::mse(&far, &near)?,
            1.0,
        )?;
        close("Huber", nn::loss::huber(&far, &near, 0.5)?, 0.375)?;
        let large = (ones(&[7])? * 100.0)?;
        let squares = ops::mse(&large, &zeros(&[7])?)?;
        close("squares", squares, 1e4)?;
        let entropy = ops::binary_cross_entropy(&near, &far)?;
        close("binary cross entropy", entropy, 2f64.ln())?;
        let plane = ops::global_avg_pool2d(&ones(&[1, 1, 32, 32])?)?;
        close("mean of a plane", plane, 1.0)?;
        let window = nn::adaptive_avg_pool2d(&ones(&[1, 1, 32, 32])?, (1, 1))?;
        close("mean of a window", window, 1.0)?;
        let strip = nn::avg_pool2d(&ones(&[1, 1, 4, 512])?, (1, 512))?;
        close("mean of a strip", strip, 1.0)?;
        let rows = ones(&[512, 2])?;
        let bag: Vec<u32> = (0..512).collect();
        for (pooling, expected) in [(Pooling::Sum, 512.0), (Pooling::Mean, 1.0)] {
            let bags = Bags::new(bag.clone(), vec![0, 512], [1, 1], pooling)?;
            close("bag", ops::bags(&rows, bags)?, expected)?;
        }
        // 1,000 keys that are alike: the mean of their values. The product with them is candle's, which adds up in half
        // precision, and takes two in a hundred from it.
        let [q, k] = [zeros(&[1, 1, 4])?, zeros(&[1, 1000, 4])?];
        let none = Dropout::new(0.0, "none", &Mode::Eval);
        let v = ones(&[1, 1000, 4])?;
        let seen = ops::attention([&q, &k, &v], 1, None, false, &none)?;
        let seen = seen.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        assert_number("attention", seen[0], 1.0, 0.03)?;
    }
    Ok(())
}

type Sum = fn(&Tensor, &Tensor) -> Result<Tensor>;

/// The score of a pair is in 300 queries: bf16's own sum of ones ends at 256.
#[test]
fn gradients_of_scores_of_pairs_are_those_of_f32() -> Result<()> {
    let length = 300;
    for dtype in [DType::BF16, DType::F16] {
        let zeros = Tensor::zeros((1, length, 1), dtype, &CPU)?;
        let s = Var::zeros((1, length, length), dtype, &CPU)?;
        let weight = Tensor::ones((1, length * length), dtype, &CPU)?;
        let s_of = s.as_tensor();
        let y = ops::multilinear_attention([&zeros; 3], s_of, &weight, false)?;
        let gradient = backward(&y.to_dtype(DType::F32)?.sum_all()?)?;
        let gradient = gradient.get(&s).unwrap().to_dtype(DType::F64)?;
        // Each query has each pair once.
        for got in gradient.flatten_all()?.to_vec1::<f64>()? {
            assert_number(&format!("{dtype:?}"), got / length as f64, 1.0, 0.01)?;
        }
    }
    Ok(())
}

/// A parameter that 4,096 rows share has the sum of their gradients for its own: a bias, the factors of a norm, the row
/// of a word. Of ones bf16's own sum ends at 256, and f16's at 2,048.
#[test]
fn gradients_of_what_many_rows_share_are_those_of_f32() -> Result<()> {
    let (rows, width) = (4096, 2);
    let unit = |x: &Tensor| -> Result<Tensor> {
        // (1, -1), which a norm leaves as it is.
        let signs = Tensor::new(&[1f32, -1.0], &CPU)?.to_dtype(x.dtype())?;
        Ok(x.broadcast_mul(&signs)?)
    };
    let shared: [(&str, Sum); 10] = [
        ("bias", |x, p| {
            let eye = Tensor::eye(2, x.dtype(), &CPU)?;
            Ok(ops::linear(x, &eye, Some(p), 1, ops::Activation::Identity)?)
        }),
        ("bias of a convolution", |x, p| {
            let image = x.t()?.reshape((1, 2, 64, 64))?;
            let kernel = Tensor::ones((2, 2, 1, 1), x.dtype(), &CPU)?;
            let convolution = ops::Convolution::default();
            Ok(ops::conv2d(&image, &kernel, Some(p), &convolution)?)
        }),
        ("shift of a norm", |x, p| {
            Ok(ops::layer_norm(x, &p.ones_like()?.detach(), p, 1e-5)?)
        }),
        ("factor of a norm", |x, p| {
            let y = ops::layer_norm(x, p, &p.zeros_like()?.detach(), 1e-5)?;
            Ok((y * x)?)
        }),
        ("factor of an RMS norm", |x, p| {
            let y = nn::ops::rms_norm(x, p, 1e-5)?;
            Ok((y * x)?)
        }),
        ("factor of groups", |x, p| {
            let norm = nn::GroupNorm::new(p.clone(), p.zeros_like()?.detach(), 2, 1, 1e-5)?;
            let y = norm.forward(&x.unsqueeze(2)?)?;
            Ok((y.squeeze(2)? * x)?)
        }),
        ("factor of columns", |x, p| {
            Ok((ops::multiply_columns(x, p)? * x)?)
        }),
        ("shared rows", |x, p| {
            Ok(ops::add_rows(&x.unsqueeze(1)?, &p.unsqueeze(0)?)?)
        }),
        ("row of a table", |x, p| {
            let ids = Tensor::zeros(x.dim(0)?, DType::U32, &CPU)?;
            Ok(ops::embedding(&ids, &p.unsqueeze(0)?)?)
        }),
        ("row of a bag", |x, p| {
            let count = x.dim(0)?;
            let starts = (0..=count as u32).collect();
            let bags = Bags::new(vec![0; count], starts, [count, 1], Pooling::Sum)?;
            Ok(ops::bags(&p.unsqueeze(0)?, bags)?)
        }),
    ];
    for dtype in [DType::BF16, DType::F16] {
        let x = unit(&Tensor::ones((rows, width), dtype, &CPU)?)?;
        for (name, of) in shared {
            let parameter = Var::zeros(width, dtype, &CPU)?;
            let loss = of(&x, &parameter)?.to_dtype(DType::F32)?.sum_all()?;
            let gradient = backward(&loss)?;
            let gradient = gradient.get(&parameter).unwrap().to_dtype(DType::F64)?;
            for got in gradient.to_vec1::<f64>()? {
                assert_number(&format!("{name} {dtype:?}"), got / rows as f64, 1.0, 0.01)?;
            }
        }
    }
    Ok(())
}

/// An entry that is picked 4,096 times, and one that as many are added to.
#[test]
fn what_an_index_names_often_is_summed_in_f32() -> Result<()> {
    for dtype in [DType::BF16, DType::F16] {
        let one = Var::ones((1, 1, 1), dtype, &CPU)?;
        let wide = nn::resize::upsample_nearest1d(&one, 4096)?.to_dtype(DType::F32)?;
        let flat = one.flatten_all()?;
        let places = Tensor::zeros(4096, DType::U32, &CPU)?;
        let picked = nn::index::gather(&flat, &places, 0)?.to_dtype(DType::F32)?;
        for (what, y) in [("upsampled", wide), ("gathered", picked)] {
            let gradient = backward(&y.sum_all()?)?;
            let gradient = gradient.get(&one).unwrap().to_dtype(DType::F64)?;
            let gradient = gradient.flatten_all()?.to_vec1::<f64>()?[0];
            assert_number(what, gradient, 4096.0, 0.01)?;
        }
        let ones = Tensor::ones(4096, dtype, &CPU)?;
        let sum = nn::index::scatter_add(&Tensor::zeros(1, dtype, &CPU)?, &places, &ones, 0)?;
        let sum = sum.to_dtype(DType::F64)?.to_vec1::<f64>()?[0];
        assert_number("added", sum, 4096.0, 0.01)?;
    }
    Ok(())
}

/// An optimizer's diagonal is in f32, and a product with the Hessian of the variable's type.
#[test]
fn vectors_of_two_types_are_joined() -> Result<()> {
    let x = Var::ones(3, DType::BF16, &CPU)?;
    let vars = NamedVars::new([("x".to_string(), x)])?;
    let of = |dtype| VarVec::new(&vars, vec![Tensor::ones(3, dtype, &CPU)?]);
    let (wide, half) = (of(DType::F32)?, of(DType::BF16)?);
    for (a, b) in [(&wide, &half), (&half, &wide)] {
        let sum = a.add_scaled(b, 1.0)?;
        assert_eq!(sum.tensors()[0].to_vec1::<f32>()?, [2.0; 3]);
        let product = a.hadamard(b)?;
        assert_eq!(product.tensors()[0].to_vec1::<f32>()?, [1.0; 3]);
    }
    Ok(())
}

/// Vectors in f32, as an optimizer's diagonal of variables in half precision is, are rounded to the variables' type where
/// they meet derivatives.
#[test]
fn a_wider_vector_is_taken_by_products_probes_and_differences() -> Result<()> {
    for dtype in [DType::BF16, DType::F16] {
        let x = Var::from_tensor(&normal("x", 0, dtype)?)?;
        let vars = NamedVars::new([("x".to_string(), x.clone())])?;
        let loss = || -> adahessian::Result<Tensor> { Ok(x.powf(4.0)?.sum_all()?) };
        let mut optimizer = AdaHessian::builder().build(&vars)?;
        optimizer.backward_step(&loss()?)?;
        let wide = optimizer.diagonal()?.context("a diagonal")?;
        assert_eq!(wide.tensors()[0].dtype(), DType::F32);
        let rounded = vec![wide.tensors()[0].to_dtype(dtype)?];
        let rounded = VarVec::new(&vars, rounded)?;
        let hessian = Hessian::of(&loss()?, &vars)?;
        let products = [hessian.apply(&wide)?, hessian.apply(&rounded)?];
        let [got, expected] = products.map(|product| product.tensors()[0].clone());
        assert_eq!(got.dtype(), dtype);
        assert_close("H D", &got, &expected, 0.0)?;
        let differences = FiniteDifference::new(&vars, loss).epsilon(0.01);
        assert_eq!(differences.apply(&wide)?.tensors()[0].dims(), [COUNT]);
        let grads = backward(&loss()?)?;
        optimizer.accumulate_gradient(&grads, 1.0)?;
        optimizer.accumulate_probed(&grads, &[wide], 1.0)?;
        optimizer.apply()?;
    }
    Ok(())
}

/// Half of a row's share for each, 4,096 times.
#[test]
fn the_bias_of_a_linear_cross_entropy_has_its_gradient() -> Result<()> {
    for dtype in [DType::BF16, DType::F16] {
        let (x, weight) = (
            Tensor::zeros((4096, 2), dtype, &CPU)?,
            Tensor::zeros((2, 2), dtype, &CPU)?,
        );
        let bias = Var::zeros(2, dtype, &CPU)?;
        let targets = Tensor::zeros(4096, DType::U32, &CPU)?;
        let loss = ops::linear_cross_entropy(&x, &weight, Some(&bias), &targets, 0.0, None)?;
        let gradient = backward(&loss)?;
        let gradient = gradient.get(&bias).unwrap().to_dtype(DType::F64)?;
        let gradient = gradient.to_vec1::<f64>()?;
        assert_number("of the class", gradient[0], -0.5, 0.01)?;
        assert_number("of the other", gradient[1], 0.5, 0.01)?;
    }
    Ok(())
}

/// What is not 0 is seen, whatever it is: a mask of packed texts numbers them.
#[test]
fn a_mask_may_have_other_numbers_than_one() -> Result<()> {
    let x = normal("x", 0, DType::F32)?.reshape((1, 6, 4))?;
    let mask = |numbers: [u32; 6]| Tensor::new(&[numbers], &CPU);
    let (ones, others) = (mask([1, 1, 0, 1, 1, 0])?, mask([1, 2, 0, 3, 255, 0])?);
    let none = Dropout::new(0.0, "none", &Mode::Eval);
    for dtype in [DType::F32, DType::BF16] {
        let x = x.to_dtype(dtype)?;
        let seen = |mask: &Tensor| ops::attention([&x, &x, &x], 2, Some(mask), true, &none);
        let [expected, got] = [seen(&ones)?, seen(&others)?].map(|y| y.to_dtype(DType::F64));
        assert_close("attention", &got?, &expected?, 0.0)?;
    }
    Ok(())
}
