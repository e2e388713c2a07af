//! Numbers at the ends of what a type holds, sizes beyond memory, parts without entries, and many threads.

use adahessian::engine::Handle;
use adahessian::ops::{self, Activation, Convolution, Dropout, Mode, Window};
use adahessian::random::Stream;
use adahessian::{Hessian, LinearOperator, NamedVars, VarVec, backward, nn};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Module, Tensor, Var};
use testing::twins::{COMPOSED, FUSED, TENSORS, random, vars};
use testing::{assert_close, assert_says};

const CPU: Device = Device::Cpu;
type Enter = fn(&Tensor) -> adahessian::Result<Handle>;
/// Fused, composed, and as on a GPU, where half precision is composed.
const FORMS: [(&str, Enter); 3] = [
    ("fused", |x| Handle::enter(x)),
    ("composed", |x| Ok(Handle::composed(x))),
    ("tensors", |x| match x.dtype() {
        DType::F32 | DType::F64 => TENSORS(x),
        _ => Ok(Handle::composed(x)),
    }),
];

fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}

/// The gradient and H 1 of a loss of one variable.
fn slopes(x: &Tensor, loss: impl Fn(&Tensor) -> Result<Tensor>) -> Result<[Vec<f64>; 2]> {
    let var = Var::from_tensor(x)?;
    let vars = NamedVars::new([("x".to_string(), var.clone())])?;
    let loss = loss(var.as_tensor())?;
    let gradient = backward(&loss)?;
    let gradient = numbers(gradient.get(&var).unwrap())?;
    let ones = VarVec::new(&vars, vec![x.ones_like()?])?;
    let product = Hessian::of(&loss, &vars)?.apply(&ones)?;
    Ok([gradient, numbers(&product.tensors()[0])?])
}

type Silu = fn(&Tensor) -> Result<Tensor>;

/// σ(x)(1 + x(1 - σ(x))) and its derivative are 0 far below, and not 0 · ∞.
#[test]
fn silu_far_below_zero_has_both_derivatives() -> Result<()> {
    let far = |dtype| Tensor::new(&[-2000f64, -100.0, -20.0, 0.5], &CPU)?.to_dtype(dtype);
    let forms: [(&str, Silu); 5] = [
        ("fused", |x| {
            let y = ops::activation(&Handle::enter(x)?, Activation::Silu)?;
            Ok(y.exit()?)
        }),
        ("composed", |x| {
            let y = ops::activation(&Handle::composed(x), Activation::Silu)?;
            Ok(y.exit()?)
        }),
        ("silu", |x| Ok(nn::ops::silu(x)?)),
        ("layer", |x| Ok(nn::Activation::Swish.forward(x)?)),
        ("swiglu", |x| {
            let ones = x.ones_like()?.detach();
            Ok(nn::ops::swiglu(&Tensor::cat(&[x, &ones], 0)?)?)
        }),
    ];
    for (form, silu) in forms {
        for dtype in [DType::F64, DType::F32, DType::BF16] {
            let [gradient, product] = slopes(&far(dtype)?, |x| Ok(silu(x)?.sum_all()?))?;
            let what = format!("{form} {dtype:?}: {gradient:?} {product:?}");
            // e⁻¹⁰⁰ in f64.
            assert!(gradient[..2].iter().all(|g| g.abs() < 1e-40), "{what}");
            assert!(product[..2].iter().all(|g| g.abs() < 1e-40), "{what}");
            let s = 1.0 / (1.0 + (-0.5f64).exp());
            let expected = s * (1.0 - s) * (2.0 + 0.5 * (1.0 - 2.0 * s));
            assert!((product[3] - expected).abs() < 0.02, "{what}");
        }
    }
    Ok(())
}

/// GELU''(x) = φ(x)(2 - x²) is 0 far out, where x² is infinite, and its approximation's slope is 1 or 0.
#[test]
fn gelu_far_out_has_both_derivatives() -> Result<()> {
    for (form, enter) in FORMS {
        for (dtype, far) in [(DType::F64, 1e200), (DType::F32, 1e20), (DType::BF16, 1e20)] {
            let x = Tensor::new(&[far, -far], &CPU)?.to_dtype(dtype)?;
            let loss = |x: &Tensor| -> Result<Tensor> {
                let y = ops::activation(&enter(x)?, Activation::Gelu)?;
                Ok(y.exit()?.sum_all()?)
            };
            let [gradient, product] = slopes(&x, loss)?;
            let what = format!("{form} {dtype:?}: {gradient:?} {product:?}");
            assert_eq!(gradient, [1.0, 0.0], "{what}");
            assert!(product.iter().all(|h| h.abs() == 0.0), "{what}");
        }
    }
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let x = Tensor::new(&[300f32, -300.0], &CPU)?.to_dtype(dtype)?;
        let by_tanh = |x: &Tensor| Ok(nn::Activation::NewGelu.forward(x)?.sum_all()?);
        let [gradient, product] = slopes(&x, by_tanh)?;
        assert_eq!(gradient, [1.0, 0.0], "{dtype:?}");
        assert!(product.iter().all(|h| h.abs() == 0.0), "{dtype:?}");
    }
    Ok(())
}

/// The 1 of ½ (1 + erf) would swallow what is below 0.
#[test]
fn gelu_of_half_precision_is_that_of_f32_rounded() -> Result<()> {
    let x = Tensor::new(&[-3f32, -4.0, -1.0, 0.5, 2.0], &CPU)?;
    for (form, enter) in FORMS {
        for dtype in [DType::BF16, DType::F16] {
            let y = ops::activation(&enter(&x.to_dtype(dtype)?)?, Activation::Gelu)?.exit()?;
            let expected = ops::activation(&x, Activation::Gelu)?.to_dtype(dtype)?;
            let (got, expected) = (numbers(&y)?, numbers(&expected)?);
            for (got, expected) in got.iter().zip(&expected) {
                assert!(
                    (got / expected - 1.0).abs() < 1e-2,
                    "{form} {dtype:?}: {got} {expected}"
                );
            }
        }
    }
    Ok(())
}

/// A sum of many large numbers is rounded, and the mean is right all the same.
#[test]
fn a_mean_far_from_zero_is_no_deviation() -> Result<()> {
    [100.015625, 30000.3, 100000.1]
        .into_iter()
        .try_for_each(has_no_deviation)
}

fn has_no_deviation(value: f32) -> Result<()> {
    let x = Tensor::full(value, (1, 1, 512, 512), &CPU)?;
    let (one, zero) = (
        Tensor::ones(1, DType::F32, &CPU)?,
        Tensor::zeros(1, DType::F32, &CPU)?,
    );
    let running = ops::RunningStatistics::new(1, DType::F32, &CPU)?;
    let norm = ops::BatchNorm::new(&one, &zero, &running, true);
    let kernel = Tensor::ones((1, 1, 1, 1), DType::F32, &CPU)?;
    let (convolution, identity) = (Convolution::default(), Activation::Identity);
    let image = Handle::enter(&x)?;
    let y = ops::conv_batch_norm(&image, &kernel, &convolution, &norm, None, identity)?;
    // From 1 at first, by a tenth towards nothing.
    let variance = numbers(&running.variance)?[0];
    assert!((0.8999..0.91).contains(&variance), "{value}: {variance}");
    let width = x.elem_count();
    let row = Handle::enter(&x.reshape((1, width))?)?;
    let (ones, zeros) = (one.broadcast_as(width)?, zero.broadcast_as(width)?);
    let (ones, zeros) = (ones.contiguous()?, zeros.contiguous()?);
    let row = ops::layer_norm(&row, &ones, &zeros, 1e-5)?;
    // The mean of a row is one of f32, and may be off by the last digit of larger numbers.
    let row = (value < 1e3).then_some(row);
    for y in [Some(y), row].into_iter().flatten() {
        let largest = numbers(&y.exit()?.abs()?.flatten_all()?.max(0)?)?;
        assert!(largest[0] < 0.01, "{value}: {largest:?}");
    }
    Ok(())
}

/// A class that is ruled out by a logit of -∞, and anything at all in a row that is not counted.
#[test]
fn cross_entropy_of_classes_that_are_ruled_out() -> Result<()> {
    let inf = f64::INFINITY;
    let rows = [[-inf, 0.0, 1.0], [f64::NAN, inf, -inf], [0.5, 0.0, 1.0]];
    let targets = Tensor::new(&[2i64, -100, 0], &CPU)?;
    for (form, enter) in FORMS {
        for dtype in [DType::F64, DType::F32] {
            let logits = Tensor::new(&rows, &CPU)?.to_dtype(dtype)?;
            let loss = |x: &Tensor| -> Result<Tensor> {
                Ok(ops::cross_entropy(&enter(x)?, &targets, 0.0, Some(-100))?.exit()?)
            };
            let sum = |row: &[f64]| row.iter().map(|l| l.exp()).sum::<f64>();
            let expected = 0.5 * (sum(&rows[0]).ln() - 1.0 + sum(&rows[2]).ln() - 0.5);
            let got = numbers(&loss(&logits)?)?[0];
            assert!((got - expected).abs() < 1e-6, "{form} {dtype:?}: {got}");
            let [gradient, _] = slopes(&logits, loss)?;
            let share = |row: usize, class: usize| 0.5 * rows[row][class].exp() / sum(&rows[row]);
            let expected = [
                [0.0, share(0, 1), share(0, 2) - 0.5],
                [0.0; 3],
                [share(2, 0) - 0.5, share(2, 1), share(2, 2)],
            ];
            for (got, expected) in gradient.iter().zip(expected.as_flattened()) {
                assert!(
                    (got - expected).abs() < 1e-6,
                    "{form} {dtype:?}: {gradient:?}"
                );
            }
        }
    }
    Ok(())
}

/// What all logits of a row have in common is in no derivative, however large it is.
#[test]
fn cross_entropy_of_logits_with_a_large_offset() -> Result<()> {
    let targets = Tensor::new(&[0u32], &CPU)?;
    for (form, enter) in FORMS {
        for offset in [0f32, 1e4, 1e6, 1e7] {
            let logits = Tensor::new(&[[offset, offset]], &CPU)?;
            let loss = |x: &Tensor| -> Result<Tensor> {
                let loss = ops::cross_entropy(&enter(x)?, &targets, 0.0, None)?.exit()?;
                Ok(loss.sqr()?)
            };
            let [gradient, product] = slopes(&logits, loss)?;
            // 2 L (p - q); p - q and L'' of equal logits.
            let slope = 2f64.ln();
            assert!(
                (gradient[0] + slope).abs() < 1e-5,
                "{form} {offset}: {gradient:?}"
            );
            assert!(
                (gradient[1] - slope).abs() < 1e-5,
                "{form} {offset}: {gradient:?}"
            );
            assert!(
                product.iter().all(|x| x.abs() < 1e-5),
                "{form} {offset}: {product:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn parts_without_entries_are_joined_in_any_order() -> Result<()> {
    let (x, empty) = (
        random("x", &[2, 3])?,
        Tensor::zeros((0, 3), DType::F64, &CPU)?,
    );
    for parts in [[&empty, &x], [&x, &empty]] {
        let joined = ops::cat(&parts, 0)?;
        assert_close("joined", &joined, &x, 0.0)?;
    }
    assert_eq!(ops::cat(&[&empty, &empty], 0)?.dims(), [0, 3]);
    let other = Tensor::zeros((0, 4), DType::F64, &CPU)?;
    assert_says(
        ops::cat(&[&x, &other], 0).map(drop),
        &["part to join", "[0, 4]"],
    );
    Ok(())
}

#[test]
fn sizes_that_no_number_holds_are_errors() -> Result<()> {
    let x = random("x", &[2, 3])?;
    assert_says(ops::narrow(&x, 0, usize::MAX, 2).map(drop), &["range"]);
    assert_says(ops::narrow(&x, 0, 1, usize::MAX).map(drop), &["range"]);
    let conv = |padding, dilation| Convolution {
        padding,
        dilation,
        ..Convolution::default()
    };
    for conv in [conv(usize::MAX / 2 + 1, 1), conv(0, usize::MAX)] {
        assert_says(conv.output_size((4, 4), (3, 3)).map(drop), &["convolution"]);
    }
    let window = Window {
        kernel: 2,
        stride: 1,
        padding: usize::MAX,
    };
    assert_says(window.output_size((4, 4)).map(drop), &["pooling"]);
    assert_says(ops::reshape(&x, &[usize::MAX, 2]).map(drop), &["shape"]);
    assert_says(
        ops::reshape(&x, &[(1 << 63) + 3, 2]).map(drop),
        &["shape", "6 entries"],
    );
    let groups = Convolution {
        groups: usize::MAX,
        ..Convolution::default()
    };
    let (image, kernel) = (random("i", &[1, 4, 3, 3])?, random("k", &[4, 2, 1, 1])?);
    assert_says(
        ops::conv2d(&image, &kernel, None, &groups).map(drop),
        &["convolution", "groups"],
    );
    assert_says(
        ops::Bags::new(vec![], vec![0], [usize::MAX, 2], ops::Pooling::Sum).map(drop),
        &["starts of bags"],
    );
    Ok(())
}

/// Time and memory go by the pixels that a stride reaches, and not by the stride.
#[test]
fn a_stride_beyond_the_image_reaches_one_pixel() -> Result<()> {
    // Of the larger kernel the last tap sees the corner, and all others the border.
    for (padding, side) in [(0, 1), (2, 3)] {
        for method in [ops::Method::Views, ops::Method::Columns] {
            let [x, w] = [("x", [2, 2, 3, 3]), ("w", [3, 2, side, side])]
                .map(|(name, shape)| random(name, &shape));
            let vars = [("x", x?), ("w", w?)].map(|(name, value)| {
                let var = Var::from_tensor(&value)?;
                Ok::<_, anyhow::Error>((name.to_string(), var))
            });
            let vars = NamedVars::new(vars.into_iter().collect::<Result<Vec<_>>>()?)?;
            let (x, w) = (vars.get("x")?, vars.get("w")?);
            let convolution = Convolution {
                stride: usize::MAX,
                padding,
                method,
                ..Convolution::default()
            };
            let of = || ops::conv2d(&Handle::enter(x)?, w, None, &convolution)?.exit();
            let y = of()?.reshape((2, 3))?;
            let at = |t: &Tensor, place: usize| t.narrow(2, place, 1)?.narrow(3, place, 1);
            let corner = at(x, 0)?.reshape((2, 2))?;
            let expected = corner.matmul(&at(w, side - 1)?.reshape((3, 2))?.t()?)?;
            assert_close("the corner", &y, &expected, 1e-12)?;
            let loss = || Ok(of()?.sqr()?.sin()?.sum_all()?);
            adahessian::check::gradient(&vars, 1e-6, loss)?;
            adahessian::check::hessian(&vars, 1e-6, loss)?;
        }
    }
    Ok(())
}

#[test]
fn a_stride_of_subsampling_beyond_the_image_asks_for_no_memory() -> Result<()> {
    for stride in [3, 1 << 20, usize::MAX] {
        for enter in [FUSED, COMPOSED, TENSORS] {
            let x = Var::from_tensor(&random("x", &[1, 2, 3, 3])?)?;
            let y = ops::subsample_channels(&enter(&x)?, stride, 4)?.exit()?;
            assert_eq!(y.dims(), [1, 4, 1, 1]);
            let grads = adahessian::backward_detached(&y.sqr()?.sum_all()?)?;
            let gradient = grads.get(&x).context("a gradient")?;
            let corner = gradient.narrow(2, 0, 1)?.narrow(3, 0, 1)?;
            let of_corner = (x.narrow(2, 0, 1)?.narrow(3, 0, 1)? * 2.0)?;
            assert_close("corner", &corner, &of_corner, 1e-12)?;
            assert_close("all", &gradient.sum_all()?, &corner.sum_all()?, 1e-12)?;
        }
    }
    Ok(())
}

/// e⁻ˣ is infinite in f16 from x = -11.1 on, where the value and its slope are numbers of f16 still.
#[test]
fn silu_of_half_precision_does_not_end_early() -> Result<()> {
    for x in [-12.0f64, -11.5, -9.0] {
        let exact = |x: f64| x / (1.0 + (-x).exp());
        let half = Tensor::new(&[x], &CPU)?.to_dtype(DType::F16)?;
        for (form, enter) in FORMS {
            let var = Var::from_tensor(&half)?;
            let y = ops::activation(&enter(&var)?, Activation::Silu)?.exit()?;
            let grads = adahessian::backward_detached(&y.sum_all()?)?;
            let slope = grads.get(&var).context("a gradient")?;
            let (y, slope) = (numbers(&y)?[0], numbers(slope)?[0]);
            let expected = (exact(x + 1e-4) - exact(x - 1e-4)) / 2e-4;
            let close = |a: f64, b: f64| (a - b).abs() <= 4e-3 * b.abs() + 1e-7;
            assert!(close(y, exact(x)), "{form}: {y} of {}", exact(x));
            assert!(close(slope, expected), "{form}: {slope} of {expected}");
        }
    }
    Ok(())
}

/// The same on the backend of tensors, by groups of channels, which candle pads.
#[test]
fn a_stride_beyond_the_image_asks_for_no_memory_by_groups() -> Result<()> {
    for groups in [1, 2] {
        let vars = vars(&[("x", &[2, 2, 3, 3]), ("w", &[4, 2 / groups, 2, 2])])?;
        let strided = |stride: usize| Convolution {
            stride,
            padding: 1,
            groups,
            ..Convolution::default()
        };
        let of = |stride: usize, enter: Enter| -> adahessian::Result<Tensor> {
            let y = ops::conv2d(
                &enter(vars.get("x")?)?,
                vars.get("w")?,
                None,
                &strided(stride),
            )?;
            Ok(y.exit()?.sqr()?.sin()?.sum_all()?)
        };
        let far = Hessian::of(&of(usize::MAX, TENSORS)?, &vars)?;
        let near = Hessian::of(&of(5, COMPOSED)?, &vars)?;
        let z = VarVec::from_fn(&vars, |name, shape, _, _| {
            Stream::new(1, name, 0, 0).normal_tensor(shape, DType::F64, &Device::Cpu)
        })?;
        for (what, got, expected) in [
            ("gradient", far.gradient()?, near.gradient()?),
            ("Hz", far.apply(&z)?, near.apply(&z)?),
        ] {
            for ((name, got), (_, expected)) in got.iter().zip(expected.iter()) {
                assert_close(&format!("{what} of {name}"), got, expected, 1e-12)?;
            }
        }
    }
    Ok(())
}

/// The mask is drawn by all threads together, and no head may wait for it meanwhile.
#[test]
fn attention_with_dropout_ends_on_many_threads() -> Result<()> {
    let shape = [8, 64, 12 * 4];
    let run = |threads: usize, step: u64| -> Result<Vec<f64>> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()?;
        pool.install(|| {
            let [q, k, v] = ["q", "k", "v"].map(|name| random(name, &shape));
            let mode = Mode::Train {
                seed: 3,
                step,
                micro: 0,
            };
            let dropout = Dropout::new(0.1, "attention", &mode);
            let [q, k, v] = [q?, k?, v?];
            let [q, k, v] = [Handle::enter(&q)?, Handle::enter(&k)?, Handle::enter(&v)?];
            let y = ops::attention([&q, &k, &v], 12, None, false, &dropout)?;
            numbers(&y.exit()?)
        })
    };
    for step in 0..20 {
        assert!(run(16, step)? == run(1, step)?, "step {step}");
    }
    Ok(())
}
