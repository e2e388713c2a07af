//! Values and derivatives of operations on the device.

use super::device;
use adahessian::engine::Handle;
use adahessian::ops::{self, Dropout};
use adahessian::ops::{
    Activation, BatchNorm, Convolution, RunningStatistics, Window, conv_batch_norm, conv2d,
    max_pool2d,
};
use adahessian::{Hessian, LinearOperator, NamedVars, VarVec};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use testing::dropped_norm;
use testing::twins::{COMPOSED, Enter, FUSED, loss, random, to_place, vars};
use testing::{assert_close, assert_says};

const TYPES: [(DType, f64); 2] = [(DType::F64, 1e-12), (DType::F32, 1e-5)];

/// The numbers, wherever they are.
fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    Ok(x.flatten_all()?.to_vec1()?)
}

/// Value, gradient and Hz on the device against the composed form in f64 on the CPU.
pub fn same(
    what: &str,
    vars: &NamedVars,
    device: &Device,
    op: impl Fn(&NamedVars, Enter) -> adahessian::Result<Tensor>,
) -> Result<()> {
    same_in(&TYPES, what, vars, device, op)
}

/// The same in these types, to these tolerances.
fn same_in(
    types: &[(DType, f64)],
    what: &str,
    vars: &NamedVars,
    device: &Device,
    op: impl Fn(&NamedVars, Enter) -> adahessian::Result<Tensor>,
) -> Result<()> {
    for &(dtype, tolerance) in types {
        let there = to_place(vars, dtype, device)?;
        let (a, b) = (op(&there, FUSED)?, op(vars, COMPOSED)?);
        assert_close(&format!("{what}: value"), &a, &b, tolerance)?;
        let (a, b) = (
            Hessian::of(&loss(&a)?, &there)?,
            Hessian::of(&loss(&b)?, vars)?,
        );
        let draw = |vars: &NamedVars| {
            VarVec::from_fn(vars, |name, shape, dtype, device| {
                let z = adahessian::random::Stream::new(3, name, 1, 0);
                // Of f32, the same in both types.
                let z = z.normal_tensor(shape, DType::F32, device)?;
                Ok(z.to_dtype(dtype)?)
            })
        };
        let levels = [
            ("gradient", a.gradient()?, b.gradient()?),
            ("Hz", a.apply(&draw(&there)?)?, b.apply(&draw(vars)?)?),
        ];
        for (level, a, b) in levels {
            for ((name, a), (_, b)) in a.iter().zip(b.iter()) {
                let what = format!("{what}, {dtype:?}: {level} of {name}");
                assert_close(&what, a, b, tolerance)?;
            }
        }
    }
    Ok(())
}

#[test]
fn linear_cross_entropies() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for (rows, width, classes) in [(5, 4, 3), (33, 8, 17), (2, 5, 3000)] {
        let all = vars(&[
            ("x", &[rows, width]),
            ("weight", &[classes, width]),
            ("bias", &[classes]),
        ])?;
        for (smoothing, has_bias) in [(0.0, true), (0.1, false)] {
            let targets = (0..rows).map(|i| match i % 3 == 1 {
                true => -100,
                false => (i * 7 % classes) as i64,
            });
            let targets = Tensor::from_vec(targets.collect(), rows, &device)?;
            let what = format!("linear cross entropy {rows}x{width}x{classes}, {smoothing}");
            let (used, _) = all.partition(|name| has_bias || name != "bias");
            same(&what, &used, &device, |vars, enter| {
                let (x, weight) = (enter(vars.get("x")?)?, vars.get("weight")?);
                let bias = vars.get("bias").ok().map(|bias| bias.as_tensor());
                let ignore = Some(-100);
                let loss =
                    ops::linear_cross_entropy(&x, weight, bias, &targets, smoothing, ignore)?;
                loss.exit()
            })?;
        }
    }
    Ok(())
}

#[test]
fn cross_entropies() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for (rows, classes) in [(1, 2), (5, 3), (4, 100), (33, 17), (2, 3000)] {
        let vars = vars(&[("logits", &[rows, classes])])?;
        for smoothing in [0.0, 0.1] {
            let targets = (0..rows).map(|i| match i % 3 == 1 {
                true => -100,
                false => (i * 7 % classes) as i64,
            });
            let targets = Tensor::from_vec(targets.collect(), rows, &device)?;
            let what = format!("cross entropy {rows}x{classes}, {smoothing}");
            let loss = |vars: &NamedVars, enter: Enter| {
                let logits = enter(vars.get("logits")?)?;
                ops::cross_entropy(&logits, &targets, smoothing, Some(-100))?.exit()
            };
            same(&what, &vars, &device, loss)?;
            // With a root, the two terms of Hz over two classes cancel to a hundredth, more than f32 has digits for.
            let types = match classes {
                2 => &TYPES[..1],
                _ => &TYPES[..],
            };
            same_in(types, &what, &vars, &device, |vars, enter| {
                Ok(loss(vars, enter)?.sqrt()?)
            })?;
        }
    }
    Ok(())
}

#[test]
fn losses_of_rows() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for rows in [1, 2, 9, 700] {
        let vars = vars(&[("x", &[rows])])?;
        let targets = (0..rows).map(|i| [0.0, 1.0, 0.3][i % 3]).collect();
        let targets = Tensor::from_vec::<_, f64>(targets, rows, &Device::Cpu)?;
        let place = |vars: &NamedVars| -> adahessian::Result<Tensor> {
            Ok(targets.to_device(vars.get("x")?.device())?)
        };
        same(&format!("clicks {rows}"), &vars, &device, |vars, enter| {
            let logits = enter(vars.get("x")?)?;
            Ok(ops::binary_cross_entropy(&logits, &place(vars)?)?
                .exit()?
                .sqrt()?)
        })?;
        same(&format!("squares {rows}"), &vars, &device, |vars, enter| {
            ops::mse(&enter(vars.get("x")?)?, &place(vars)?)?.exit()
        })?;
    }
    // Far out, where e^l is no number any more, in the middle, and where there is no number.
    let logits = Tensor::new(&[800f32, -800.0, 0.0], &device)?;
    let targets = Tensor::new(&[1f32, 1.0, 0.0], &device)?;
    let loss = ops::binary_cross_entropy(&Handle::enter(&logits)?, &targets)?.exit()?;
    let expected = (800.0 + std::f64::consts::LN_2) / 3.0;
    assert!((numbers(&loss)?[0] - expected).abs() < 1e-4);
    let missing = Tensor::new(&[f32::NAN, 0.0, 0.0], &device)?;
    let loss = ops::binary_cross_entropy(&Handle::enter(&missing)?, &targets)?.exit()?;
    assert!(numbers(&loss)?[0].is_nan());
    Ok(())
}

#[test]
fn activations_and_maxima() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let layer = vars(&[("x", &[3, 4]), ("w", &[5, 4]), ("b", &[5])])?;
    for activation in [Activation::Relu, Activation::Gelu, Activation::Tanh] {
        same(&activation.to_string(), &layer, &device, |vars, enter| {
            let (w, b) = (vars.get("w")?, vars.get("b")?);
            let y = ops::linear(&enter(vars.get("x")?)?, w, Some(b), 1, activation)?;
            Ok(y.exit()?.sqr()?)
        })?;
        let alone = vars(&[("x", &[3, 4])])?;
        same(
            &format!("{activation} alone"),
            &alone,
            &device,
            |vars, enter| {
                let y = ops::activation(&enter(vars.get("x")?)?, activation)?;
                Ok(y.exit()?.sqr()?)
            },
        )?;
    }
    let pooling = Window {
        kernel: 3,
        stride: 2,
        padding: 1,
    };
    same(
        "maximum",
        &vars(&[("x", &[2, 3, 5, 6])])?,
        &device,
        |vars, enter| max_pool2d(&enter(vars.get("x")?)?, &pooling)?.exit(),
    )
}

/// Not-a-number stays, infinities are no reason for one, and 0 has the slope of the fused form.
#[test]
fn relu_at_its_edges() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for (dtype, _) in TYPES {
        let x = [f64::NAN, -1.0, 0.0, 2.0, f64::INFINITY, f64::NEG_INFINITY];
        let x = Tensor::new(&x, &Device::Cpu)?.to_dtype(dtype)?;
        let x = Var::from_tensor(&x.to_device(&device)?)?;
        let y = ops::activation(x.as_tensor(), Activation::Relu)?;
        let values = numbers(&y)?;
        assert!(values[0].is_nan());
        assert_eq!(values[1..], [0.0, 0.0, 2.0, f64::INFINITY, 0.0]);
        let grads = adahessian::backward(&y.sum_all()?)?;
        let slopes = numbers(grads.get(&x).expect("reached"))?;
        assert_eq!(slopes, [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    }
    Ok(())
}

#[test]
fn not_a_number_is_not_swallowed() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for (dtype, _) in TYPES {
        let full =
            |value: f32, shape: &[usize]| Tensor::full(value, shape, &device)?.to_dtype(dtype);
        let enter = |value: f32| Handle::enter(&full(value, &[2, 3, 4])?);
        let (nan, ones) = (enter(f32::NAN)?, enter(1.0)?);
        let (weight, norm, none) = (full(1.0, &[4, 4])?, full(1.0, &[4])?, Dropout::none());
        let mut results = vec![
            ops::attention([&nan, &ones, &ones], 2, None, true, &none)?,
            ops::attention([&ones, &ones, &nan], 2, None, false, &none)?,
            dropped_norm(&nan, None, &none, &norm, &norm, 1e-6)?,
        ];
        for activation in [Activation::Gelu, Activation::Tanh, Activation::Relu] {
            results.push(ops::linear(&nan, &weight, None, 1, activation)?);
        }
        let image = Handle::enter(&full(f32::NAN, &[2, 1, 4, 4])?)?;
        let kernel = full(1.0, &[1, 1, 1, 1])?;
        let running = RunningStatistics::new(1, dtype, &device)?;
        let one = full(1.0, &[1])?;
        let (plain, batch) = (
            Convolution::default(),
            BatchNorm::new(&one, &one, &running, true),
        );
        let relu = Activation::Relu;
        results.push(conv_batch_norm(
            &image, &kernel, &plain, &batch, None, relu,
        )?);
        for result in results {
            assert!(numbers(&result.exit()?)?.iter().all(|x| x.is_nan()));
        }
        // One among others, at every place of a window of its own.
        let pooling = Window {
            kernel: 2,
            stride: 2,
            padding: 0,
        };
        for place in [0, 1, 4, 5] {
            let mut pixels = vec![1f32; 16];
            pixels[place] = f32::NAN;
            let image = Tensor::from_vec(pixels, (1, 1, 4, 4), &device)?.to_dtype(dtype)?;
            let y = numbers(&max_pool2d(&Handle::enter(&image)?, &pooling)?.exit()?)?;
            assert!(y[0].is_nan() && y[1..] == [1.0, 1.0, 1.0], "{place}: {y:?}");
        }
    }
    Ok(())
}

/// Operations that are composed have a third derivative: that of (wx)³ in x is 6w³. The fused ones of
/// the CPU refuse it.
#[test]
fn a_third_derivative_is_right_or_refused() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    type Enter = fn(&Tensor) -> adahessian::Result<Handle>;
    let second = |device: &Device, enter: Enter| -> Result<(Var, Tensor)> {
        let x = Var::new(&[[[[0.5f64]]]], device)?;
        let w = Var::new(&[[[[2f64]]]], device)?;
        let y = conv2d(&enter(&x)?, &w, None, &Convolution::default())?.exit()?;
        let first = adahessian::backward(&(y.sqr()? * &y)?.sum_all()?)?;
        let slope = first.get(&x).expect("reached").sum_all()?;
        Ok((x, slope))
    };
    let (x, slope) = second(&device, |x| Ok(Handle::composed(x)))?;
    let bend = adahessian::backward(&slope)?
        .get(&x)
        .expect("reached")
        .sum_all()?;
    assert_eq!(numbers(&bend)?, [24.0]); // 6w³x
    let third = adahessian::backward_detached(&bend)?;
    assert_eq!(numbers(third.get(&x).expect("reached"))?, [48.0]);
    for device in [&device, &Device::Cpu] {
        let (_, slope) = second(device, Handle::enter)?;
        assert_says(
            adahessian::backward(&slope),
            &["third derivative", "Handle::composed"],
        );
    }
    Ok(())
}

/// A fused operation says which operand is elsewhere.
#[test]
fn operands_on_two_devices_are_refused() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let (here, weight) = (random("x", &[2, 3])?, random("w", &[4, 3])?);
    let there = weight.to_device(&device)?;
    let handle = Handle::enter(&here)?;
    assert_says(
        ops::linear(&handle, &there, None, 1, Activation::Identity),
        &["operand", "on the CPU", "Cuda"],
    );
    let handle = Handle::enter(&here.to_device(&device)?)?;
    assert_says(
        ops::linear(&handle, &weight, None, 1, Activation::Identity),
        &["device mismatch"],
    );
    Ok(())
}
