//! The engine when something goes wrong, and when it is used from several threads.

use adahessian::engine::{Handle, Op, call};
use adahessian::ops::{self, Activation, Dropout};
use adahessian::random::Stream;
use adahessian::{AdaHessian, Error, Hessian, LinearOperator, NamedVars, Optim, Optimizer, VarVec};
use anyhow::Result;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, Var};
use std::sync::atomic::{AtomicU32, Ordering};
use testing::assert_says;
use testing::dropped_norm;
use testing::twins::{Enter, FUSED, loss, twins, vars};

/// The identity, whose backward pass fails the first few times that it is asked.
struct Faulty {
    failures: &'static AtomicU32,
    panics: bool,
}

impl CustomOp1 for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let CpuStorage::F64(data) = x else {
            candle_core::bail!("f64 only")
        };
        let data = data[layout.start_offset()..][..layout.shape().elem_count()].to_vec();
        Ok((CpuStorage::F64(data), layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let left = self.failures.load(Ordering::SeqCst);
        if left == 0 {
            return Ok(Some(gradient.clone()));
        }
        self.failures.store(left - 1, Ordering::SeqCst);
        assert!(!self.panics, "a user's op panicked");
        candle_core::bail!("a user's op failed")
    }
}

fn model() -> Result<NamedVars> {
    vars(&[
        ("x", &[2, 3, 4]),
        ("w1", &[4, 4]),
        ("w2", &[4, 4]),
        ("norm", &[4]),
    ])
}

/// Fused operations before and after a user's own.
fn value(vars: &NamedVars, op: Option<Faulty>) -> adahessian::Result<Tensor> {
    let x = Handle::enter(vars.get("x")?)?;
    let norm = vars.get("norm")?;
    let a = ops::linear(&x, vars.get("w1")?, None, 1, Activation::Gelu)?;
    let a = dropped_norm(&a, Some(&x), &Dropout::none(), norm, norm, 1e-6)?;
    let between = match op {
        Some(op) => a.exit()?.apply_op1(op)?,
        None => a.exit()?,
    };
    let b = Handle::enter(&between)?;
    let c = ops::linear(&b, vars.get("w2")?, None, 1, Activation::Tanh)?;
    let d = ops::attention([&c, &a, &c], 2, None, false, &Dropout::none())?;
    loss(&d.exit()?)
}

fn product(vars: &NamedVars, loss: &Tensor) -> adahessian::Result<Vec<Vec<f64>>> {
    let z = VarVec::from_fn(vars, |name, shape, dtype, device| {
        Stream::new(3, name, 1, 0).normal_tensor(shape, dtype, device)
    })?;
    let product = Hessian::of(loss, vars)?.apply(&z)?;
    let numbers = product.iter().map(|(_, p)| Ok(p.flatten_all()?.to_vec1()?));
    numbers.collect()
}

#[test]
fn a_pass_that_fails_half_way_leaves_the_engine_usable() -> Result<()> {
    static FAILURES: AtomicU32 = AtomicU32::new(0);
    let vars = model()?;
    // With nothing between, what goes out and comes in again is one value, whose gradients add up in another order.
    let direct = product(&vars, &value(&vars, None)?)?;
    for panics in [false, true] {
        let faulty = || Faulty {
            failures: &FAILURES,
            panics,
        };
        let expected = product(&vars, &value(&vars, Some(faulty()))?)?;
        FAILURES.store(1, Ordering::SeqCst);
        let failed = value(&vars, Some(faulty()))?;
        assert_says(product(&vars, &failed), &["a user's op"]);
        // The graph on which it failed is refused or right, never wrong.
        match product(&vars, &failed) {
            Ok(again) => assert_eq!(again, expected),
            Err(error) => assert_says(Err::<(), _>(error), &["compute the loss again"]),
        }
        // A new one is as if nothing had been.
        assert_eq!(product(&vars, &value(&vars, Some(faulty()))?)?, expected);
        assert_eq!(product(&vars, &value(&vars, None)?)?, direct);
    }
    Ok(())
}

/// The first pass is right, the second fails in the user's op.
#[test]
fn a_second_pass_that_fails_leaves_the_engine_usable() -> Result<()> {
    static FAILURES: AtomicU32 = AtomicU32::new(0);
    let vars = model()?;
    let expected = product(&vars, &value(&vars, None)?)?;
    let op = Faulty {
        failures: &FAILURES,
        panics: false,
    };
    let hessian = Hessian::of(&value(&vars, Some(op))?, &vars)?;
    let z = VarVec::zeros(&vars)?;
    FAILURES.store(1, Ordering::SeqCst);
    assert_says(hessian.apply(&z), &["a user's op failed"]);
    assert_eq!(product(&vars, &value(&vars, None)?)?, expected);
    Ok(())
}

#[test]
fn a_guard_that_fires_leaves_the_engine_usable() -> Result<()> {
    let vars = model()?;
    let mut optimizer = AdaHessian::builder().lr(1e-2).build(&vars)?;
    let before = vars.snapshot()?;
    let infinite = (value(&vars, None)? * f64::NAN)?;
    let info = optimizer.backward_step(&infinite)?;
    assert!(info.skipped.is_some());
    for ((_, var), (_, before)) in vars.iter().zip(before.iter()) {
        let (a, b) = (var.flatten_all()?, before.flatten_all()?);
        assert_eq!(a.to_vec1::<f64>()?, b.to_vec1::<f64>()?);
    }
    let info = optimizer.backward_step(&value(&vars, None)?)?;
    assert!(info.skipped.is_none() && info.update_norm > 0.0);
    Ok(())
}

fn train(seed: u64) -> Result<Vec<f64>> {
    let vars = model()?;
    for (name, var) in vars.iter() {
        let stream = Stream::new(seed, name, 0, 0);
        var.set(&stream.normal_tensor(var.dims(), DType::F64, &Device::Cpu)?)?;
    }
    let mut optimizer = AdaHessian::builder().lr(1e-2).seed(seed).build(&vars)?;
    let mut losses = Vec::new();
    for _ in 0..15 {
        let info = optimizer.backward_step(&value(&vars, None)?)?;
        losses.push(info.loss.unwrap_or(f64::NAN));
    }
    Ok(losses)
}

#[test]
fn two_models_trained_at_once_do_not_disturb_each_other() -> Result<()> {
    let alone = [train(1)?, train(2)?];
    let together = std::thread::scope(|scope| {
        let one = scope.spawn(|| train(1));
        let two = scope.spawn(|| train(2));
        [one.join(), two.join()].map(|run| run.expect("no panic"))
    });
    for (alone, together) in alone.iter().zip(together) {
        assert_eq!(alone, &together?);
    }
    Ok(())
}

/// The state that an optimizer gave away is not changed by its later steps.
#[test]
fn a_state_is_a_copy() -> Result<()> {
    let x = Var::new(&[1f64, -2.0, 3.0], &Device::Cpu)?;
    let vars = NamedVars::new([("x".into(), x.clone())])?;
    let mut optimizer = AdaHessian::builder().build(&vars)?;
    let step = |optimizer: &mut Optimizer<AdaHessian>| -> Result<(), Error> {
        optimizer.backward_step(&x.powf(4.0)?.sum_all()?).map(drop)
    };
    step(&mut optimizer)?;
    let (state, values) = (optimizer.state()?, vars.snapshot()?);
    step(&mut optimizer)?;
    let expected = x.to_vec1::<f64>()?;
    step(&mut optimizer)?;
    // Back, twice: loading must copy too.
    for _ in 0..2 {
        vars.assign(&values)?;
        optimizer.load_state(&state)?;
        step(&mut optimizer)?;
        assert_eq!(x.to_vec1::<f64>()?, expected);
    }
    Ok(())
}

/// An operation without a kernel: composed everywhere, between fused ones too.
struct Sine;

impl Op for Sine {
    fn name(&self) -> &'static str {
        "sine"
    }
    fn shape(&self, inputs: &[&[usize]]) -> adahessian::Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }
    fn composed(&self, x: &[Tensor]) -> adahessian::Result<Tensor> {
        Ok(x[0].sin()?)
    }
}

#[test]
fn an_operation_without_a_kernel_stands_between_fused_ones() -> Result<()> {
    let vars = vars(&[("x", &[3, 4]), ("w", &[4, 4])])?;
    let value = |vars: &NamedVars, enter: Enter| -> adahessian::Result<Handle> {
        let x = enter(vars.get("x")?)?;
        let h = ops::linear(&x, vars.get("w")?, None, 1, Activation::Gelu)?;
        ops::linear(
            &call(Sine, &[&h])?,
            vars.get("w")?,
            None,
            1,
            Activation::Tanh,
        )
    };
    twins("sine", &vars, true, &|vars, enter| {
        value(vars, enter)?.exit()
    })?;
    assert!(format!("{:?}", value(&vars, FUSED)?).contains("fused, f64"));
    let alone = call(Sine, &[vars.get("x")?.as_tensor()])?;
    assert!(format!("{alone:?}").contains("composed"));
    assert_says(call(Sine, &[]), &["sine", "without an operand"]);
    Ok(())
}

/// Variables that an operation takes together enter together. A pass that comes to one of them alone says nothing of
/// the others, and a handle that two threads take for the first time at once has one place.
#[test]
fn variables_that_enter_together_are_told_apart() -> Result<()> {
    let vars = vars(&[("x", &[3, 4]), ("w", &[5, 4]), ("b", &[5])])?;
    let (x, w, b) = (vars.get("x")?, vars.get("w")?, vars.get("b")?);
    let tanh = |x: &Handle| ops::activation(x, Activation::Tanh);
    let value = |aside: bool| -> adahessian::Result<Tensor> {
        let handle = Handle::enter(x)?;
        if aside {
            ops::linear(&handle, w, Some(b), 1, Activation::Gelu)?;
        }
        loss(&tanh(&tanh(&handle)?)?.exit()?)
    };
    let alone = Hessian::of(&value(false)?, &NamedVars::new([("x".into(), x.clone())])?)?;
    let z = VarVec::from_fn(alone.vars(), |name, shape, dtype, device| {
        Stream::new(3, name, 1, 0).normal_tensor(shape, dtype, device)
    })?;
    for pass in [adahessian::backward, adahessian::backward_detached, plain] {
        let grads = pass(&value(true)?)?;
        assert!(grads.get(w).is_none() && grads.get(b).is_none());
        let got = grads.get(x).expect("reached").flatten_all()?;
        let expected = alone.gradient()?.get("x").expect("reached").flatten_all()?;
        assert_eq!(got.to_vec1::<f64>()?, expected.to_vec1::<f64>()?);
    }
    let beside = Hessian::of(&value(true)?, alone.vars())?;
    let both = [alone.apply(&z)?, beside.apply(&z)?];
    let both = both.map(|product| product.get("x").unwrap().flatten_all());
    let [one, other] = both.map(|product| product.unwrap().to_vec1::<f64>().unwrap());
    assert_eq!(one, other);

    // Passes of candle's own over one graph, one after the other on one thread.
    let handle = Handle::enter(x)?;
    let aside = ops::linear(&handle, w, Some(b), 1, Activation::Gelu)?;
    let (first, second) = (loss(&aside.exit()?)?, loss(&tanh(&handle)?.exit()?)?);
    assert!(plain(&first)?.get(w).is_some());
    let grads = plain(&second)?;
    assert!(grads.get(w).is_none() && grads.get(b).is_none() && grads.get(x).is_some());

    let handle = Handle::enter(x)?;
    let parts: Vec<Tensor> = std::thread::scope(|scope| {
        let take = || tanh(&handle).unwrap().exit().unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
        threads.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let sum = Tensor::stack(&parts, 0)?.sum_all()?;
    let slopes = adahessian::backward(&sum)?;
    let got = slopes
        .get(x)
        .expect("reached")
        .flatten_all()?
        .to_vec1::<f64>()?;
    for (got, x) in got.iter().zip(x.flatten_all()?.to_vec1::<f64>()?) {
        assert!((got - 8.0 * (1.0 - x.tanh().powi(2))).abs() < 1e-12);
    }
    Ok(())
}

/// A loss that came straight out of the engine has a graph of its own for passes of this library. Whatever is done to it
/// in between, and whoever differentiates it, the derivatives are the same numbers.
#[test]
fn a_loss_and_one_in_candles_operations_are_the_same() -> Result<()> {
    let vars = vars(&[
        ("x", &[3, 4]),
        ("w", &[5, 4]),
        ("b", &[5]),
        ("other", &[3, 5]),
    ])?;
    let (x, w, b) = (vars.get("x")?, vars.get("w")?, vars.get("b")?);
    let targets = Tensor::new(&[0u32, 4, 2], &Device::Cpu)?;
    let value = || -> adahessian::Result<Tensor> {
        let linear = ops::linear(x.as_tensor(), w, Some(b), 1, Activation::Gelu)?;
        // Out, in again, and once more with an operation of candle's between.
        let bent = ops::activation(&linear, Activation::Tanh)?;
        let bent = ops::activation(&(bent + vars.get("other")?.as_tensor())?, Activation::Silu)?;
        let sum = ops::residual(&bent, &linear, &Dropout::none())?;
        ops::cross_entropy(&sum, &targets, 0.1, None)
    };
    let direct = value()?;
    let expected = product(&vars, &direct)?;
    let slopes = adahessian::backward_detached(&direct)?;
    let moved = value()?.reshape(1)?;
    assert_eq!(product(&vars, &moved)?, expected);
    for grads in [
        plain(&value()?)?,
        plain(&moved)?,
        adahessian::backward_detached(&moved)?,
    ] {
        for (name, var) in vars.iter() {
            let [got, expected] = [&grads, &slopes].map(|grads| grads.get(var).unwrap());
            let [got, expected] = [got, expected].map(|g| g.flatten_all()?.to_vec1::<f64>());
            assert_eq!(got?, expected?, "{name}");
        }
    }
    // One graph, one loss after the other, each of half of the variables.
    let handle = Handle::enter(x)?;
    let first = loss(&ops::activation(&handle, Activation::Tanh)?.exit()?)?;
    let second = ops::activation(&handle, Activation::Silu)?;
    let second = ops::linear(&second, w, Some(b), 1, Activation::Gelu)?;
    let second = loss(&second.exit()?)?;
    for pass in [adahessian::backward, adahessian::backward_detached, plain] {
        let (first, second) = (pass(&first)?, pass(&second)?);
        assert!(first.get(w).is_none() && first.get(b).is_none() && first.get(x).is_some());
        assert!(second.get(w).is_some() && second.get(b).is_some() && second.get(x).is_some());
    }
    Ok(())
}

/// What a tensor enters with is asked for a gradient only by losses that depend on it: its own variables have none else.
#[test]
fn tensors_that_enter_aside_get_no_gradient() -> Result<()> {
    let vars = vars(&[("x", &[3, 4]), ("y", &[3, 4])])?;
    let (x, y) = (vars.get("x")?, vars.get("y")?);
    for order in [[true, false], [false, true]] {
        let handle = Handle::enter(x)?;
        let handle = ops::activation(&handle, Activation::Tanh)?;
        let aside = || ops::residual(&handle, &Handle::enter(&y.sqr()?)?, &Dropout::none());
        let kept: Vec<Handle> = match order {
            [true, _] => vec![aside()?],
            _ => vec![],
        };
        let value = ops::activation(&handle, Activation::Silu)?.exit()?;
        let kept: Vec<Handle> = match order {
            [_, true] => vec![aside()?],
            _ => kept,
        };
        for pass in [adahessian::backward, adahessian::backward_detached, plain] {
            let grads = pass(&value.sqr()?.sum_all()?)?;
            assert!(grads.get(x).is_some() && grads.get(y).is_none());
            let grads = pass(&kept[0].exit()?.sqr()?.sum_all()?)?;
            assert!(grads.get(x).is_some() && grads.get(y).is_some());
        }
    }
    Ok(())
}

fn plain(loss: &Tensor) -> adahessian::Result<candle_core::backprop::GradStore> {
    Ok(loss.backward()?)
}

/// In at one place and out again, with nothing between: a second pass that comes to the way in alone, because what
/// follows is linear, has zeros for it.
#[test]
fn in_and_out_again() -> Result<()> {
    let vars = vars(&[("x", &[2, 3]), ("w", &[2, 3])])?;
    let through = |x: &Tensor| Handle::enter(x)?.exit();
    let op = |vars: &NamedVars, _: Enter| -> adahessian::Result<Tensor> {
        let (x, w) = (vars.get("x")?, vars.get("w")?);
        // Of a variable, and of what is none.
        Ok((through(x)? * through(&(through(w)? * 2.0)?)?)?)
    };
    let sum = |vars: &NamedVars| -> adahessian::Result<Tensor> { Ok(op(vars, FUSED)?.sum_all()?) };
    adahessian::check::gradient(&vars, 1e-6, || sum(&vars))?;
    adahessian::check::hessian(&vars, 1e-6, || sum(&vars))?;
    twins("in and out", &vars, true, &op)
}
