//! Convolution, normalisation and pooling: the fused operations against the composed ones and
//! against finite differences, at both levels, over a table of shapes.

use adahessian::engine::Handle;
use adahessian::ops::{
    Activation, BatchNorm, Convolution, Method, RunningStatistics, Window, avg_pool2d,
    conv_batch_norm, conv2d, global_avg_pool2d, max_pool2d, subsample_channels,
};
use adahessian::random::Stream;
use adahessian::{Hessian, LinearOperator, NamedVars, VarVec, check};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use testing::twins::{COMPOSED, Enter, FUSED, agree, loss, random, to, vars};
use testing::{assert_close, assert_says};

/// (images, in, height, width), (out, kernel height, kernel width), stride, padding, dilation, groups
type Case = ([usize; 4], [usize; 3], [usize; 4]);

const CASES: [Case; 33] = [
    ([2, 3, 8, 8], [4, 3, 3], [1, 1, 1, 1]),
    ([3, 2, 16, 16], [9, 3, 3], [1, 1, 1, 1]),
    ([1, 16, 32, 32], [17, 3, 3], [1, 1, 1, 1]),
    ([2, 3, 7, 9], [5, 3, 3], [2, 1, 1, 1]),
    ([2, 3, 5, 6], [4, 3, 3], [2, 1, 1, 1]),
    ([2, 2, 11, 10], [3, 3, 3], [3, 0, 1, 1]),
    ([2, 2, 9, 12], [3, 2, 2], [3, 1, 1, 1]),
    ([2, 3, 9, 8], [4, 3, 3], [1, 2, 2, 1]),
    ([2, 2, 12, 11], [3, 3, 3], [2, 3, 3, 1]),
    ([2, 4, 6, 6], [6, 3, 3], [1, 1, 1, 2]),
    ([2, 4, 7, 8], [4, 3, 3], [2, 1, 1, 4]),
    ([2, 5, 6, 7], [3, 1, 1], [1, 0, 1, 1]),
    ([2, 4, 8, 8], [8, 1, 1], [2, 0, 1, 1]),
    ([2, 3, 7, 7], [4, 1, 1], [2, 1, 1, 1]),
    ([2, 3, 16, 17], [4, 7, 7], [2, 3, 1, 1]),
    ([1, 1, 5, 5], [1, 5, 5], [1, 0, 1, 1]),
    ([2, 2, 6, 9], [3, 1, 5], [1, 2, 1, 1]),
    ([2, 2, 6, 5], [3, 4, 2], [2, 1, 1, 1]),
    ([19, 1, 4, 4], [2, 3, 3], [1, 1, 1, 1]),
    ([2, 6, 1, 1], [4, 1, 1], [1, 0, 1, 1]),
    // Small images, computed as products of matrices.
    ([5, 3, 4, 4], [16, 3, 3], [1, 1, 1, 1]),
    ([35, 2, 4, 5], [17, 3, 3], [2, 1, 1, 1]),
    ([3, 4, 7, 6], [32, 3, 3], [3, 2, 2, 2]),
    ([3, 2, 2, 2], [16, 3, 3], [1, 1, 1, 1]),
    ([3, 3, 7, 7], [18, 1, 1], [2, 0, 1, 1]),
    ([2, 2, 5, 4], [16, 2, 3], [1, 2, 2, 1]),
    // Taps that see nothing but border.
    ([1, 3, 4, 4], [16, 3, 3], [1, 6, 6, 1]),
    ([1, 2, 2, 2], [16, 7, 7], [1, 3, 1, 1]),
    ([2, 2, 1, 1], [16, 5, 5], [1, 2, 1, 1]),
    ([2, 2, 1, 1], [16, 3, 3], [4, 1, 1, 1]),
    // Sides that are shorter than the stride.
    ([2, 3, 1, 40], [4, 1, 8], [5, 0, 1, 1]),
    ([2, 2, 3, 4], [3, 2, 2], [7, 1, 1, 1]),
    ([1, 2, 5, 2], [3, 3, 2], [6, 3, 2, 1]),
];

fn conv_of([stride, padding, dilation, groups]: [usize; 4]) -> Convolution {
    Convolution {
        stride,
        padding,
        dilation,
        groups,
        method: Method::Measured,
    }
}

fn conv_vars((x, [out, kh, kw], settings): &Case) -> Result<NamedVars> {
    vars(&[
        ("x", x),
        ("w", &[*out, x[1] / settings[3], *kh, *kw]),
        ("b", &[*out]),
    ])
}

#[test]
fn fused_convolution_is_the_composed_one() -> Result<()> {
    for case in &CASES {
        let vars = conv_vars(case)?;
        for method in [Method::Measured, Method::Views, Method::Columns] {
            let conv = Convolution {
                method,
                ..conv_of(case.2)
            };
            let op = |vars: &NamedVars, enter: Enter| {
                let x = enter(vars.get("x")?)?;
                conv2d(&x, vars.get("w")?, Some(vars.get("b")?), &conv)?.exit()
            };
            let what = format!("{case:?}, {method:?}");
            agree(&what, &vars, 1e-12, op)?;
            agree(&format!("{what}, f32"), &to(&vars, DType::F32)?, 1e-5, op)?;
        }
    }
    Ok(())
}

#[test]
fn fused_convolution_has_the_derivatives_of_finite_differences() -> Result<()> {
    for case in CASES
        .iter()
        .filter(|(x, ..)| x.iter().product::<usize>() < 1000)
    {
        let (conv, vars) = (conv_of(case.2), conv_vars(case)?);
        let loss = || {
            let x = Handle::enter(vars.get("x")?)?;
            loss(&conv2d(&x, vars.get("w")?, Some(vars.get("b")?), &conv)?.exit()?)
        };
        check::all_reached(&vars, loss)?;
        check::gradient(&vars, 1e-6, loss)?;
        check::hessian(&vars, 1e-6, loss)?;
    }
    Ok(())
}

#[test]
fn convolution_is_candles_where_candle_is_right() -> Result<()> {
    for case in CASES.iter().filter(|(_, [_, kh, kw], _)| kh == kw) {
        let (conv, vars) = (conv_of(case.2), conv_vars(case)?);
        let (x, w) = (vars.get("x")?, vars.get("w")?);
        let ours = conv2d(&Handle::enter(x)?, w, None, &conv)?.exit()?;
        let theirs = x.conv2d(w, conv.padding, conv.stride, conv.dilation, conv.groups)?;
        assert_close(&format!("{case:?}"), &ours, &theirs, 1e-12)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Norm<'a> {
    conv: Convolution,
    running: &'a RunningStatistics,
    training: bool,
    residual: bool,
    activation: Activation,
}

impl Norm<'_> {
    fn apply(&self, vars: &NamedVars, enter: Enter) -> adahessian::Result<Tensor> {
        let norm = BatchNorm::new(
            vars.get("gamma")?,
            vars.get("beta")?,
            self.running,
            self.training,
        );
        let residual = match self.residual {
            true => Some(enter(vars.get("r")?)?),
            false => None,
        };
        let x = enter(vars.get("x")?)?;
        let w = vars.get("w")?;
        conv_batch_norm(&x, w, &self.conv, &norm, residual.as_ref(), self.activation)?.exit()
    }
}

fn norm_vars(case: &Case) -> Result<NamedVars> {
    let (x, [out, kh, kw], settings) = case;
    let (oh, ow) = conv_of(*settings).output_size((x[2], x[3]), (*kh, *kw))?;
    vars(&[
        ("x", x),
        ("w", &[*out, x[1] / settings[3], *kh, *kw]),
        ("gamma", &[*out]),
        ("beta", &[*out]),
        ("r", &[x[0], *out, oh, ow]),
    ])
}

/// One or two values a channel have no variance to speak of.
fn has_variance((x, [_, kh, kw], settings): &Case) -> bool {
    let size = conv_of(*settings).output_size((x[2], x[3]), (*kh, *kw));
    size.is_ok_and(|(oh, ow)| x[0] * oh * ow > 4)
}

fn norms<'a>(case: &Case, running: &'a RunningStatistics) -> Vec<Norm<'a>> {
    let mut all = Vec::new();
    for training in [true, false] {
        for residual in [true, false] {
            for activation in [
                Activation::Identity,
                Activation::Relu,
                Activation::Silu,
                Activation::Gelu,
            ] {
                all.push(Norm {
                    conv: conv_of(case.2),
                    running,
                    training,
                    residual,
                    activation,
                });
            }
        }
    }
    all
}

/// Running statistics that are neither 0 nor 1.
fn statistics(channels: usize, dtype: DType) -> Result<RunningStatistics> {
    let running = RunningStatistics::new(channels, dtype, &Device::Cpu)?;
    running
        .mean
        .set(&(random("mean", &[channels])? * 0.3)?.to_dtype(dtype)?)?;
    let variance = (random("variance", &[channels])?.sqr()? + 0.5)?;
    running.variance.set(&variance.to_dtype(dtype)?)?;
    Ok(running)
}

#[test]
fn fused_normalised_convolution_is_the_composed_one() -> Result<()> {
    for case in CASES.iter().filter(|case| has_variance(case)) {
        let vars = norm_vars(case)?;
        let running = statistics(case.1[0], DType::F64)?;
        for norm in norms(case, &running) {
            let what = format!(
                "{case:?} {:?} {} {}",
                norm.activation, norm.training, norm.residual
            );
            let vars = if norm.residual {
                vars.clone()
            } else {
                vars.partition(|n| n != "r").0
            };
            agree(&what, &vars, 1e-11, |vars, enter| {
                // What a forward pass leaves in the running statistics must not matter here.
                norm.apply(vars, enter)
            })?;
            agree(
                &format!("{what}, f32"),
                &to(&vars, DType::F32)?,
                1e-4,
                |vars, enter| {
                    let running = statistics(case.1[0], vars.get("gamma")?.dtype());
                    let running = running.map_err(|e| candle_core::Error::msg(e.to_string()))?;
                    let running = &running;
                    Norm { running, ..norm }.apply(vars, enter)
                },
            )?;
        }
    }
    Ok(())
}

#[test]
fn fused_normalised_convolution_has_the_derivatives_of_finite_differences() -> Result<()> {
    let small = |case: &&Case| case.0.iter().product::<usize>() < 400 && has_variance(case);
    for case in CASES.iter().filter(small) {
        let vars = norm_vars(case)?;
        let running = statistics(case.1[0], DType::F64)?;
        for norm in norms(case, &running) {
            if norm.activation == Activation::Relu {
                continue; // kinks
            }
            let vars = if norm.residual {
                vars.clone()
            } else {
                vars.partition(|n| n != "r").0
            };
            let loss = || loss(&norm.apply(&vars, FUSED)?);
            check::all_reached(&vars, loss)?;
            check::gradient(&vars, 1e-5, loss)?;
            check::hessian(&vars, 1e-5, loss)?;
        }
    }
    Ok(())
}

#[test]
fn running_statistics_follow_the_batch() -> Result<()> {
    let case = &CASES[3];
    let vars = norm_vars(case)?;
    let (fused, composed) = (statistics(5, DType::F64)?, statistics(5, DType::F64)?);
    let before = fused.mean.as_detached_tensor().copy()?;
    for (running, enter) in [(&fused, FUSED), (&composed, COMPOSED)] {
        for training in [true, true, false] {
            let norm = Norm {
                conv: conv_of(case.2),
                running,
                training,
                residual: false,
                activation: Activation::Relu,
            };
            norm.apply(&vars, enter)?;
        }
    }
    assert_close(
        "mean",
        fused.mean.as_tensor(),
        composed.mean.as_tensor(),
        1e-12,
    )?;
    assert_close(
        "variance",
        fused.variance.as_tensor(),
        composed.variance.as_tensor(),
        1e-12,
    )?;
    assert!(testing::relative_error(&before, fused.mean.as_tensor())? > 1e-3);
    // By hand: two updates with momentum 0.1 towards the batch, with Bessel's correction.
    let x = Handle::composed(vars.get("x")?);
    let c = conv2d(&x, vars.get("w")?, None, &conv_of(case.2))?.exit()?;
    let c = c.transpose(0, 1)?.flatten_from(1)?;
    let expected = (before * 0.81)?.add(&(c.mean(1)? * 0.19)?)?;
    assert_close("mean by hand", fused.mean.as_tensor(), &expected, 1e-12)?;
    let expected =
        (statistics(5, DType::F64)?.variance.as_tensor() * 0.81)?.add(&(c.var(1)? * 0.19)?)?;
    assert_close(
        "variance by hand",
        fused.variance.as_tensor(),
        &expected,
        1e-12,
    )
}

const POOLINGS: [([usize; 4], Window); 6] = [
    (
        [2, 3, 8, 8],
        Window {
            kernel: 2,
            stride: 2,
            padding: 0,
        },
    ),
    (
        [2, 3, 7, 9],
        Window {
            kernel: 3,
            stride: 2,
            padding: 1,
        },
    ),
    (
        [1, 2, 5, 6],
        Window {
            kernel: 3,
            stride: 1,
            padding: 1,
        },
    ),
    (
        [1, 2, 9, 9],
        Window {
            kernel: 3,
            stride: 4,
            padding: 0,
        },
    ),
    (
        [3, 1, 4, 4],
        Window {
            kernel: 4,
            stride: 4,
            padding: 2,
        },
    ),
    (
        [2, 2, 6, 5],
        Window {
            kernel: 1,
            stride: 2,
            padding: 0,
        },
    ),
];

#[test]
fn pooling_and_shortcuts_are_the_composed_ones_with_the_right_derivatives() -> Result<()> {
    for (shape, pooling) in &POOLINGS {
        let vars = vars(&[("x", shape)])?;
        type Op<'a> = Box<dyn Fn(&Handle) -> adahessian::Result<Handle> + 'a>;
        let ops: [(&str, Op); 4] = [
            ("max", Box::new(|x| max_pool2d(x, pooling))),
            ("average", Box::new(|x| avg_pool2d(x, pooling))),
            ("global", Box::new(global_avg_pool2d)),
            (
                "shortcut",
                Box::new(|x| subsample_channels(x, pooling.stride, 5)),
            ),
        ];
        for (name, op) in ops {
            let apply = |vars: &NamedVars, enter: Enter| {
                // Through a square, so that the second derivative is not only the loss's.
                let x = vars.get("x")?;
                op(&enter(&x.sqr()?.add(x)?)?)?.exit()
            };
            let what = format!("{name} {shape:?} {pooling:?}");
            agree(&what, &vars, 1e-12, apply)?;
            agree(
                &format!("{what}, f32"),
                &to(&vars, DType::F32)?,
                1e-5,
                apply,
            )?;
            let loss = || loss(&apply(&vars, FUSED)?);
            check::gradient(&vars, 1e-6, loss)?;
            check::hessian(&vars, 1e-6, loss)?;
        }
    }
    Ok(())
}

#[test]
fn the_first_of_equal_maxima_gets_the_gradient() -> Result<()> {
    let x = Var::new(
        &[[[[1f64, 3., 3.], [3., 0., 3.], [3., 3., 3.]]]],
        &Device::Cpu,
    )?;
    let pooling = Window {
        kernel: 2,
        stride: 1,
        padding: 0,
    };
    for enter in [FUSED, COMPOSED] {
        let y = max_pool2d(&enter(&x)?, &pooling)?.exit()?;
        let grads = adahessian::backward_detached(&y.sum_all()?)?;
        let gradient = grads.get(&x).unwrap().flatten_all()?.to_vec1::<f64>()?;
        assert_eq!(gradient, [0., 2., 0., 1., 0., 1., 0., 0., 0.]);
    }
    Ok(())
}

/// Wherever it is in its window; the other windows have nothing of it.
#[test]
fn a_maximum_keeps_not_a_number() -> Result<()> {
    let pooling = Window {
        kernel: 2,
        stride: 2,
        padding: 0,
    };
    for (enter, place) in [FUSED, COMPOSED]
        .into_iter()
        .flat_map(|e| [0, 1, 4, 5].map(|p| (e, p)))
    {
        let mut pixels = vec![1f64; 16];
        pixels[place] = f64::NAN;
        let x = Tensor::from_vec(pixels, (1, 1, 4, 4), &Device::Cpu)?;
        let y = max_pool2d(&enter(&x)?, &pooling)?.exit()?;
        let y = y.flatten_all()?.to_vec1::<f64>()?;
        assert!(y[0].is_nan() && y[1..] == [1.0; 3], "{place}: {y:?}");
    }
    Ok(())
}

/// A value that is used three times, a variable used twice, candle's operations in between, and a
/// value that nothing is done with.
#[test]
fn handles_mix_with_candle_and_fan_out() -> Result<()> {
    let vars = vars(&[
        ("x", &[2, 3, 6, 6]),
        ("w", &[3, 3, 3, 3]),
        ("unused", &[2, 3, 1, 1]),
    ])?;
    agree("mixture", &vars, 1e-12, |vars, enter| {
        let conv = Convolution::new(1, 1);
        let w = vars.get("w")?;
        let a = conv2d(&enter(vars.get("x")?)?, w, None, &conv)?;
        let b = conv2d(&a, &w.tanh()?, None, &conv)?;
        conv2d(&a, vars.get("unused")?, None, &Convolution::default())?;
        let c = enter(&(a.exit()? * b.exit()?.tanh()?)?)?;
        let pooling = Window {
            kernel: 3,
            stride: 2,
            padding: 1,
        };
        Ok((max_pool2d(&a, &pooling)?.exit()? + avg_pool2d(&c, &pooling)?.exit()?)?)
    })
}

/// A variable hands its gradient to the library where it can; whatever else is done with it, the
/// gradient is the same, and so is the product, by the library or by the user's own second pass.
#[test]
fn a_variable_has_one_gradient_however_often_it_enters() -> Result<()> {
    let vars = vars(&[
        ("x", &[2, 3, 5, 5]),
        ("once", &[3, 3, 3, 3]),
        ("w", &[3, 3, 3, 3]),
    ])?;
    let op = |vars: &NamedVars, enter: Enter| {
        let conv = Convolution::new(1, 1);
        let a = conv2d(&enter(vars.get("x")?)?, vars.get("once")?, None, &conv)?;
        let b = conv2d(&a, vars.get("w")?, None, &conv)?;
        let c = conv2d(&b, vars.get("w")?, None, &conv)?;
        Ok((c.exit()?
            + vars
                .get("w")?
                .sqr()?
                .sum_all()?
                .broadcast_as(&[2, 3, 5, 5])?)?)
    };
    agree("used twice, and by candle", &vars, 1e-11, op)?;

    let z = VarVec::from_fn(&vars, |name, shape, dtype, device| {
        Stream::new(3, name, 1, 0).normal_tensor(shape, dtype, device)
    })?;
    let value = loss(&op(&vars, FUSED)?)?;
    let expected = Hessian::of(&value, &vars)?.apply(&z)?;
    let grads = adahessian::backward(&loss(&op(&vars, FUSED)?)?)?;
    let mut inner = Tensor::zeros((), DType::F64, &Device::Cpu)?;
    for ((_, var), (_, z)) in vars.iter().zip(z.iter()) {
        let gradient = grads.get(var).expect("every variable has one");
        inner = (inner + (gradient * z)?.sum_all()?)?;
    }
    let by_hand = inner.backward()?;
    for ((name, var), (_, expected)) in vars.iter().zip(expected.iter()) {
        let product = by_hand.get(var).expect("every variable has one");
        assert_close(&format!("Hz of {name} by hand"), product, expected, 1e-12)?;
    }
    Ok(())
}

#[test]
fn products_with_some_of_the_variables_are_blocks_of_the_hessian() -> Result<()> {
    let all = norm_vars(&CASES[0])?;
    let running = statistics(4, DType::F64)?;
    let norm = &norms(&CASES[0], &running)[2];
    for keep in ["x", "w", "gamma", "beta", "r"] {
        let (some, _) = all.partition(|name| name == keep);
        let value = |enter: Enter| loss(&norm.apply(&all, enter)?);
        let z = VarVec::from_fn(&some, |name, shape, dtype, device| {
            Stream::new(3, name, 1, 0).normal_tensor(shape, dtype, device)
        })?;
        // Twice each, whole and part, on one graph: nothing of one product may be left for the next.
        let graph = value(FUSED)?;
        let grads = adahessian::backward(&graph)?;
        let part = Hessian::from_gradients(&grads, &some)?.apply(&z)?;
        let expected = Hessian::of(&value(COMPOSED)?, &some)?.apply(&z)?;
        for ((name, a), (_, b)) in part.iter().zip(expected.iter()) {
            assert_close(name, a, b, 1e-10)?;
        }
    }
    Ok(())
}

#[test]
fn candles_own_backward_and_other_threads_give_the_same_gradient() -> Result<()> {
    let vars = conv_vars(&CASES[0])?;
    let value = || -> adahessian::Result<Tensor> {
        let x = Handle::enter(vars.get("x")?)?;
        loss(
            &conv2d(
                &x,
                vars.get("w")?,
                Some(vars.get("b")?),
                &Convolution::new(1, 1),
            )?
            .exit()?,
        )
    };
    let ours = adahessian::backward(&value()?)?;
    let graph = value()?;
    let first = graph.backward()?;
    let again = graph.backward()?;
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| value()?.backward().map_err(adahessian::Error::from)))
            .collect();
        for thread in threads {
            let theirs = thread.join().expect("no panic")?;
            for (name, var) in vars.iter() {
                for grads in [&first, &again, &theirs] {
                    assert_close(name, grads.get(var).unwrap(), ours.get(var).unwrap(), 0.0)?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_third_derivative_is_refused() -> Result<()> {
    // On a thread of its own that keeps every graph, as a user can make one.
    let x = Var::new(&[[[[0.5f64]]]], &Device::Cpu)?;
    let w = Var::new(&[[[[2f64]]]], &Device::Cpu)?;
    let y = conv2d(&Handle::enter(&x)?, &w, None, &Convolution::default())?.exit()?;
    let first = adahessian::backward(&y.sqr()?.sum_all()?)?;
    let slope = first.get(&x).unwrap().sum_all()?;
    assert_says(
        adahessian::backward(&slope),
        &["third derivative", "conv2d", "Handle::composed"],
    );
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let tensor = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    let x = Handle::enter(&tensor(&[1, 3, 4, 4])?)?;
    let plain = Convolution::default();
    let convolve = |w: &[usize], conv: &Convolution| conv2d(&x, &tensor(w)?, None, conv);
    assert_says(
        convolve(&[2, 4, 3, 3], &plain),
        &["convolution", "4 input channels", "3 inputs"],
    );
    assert_says(
        convolve(&[2, 3, 5, 3], &plain),
        &["5x3", "4x4 with padding 0"],
    );
    assert_says(
        convolve(&[2, 3, 3], &plain),
        &["[out, in/groups, KH, KW]", "[2, 3, 3]"],
    );
    assert_says(
        convolve(&[2, 3, 1, 1], &Convolution::new(0, 0)),
        &["stride", "at least 1"],
    );
    assert_says(
        convolve(&[4, 1, 1, 1], &conv_of([1, 0, 1, 3])),
        &["groups", "4 outputs"],
    );
    let wide = Window {
        kernel: 3,
        stride: 1,
        padding: 2,
    };
    assert_says(max_pool2d(&x, &wide), &["pooling", "half of the kernel"]);
    assert_says(
        subsample_channels(&x, 1, 2),
        &["at least 3 channels", "2 channels"],
    );
    let half = Var::zeros(&[2, 3, 1, 1][..], DType::F64, &Device::Cpu)?;
    assert_says(conv2d(&x, &half, None, &plain), &["F32", "F64"]);
    let running = RunningStatistics::new(3, DType::F32, &Device::Cpu)?;
    let (three, two) = (tensor(&[3])?, tensor(&[2])?);
    let outside = BatchNorm {
        momentum: 1.5,
        ..BatchNorm::new(&three, &three, &running, true)
    };
    let kernel = tensor(&[3, 3, 1, 1])?;
    let refused = conv_batch_norm(&x, &kernel, &plain, &outside, None, Activation::Relu);
    assert_says(
        refused,
        &["batch normalisation", "momentum between 0 and 1", "1.5"],
    );
    let norm = BatchNorm::new(&two, &three, &running, true);
    let refused = conv_batch_norm(
        &x,
        &tensor(&[3, 3, 1, 1])?,
        &plain,
        &norm,
        None,
        Activation::Relu,
    );
    assert_says(refused, &["weight of a batch normalisation", "[3]", "[2]"]);
    Ok(())
}

#[test]
fn the_number_of_threads_changes_no_bit() -> Result<()> {
    let vars = to(
        &norm_vars(&([24, 3, 12, 12], [9, 3, 3], [1, 1, 1, 1]))?,
        DType::F32,
    )?;
    let product = |threads: usize| -> Result<VarVec> {
        let running = RunningStatistics::new(9, DType::F32, &Device::Cpu)?;
        let case = ([24, 3, 12, 12], [9, 3, 3], [1, 1, 1, 1]);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()?;
        pool.install(|| {
            let value = loss(&norms(&case, &running)[1].apply(&vars, FUSED)?)?;
            // On this thread's pool: candle's own backward pass of the gradient's product.
            let grads = value.backward()?;
            Ok(VarVec::new(
                &vars,
                vars.iter()
                    .map(|(_, var)| grads.get(var).unwrap().clone())
                    .collect(),
            )?)
        })
    };
    let one = product(1)?;
    for threads in [2, 4] {
        for ((name, a), (_, b)) in product(threads)?.iter().zip(one.iter()) {
            assert_close(&format!("{name}, {threads} threads"), a, b, 0.0)?;
        }
    }
    Ok(())
}
