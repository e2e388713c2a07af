//! Backward passes that fail, nest, repeat, or meet values that have changed: right or refused.

use adahessian::engine::Handle;
use adahessian::ops::{self, Activation, Dropout};
use adahessian::{
    AdaHessian, AdamW, Composite, Error, Hessian, LinearOperator, NamedVars, Optim, Optimizer,
    Rule, Sgd, VarVec, backward, backward_detached, without_graph,
};
use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor, Var};
use std::sync::atomic::{AtomicU32, Ordering};
use testing::dropped_norm;
use testing::twins::{loss, random, vars};
use testing::{assert_close, assert_number, assert_says, variables};

const CPU: Device = Device::Cpu;

fn ones(vars: &NamedVars) -> adahessian::Result<VarVec> {
    VarVec::from_fn(vars, |_, shape, dtype, device| {
        Ok(Tensor::ones(shape, dtype, device)?)
    })
}

fn numbers(vector: &VarVec) -> Result<Vec<Vec<f64>>> {
    let all = vector.tensors().iter();
    all.map(|t| Ok(t.flatten_all()?.to_vec1::<f64>()?))
        .collect()
}

/// candle's `extend` adds on an ordinary thread, which cuts the sum's graph.
#[test]
fn stores_that_were_joined_are_refused_or_right() -> Result<()> {
    let vars = variables(&[("x", &[0.3, -1.2], &[2]), ("y", &[0.7], &[1])])?;
    let (x, y) = (vars.get("x")?, vars.get("y")?);
    let first = || x.powf(4.0)?.sum_all();
    let second = || (x.exp()?.sum_all()? * y.sqr()?.sum_all()?)?.sum_all();
    let joined = || -> Result<GradStore> {
        let mut grads = backward(&first()?)?;
        grads.extend(backward(&second()?)?)?;
        Ok(grads)
    };
    let mut optimizer = AdaHessian::builder().build(&vars)?;
    let error = Optim::step(&mut optimizer, &joined()?).unwrap_err();
    assert!(
        matches!(&error, Error::CutGradient { name } if name == "x"),
        "{error}"
    );
    assert_says(
        Err::<(), _>(error),
        &["`x`", "accumulate", "sum of the losses"],
    );
    assert!(Hessian::from_gradients(&joined()?, &vars).is_err());
    // Scaled on this thread, as by a program's own clipping.
    let mut grads = backward(&first()?)?;
    let scaled = (grads.get(x).expect("a gradient").detach() * 0.5)?;
    grads.insert(x, scaled);
    assert_says(Optim::step(&mut optimizer, &grads), &["`x`", "clip_norm"]);
    // What needs no graph takes them.
    let mut adam = AdamW::default().lr(0.1).build(&vars)?;
    let expected = (first()? + second()?)?.backward()?;
    let grads = joined()?;
    for var in [x, y] {
        let (a, b) = (
            grads.get(var).expect("one"),
            expected.get(var).expect("one"),
        );
        assert_close("joined gradients", a, b, 1e-14)?;
    }
    adam.step(&grads)?;
    Ok(())
}

/// The identity, whose backward fails as often as it is told to.
struct Faulty(&'static AtomicU32);

fn same(x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
    let CpuStorage::F64(data) = x else {
        candle_core::bail!("f64 only")
    };
    let data = data[layout.start_offset()..][..layout.shape().elem_count()].to_vec();
    Ok((CpuStorage::F64(data), layout.shape().clone()))
}

impl CustomOp1 for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }
    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        same(x, layout)
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        match self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            }) {
            Ok(_) => candle_core::bail!("a user's op failed"),
            Err(_) => Ok(Some(g.clone())),
        }
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

/// Fused operations on both sides of a user's.
fn value(vars: &NamedVars, between: Option<Faulty>) -> adahessian::Result<Tensor> {
    let x = Handle::enter(vars.get("x")?)?;
    let norm = vars.get("norm")?;
    let a = ops::linear(&x, vars.get("w1")?, None, 1, Activation::Gelu)?;
    let a = dropped_norm(&a, Some(&x), &Dropout::none(), norm, norm, 1e-6)?.exit()?;
    let a = match between {
        Some(op) => a.apply_op1(op)?,
        None => a,
    };
    let b = Handle::enter(&a)?;
    let c = ops::linear(&b, vars.get("w2")?, None, 1, Activation::Tanh)?;
    loss(&c.exit()?)
}

/// A second pass that failed half way, tried again on the same Hessian: never another number.
#[test]
fn a_failed_second_pass_is_right_or_refused_when_it_is_tried_again() -> Result<()> {
    static FAILURES: AtomicU32 = AtomicU32::new(0);
    let vars = model()?;
    let z = ones(&vars)?;
    let expected = numbers(&Hessian::of(&value(&vars, None)?, &vars)?.apply(&z)?)?;
    for failures in 1..4 {
        let hessian = Hessian::of(&value(&vars, Some(Faulty(&FAILURES)))?, &vars)?;
        FAILURES.store(failures, Ordering::SeqCst);
        assert_says(hessian.apply(&z), &["a user's op failed"]);
        FAILURES.store(0, Ordering::SeqCst);
        for _ in 0..3 {
            match hessian.apply(&z) {
                Ok(again) => assert_eq!(numbers(&again)?, expected),
                Err(error) => assert_says(Err::<(), _>(error), &["compute the loss again"]),
            }
        }
        let fresh = Hessian::of(&value(&vars, Some(Faulty(&FAILURES)))?, &vars)?;
        assert_eq!(numbers(&fresh.apply(&z)?)?, expected);
    }
    Ok(())
}

/// The same of a pass of candle's own, which has no stamp: another try over the same graph adds to no sum that the failed
/// one left.
#[test]
fn a_failed_pass_of_candles_is_right_or_refused_when_it_is_tried_again() -> Result<()> {
    static FAILURES: AtomicU32 = AtomicU32::new(0);
    let vars = model()?;
    let gradients = |loss: &Tensor| -> Result<Vec<Vec<f64>>> {
        let grads = loss.backward()?;
        let of = |(_, var): (&str, &Var)| -> Result<Vec<f64>> {
            let gradient = grads.get(var).context("no gradient")?;
            Ok(gradient.flatten_all()?.to_vec1()?)
        };
        vars.iter().map(of).collect()
    };
    let expected = gradients(&value(&vars, None)?)?;
    let loss = value(&vars, Some(Faulty(&FAILURES)))?;
    FAILURES.store(1, Ordering::SeqCst);
    assert_says(gradients(&loss), &["a user's op failed"]);
    for _ in 0..3 {
        match gradients(&loss) {
            Ok(again) => assert_eq!(again, expected),
            Err(error) => assert_says(Err::<(), _>(error), &["compute the loss again"]),
        }
    }
    assert_eq!(
        gradients(&value(&vars, Some(Faulty(&FAILURES)))?)?,
        expected
    );
    Ok(())
}

/// Two losses computed at once, and a step between their gradients.
#[test]
fn a_pass_after_a_variable_was_changed_is_refused() -> Result<()> {
    let vars = model()?;
    let other = variables(&[("other", &[0.5], &[1])])?;
    let first = value(&vars, None)?;
    let late: Vec<Tensor> = (0..3)
        .map(|_| value(&vars, None))
        .collect::<adahessian::Result<_>>()?;
    let mut optimizer = Sgd::default().lr(0.1).build(&vars)?;
    optimizer.step(&backward_detached(&first)?)?;
    let says = ["was changed after the loss was computed", "Composite"];
    assert_says(backward(&late[0]).map(drop), &says);
    assert_says(backward_detached(&late[1]).map(drop), &says);
    assert_says(late[2].backward().map(drop), &says);
    // Another model's step is none of its business.
    let third = value(&vars, None)?;
    let mut elsewhere = Sgd::default().lr(0.1).build(&other)?;
    let loss = other.get("other")?.sqr()?.sum_all()?;
    elsewhere.step(&backward_detached(&loss)?)?;
    optimizer.step(&backward_detached(&third)?)?;
    Ok(())
}

/// An error of candle's inside of a pass comes with the operation and the way out.
#[test]
fn errors_of_a_pass_name_the_operation_and_the_remedy() -> Result<()> {
    let x = Var::from_tensor(&random("x", &[1, 1, 5, 5])?)?;
    let cases: [(Tensor, &[&str]); 3] = [
        (
            x.max_pool2d_with_stride(3, 2)?,
            &["max_pool2d", "adahessian::ops::max_pool2d"],
        ),
        (
            x.upsample_bilinear2d(7, 7, false)?,
            &["upsample_bilinear2d", "interpolation"],
        ),
        (
            x.avg_pool2d_with_stride(2, 1)?,
            &["avg_pool2d", "adahessian::ops::avg_pool2d"],
        ),
    ];
    for (y, says) in cases {
        let error = backward(&y.sqr()?.sum_all()?).unwrap_err();
        assert!(matches!(error, Error::Backward { .. }), "{error}");
        let text = error.to_string();
        assert!(text.lines().count() == 1 && !text.contains("at "), "{text}");
        assert_says(Err::<(), _>(text), says);
    }
    Ok(())
}

#[test]
fn one_variable_under_two_names_is_refused() -> Result<()> {
    let x = Var::new(&[1f64, 2.0], &CPU)?;
    let twice = NamedVars::new([
        ("head".to_string(), x.clone()),
        ("embedding".into(), x.clone()),
    ]);
    assert_says(twice, &["`embedding`", "`head`", "one variable"]);
    // A list or a map that holds it twice has it once.
    assert_eq!(NamedVars::from(vec![x.clone(), x.clone()]).len(), 1);
    let map = candle_nn::VarMap::new();
    map.data().lock().unwrap().insert("head".into(), x.clone());
    map.data()
        .lock()
        .unwrap()
        .insert("embedding".into(), x.clone());
    let vars = NamedVars::from(&map);
    assert_eq!(vars.names().collect::<Vec<_>>(), ["embedding"]);
    // Two parts of a composite that own one variable under different names.
    let part = |name: &str| -> Result<Optimizer<Sgd>> {
        let vars = NamedVars::new([(name.to_string(), x.clone())])?;
        Ok(Sgd::default().lr(0.1).build(&vars)?)
    };
    let mut both = Composite::new().with("a", part("a")?).with("b", part("b")?);
    assert_says(both.backward_step(&x.sqr()?.sum_all()?), &["two"]);
    assert_eq!(x.to_vec1::<f64>()?, [1.0, 2.0]);
    Ok(())
}

/// L = (xy)²: after x has moved, the product would be 2·x_new².
#[test]
fn a_second_pass_after_a_change_is_refused() -> Result<()> {
    let vars = variables(&[("x", &[2.0], &[1]), ("y", &[3.0], &[1])])?;
    let (x, y) = (vars.get("x")?, vars.get("y")?);
    let (only_x, only_y) = vars.partition(|name| name == "x");
    let grads = backward(&(x.as_tensor() * y.as_tensor())?.sqr()?.sum_all()?)?;
    let mut one = Sgd::default().lr(0.01).build(&only_x)?;
    let mut other = AdaHessian::builder().build(&only_y)?;
    one.step(&grads)?;
    let error = Optim::step(&mut other, &grads).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    assert_says(Err::<(), _>(error), &["Composite"]);
    assert_eq!(y.to_vec1::<f64>()?, [3.0]);
    // The same for a Hessian that is kept, and for assignments.
    let loss = || (x.as_tensor() * y.as_tensor())?.sqr()?.sum_all();
    let hessian = Hessian::of(&loss()?, &vars)?;
    hessian.apply(&ones(&vars)?)?;
    vars.assign(&vars.snapshot()?)?;
    assert_says(hessian.apply(&ones(&vars)?), &["`x`", "changed"]);
    // As one optimizer both are right.
    let mut both = Composite::new()
        .with("x", Sgd::default().lr(0.01).build(&only_x)?)
        .with("y", AdaHessian::builder().build(&only_y)?);
    let expected = 2.0 * x.to_vec1::<f64>()?[0].powi(2);
    let info = both.step(&backward(&loss()?)?)?;
    assert_number("D", info.curvature.expect("one").max_abs, expected, 1e-12)?;
    Ok(())
}

/// The same where a store was joined with another's: the sum of their two times would lie in the future.
#[test]
fn a_joined_store_knows_when_it_was_made() -> Result<()> {
    let vars = variables(&[
        ("x", &[2.0], &[1]),
        ("y", &[3.0], &[1]),
        ("w", &[1.0], &[1]),
    ])?;
    let (x, y, w) = (vars.get("x")?, vars.get("y")?, vars.get("w")?);
    let (only_y, rest) = vars.partition(|name| name == "y");
    // However many changes were before.
    for _ in 0..100 {
        vars.assign(&vars.snapshot()?)?;
    }
    let mut grads = backward(&w.sqr()?.sum_all()?)?;
    grads.extend(backward(
        &(x.as_tensor() * y.as_tensor())?.sqr()?.sum_all()?,
    )?)?;
    let mut other = AdaHessian::builder().build(&only_y)?;
    Optim::step(&mut Sgd::default().lr(0.01).build(&rest)?, &grads)?;
    let error = Optim::step(&mut other, &grads).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    // Without a change in between it is right: D = 2 x².
    let mut grads = backward(&w.sqr()?.sum_all()?)?;
    grads.extend(backward(
        &(x.as_tensor() * y.as_tensor())?.sqr()?.sum_all()?,
    )?)?;
    let expected = 2.0 * x.to_vec1::<f64>()?[0].powi(2);
    let info = Optim::step(&mut other, &grads)?;
    assert_number("D", info.curvature.context("one")?.max_abs, expected, 1e-12)?;
    Ok(())
}

/// A variable that two sets know under two names is one variable.
#[test]
fn a_union_has_each_variable_once() -> Result<()> {
    let x = Var::new(&[1f64, 2.0], &CPU)?;
    let named = |name: &str| NamedVars::new([(name.to_string(), x.clone())]);
    let both = named("a")?.union(&named("b")?);
    assert_eq!(both.names().collect::<Vec<_>>(), ["a"]);
    Ok(())
}

/// A vector of another type changes nothing, and what panics leaves the variables where they were.
#[test]
fn variables_are_where_they_were_after_a_failure() -> Result<()> {
    let vars = variables(&[("x", &[0.3, -1.2], &[2]), ("y", &[0.7], &[1])])?;
    let before = numbers(&vars.snapshot()?)?;
    let tensors = vars.snapshot()?.tensors().to_vec();
    let mixed = vec![
        (tensors[0].clone() * 2.0)?,
        tensors[1].to_dtype(candle_core::DType::F32)?,
    ];
    assert_says(
        vars.assign(&VarVec::new(&vars, mixed)?),
        &["`y`", "F64", "F32"],
    );
    assert_eq!(numbers(&vars.snapshot()?)?, before);
    let calls = AtomicU32::new(0);
    let fails = || {
        assert!(calls.fetch_add(1, Ordering::Relaxed) < 3, "the third time");
        Ok(vars.get("x")?.powf(4.0)?.sum_all()?)
    };
    let audit = || drop(adahessian::check::audit(&vars, fails));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(audit)).is_err());
    assert_eq!(numbers(&vars.snapshot()?)?, before);
    calls.store(0, Ordering::Relaxed);
    let strict = || drop(adahessian::check::gradient(&vars, 1e-6, fails));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(strict)).is_err());
    assert_eq!(numbers(&vars.snapshot()?)?, before);
    Ok(())
}

/// Two steps with one store in an optimizer of first order need no second pass, and are its user's wish.
#[test]
fn first_order_may_use_a_store_again() -> Result<()> {
    let vars = variables(&[("x", &[2.0], &[1])])?;
    let grads = vars.get("x")?.sqr()?.sum_all()?.backward()?;
    let plain = Sgd {
        momentum: 0.0,
        nesterov: false,
    };
    let mut optimizer = plain.lr(0.1).build(&vars)?;
    optimizer.step(&grads)?;
    optimizer.step(&grads)?;
    assert_number("x", vars.get("x")?.to_vec1::<f64>()?[0], 1.2, 1e-15)
}

/// With the whole loss in one fused chain, nothing of candle's is left that could notice.
#[test]
fn a_third_derivative_is_refused_even_of_one_fused_chain() -> Result<()> {
    let vars = vars(&[("x", &[3, 4]), ("w", &[4, 4])])?;
    let chain = || -> adahessian::Result<Tensor> {
        let x = Handle::enter(vars.get("x")?)?;
        let y = ops::linear(&x, vars.get("w")?, None, 1, Activation::Tanh)?;
        ops::cross_entropy(&y, &Tensor::new(&[1u32, 3, 0], &CPU)?, 0.1, None)?.exit()
    };
    // ‖∇L‖² by a pass that keeps its graph: its gradient is 2 H ∇L, its Hessian needs third derivatives.
    let grads = backward(&chain()?)?;
    let mut norm = Tensor::new(0f64, &CPU)?;
    for (_, var) in vars.iter() {
        norm = (norm + grads.get(var).expect("one").sqr()?.sum_all()?)?;
    }
    assert_says(backward(&norm), &["third derivative", "backward_detached"]);
    let grads = backward(&chain()?)?;
    let mut norm = Tensor::new(0f64, &CPU)?;
    for (_, var) in vars.iter() {
        norm = (norm + grads.get(var).expect("one").sqr()?.sum_all()?)?;
    }
    let penalty = backward_detached(&norm)?;
    let hessian = Hessian::of(&chain()?, &vars)?;
    let expected = hessian.apply(&hessian.gradient()?)?.scale(2.0)?;
    for ((name, var), expected) in vars.iter().zip(expected.tensors()) {
        assert_close(name, penalty.get(var).expect("one"), expected, 1e-12)?;
    }
    Ok(())
}

/// Values that are variables' own memory: two that are exchanged, and one that stays beside one that changes.
#[test]
fn variables_take_each_others_values() -> Result<()> {
    let vars = variables(&[("a", &[1.0, 2.0], &[2]), ("b", &[3.0, 4.0], &[2])])?;
    let (a, b) = (vars.get("a")?, vars.get("b")?);
    let own = |var: &candle_core::Var| var.as_detached_tensor();
    vars.assign(&VarVec::new(&vars, vec![own(b), own(a)])?)?;
    assert_eq!(numbers(&vars.snapshot()?)?, [[3.0, 4.0], [1.0, 2.0]]);
    let new = Tensor::new(&[5.0, 6.0], &CPU)?;
    vars.assign(&VarVec::new(&vars, vec![new, own(b)])?)?;
    assert_eq!(numbers(&vars.snapshot()?)?, [[5.0, 6.0], [1.0, 2.0]]);
    Ok(())
}

#[test]
fn vectors_of_other_variables_are_refused() -> Result<()> {
    let vars = variables(&[("a", &[1.0, 2.0], &[2]), ("b", &[3.0], &[1])])?;
    let (first, _) = vars.partition(|name| name == "a");
    let renamed = NamedVars::new([
        ("a".to_string(), vars.get("a")?.clone()),
        ("c".to_string(), vars.get("b")?.clone()),
    ])?;
    let loss = || vars.get("a")?.sqr()?.sum_all()? + vars.get("b")?.exp()?.sum_all()?;
    let _ = loss; // its error type is candle's
    let loss = || -> Result<Tensor> {
        Ok((vars.get("a")?.sqr()?.sum_all()? + vars.get("b")?.exp()?.sum_all()?)?)
    };
    let hessian = Hessian::of(&loss()?, &vars)?;
    for other in [&first, &renamed] {
        let vector = ones(other)?;
        assert!(hessian.apply(&vector).is_err());
        assert!(vars.assign(&vector).is_err());
        assert!(ones(&vars)?.dot(&vector).is_err());
        assert!(ones(&vars)?.add_scaled(&vector, 1.0).is_err());
        let mut optimizer = AdaHessian::builder().build(&vars)?;
        let grads = backward(&loss()?)?;
        assert!(optimizer.accumulate_probed(&grads, &[vector], 1.0).is_err());
    }
    assert_eq!(
        vars.get("a")?.to_vec1::<f64>()?,
        [1.0, 2.0],
        "nothing was assigned"
    );
    // Equal variables made apart are the same space.
    let twin = variables(&[("a", &[5.0, 5.0], &[2]), ("b", &[5.0], &[1])])?;
    hessian.apply(&ones(&twin)?)?;
    Ok(())
}

/// Given probes on a step that computes no Hessian refresh D, and the step says so.
#[test]
fn given_probes_count_on_every_step() -> Result<()> {
    let vars = variables(&[("x", &[1.0, -2.0], &[2])])?;
    let x = vars.get("x")?;
    let mut optimizer: Box<dyn Optim> = Box::new(AdaHessian::builder().every(5).build(&vars)?);
    let probe = VarVec::new(&vars, vec![Tensor::new(&[1f64, -1.0], &CPU)?])?;
    for step in 0..3 {
        let grads = backward(&x.powf(4.0)?.sum_all()?)?;
        optimizer.accumulate_probed(&grads, std::slice::from_ref(&probe), 1.0)?;
        optimizer.accumulate_gradient(&grads, 1.0)?;
        let largest = x.sqr()?.max_all()?.to_scalar::<f64>()? * 12.0;
        let info = optimizer.apply()?;
        let curvature = info
            .curvature
            .unwrap_or_else(|| panic!("none on step {step}"));
        assert_number("D", curvature.max_abs, largest, 1e-12)?;
    }
    let none = optimizer.accumulate_probed(&backward(&x.sqr()?.sum_all()?)?, &[], 1.0);
    assert_says(none, &["probes", "none"]);
    Ok(())
}

/// sqrt(s / (1-β2ᵗ)) can be read.
#[test]
fn the_curvature_in_force_can_be_read() -> Result<()> {
    let vars = variables(&[("x", &[1.0, -2.0], &[2])])?;
    let x = vars.get("x")?;
    let mut optimizer = AdaHessian::builder().lr(1e-9).build(&vars)?;
    assert_eq!(
        numbers(&optimizer.diagonal()?.context("none")?)?,
        [[0.0, 0.0]]
    );
    for _ in 0..3 {
        optimizer.backward_step(&x.powf(3.0)?.sum_all()?)?;
    }
    let expected = Tensor::new(&[6f64, 12.0], &CPU)?; // |6x|, each entry a Hessian of its own
    assert_close(
        "D",
        &optimizer.diagonal()?.context("none")?.tensors()[0],
        &expected,
        1e-7,
    )
}

/// An operation that computes its forward pass again to differentiate it, with fused operations.
struct Checkpointed {
    weight: Var,
}

impl Checkpointed {
    fn chain(&self, x: &Tensor) -> adahessian::Result<Tensor> {
        ops::linear(&Handle::enter(x)?, &self.weight, None, 1, Activation::Tanh)?.exit()
    }
}

impl CustomOp1 for Checkpointed {
    fn name(&self) -> &'static str {
        "checkpointed"
    }
    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, shape) = same(x, layout)?;
        let CpuStorage::F64(x) = x else {
            candle_core::bail!("f64 only")
        };
        let x = Tensor::from_vec(x, shape.clone(), &CPU)?;
        let y = self.chain(&x)?.detach().flatten_all()?.to_vec1::<f64>()?;
        Ok((CpuStorage::F64(y), shape))
    }
    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let x = Var::from_tensor(&x.detach())?;
        let product = (self.chain(x.as_tensor())? * g.detach())?.sum_all()?;
        let grads = product.backward()?;
        let gradient = grads.get(&x).expect("the inner pass has its own gradients");
        assert!(
            grads.get(&self.weight).is_some(),
            "collected into the outer pass"
        );
        Ok(Some(gradient.detach()))
    }
}

#[test]
fn a_pass_inside_of_a_pass_keeps_its_own_gradients() -> Result<()> {
    let vars = vars(&[("x", &[3, 4]), ("w", &[4, 4])])?;
    let (x, w) = (vars.get("x")?, vars.get("w")?);
    let op = || Checkpointed {
        weight: Var::from_tensor(&w.as_detached_tensor()).expect("a copy"),
    };
    let outer = |x: &Tensor| -> adahessian::Result<Tensor> {
        let h = Handle::enter(x)?;
        ops::linear(&h, w, None, 1, Activation::Gelu)?.exit()
    };
    let plain = loss(&op().chain(&outer(x)?)?)?;
    let again = loss(&outer(x)?.apply_op1(op())?)?;
    for run in [backward_detached, backward] {
        let (expected, got) = (backward_detached(&plain)?, run(&again)?);
        for (name, var) in vars.iter() {
            assert_close(
                name,
                got.get(var).expect("one"),
                expected.get(var).expect("one"),
                1e-13,
            )?;
        }
    }
    Ok(())
}

/// Passes of candle's own over the same graph, while second passes run elsewhere: right or refused.
#[test]
fn a_plain_pass_elsewhere_steals_nothing() -> Result<()> {
    let vars = model()?;
    let z = ones(&vars)?;
    let expected = numbers(&Hessian::of(&value(&vars, None)?, &vars)?.apply(&z)?)?;
    for _ in 0..100 {
        let shared = value(&vars, None)?;
        let hessian = Hessian::of(&shared, &vars)?;
        std::thread::scope(|scope| {
            let plain = scope.spawn(|| {
                for _ in 0..5 {
                    // Refused where it meets the other; its own result is not looked at here.
                    drop(shared.backward());
                }
            });
            for _ in 0..5 {
                if let Ok(product) = hessian.apply(&z) {
                    assert_eq!(numbers(&product).expect("numbers"), expected);
                }
            }
            plain.join().expect("no panic");
        });
        let fresh = Hessian::of(&value(&vars, None)?, &vars)?;
        assert_eq!(numbers(&fresh.apply(&z)?)?, expected);
    }
    Ok(())
}

/// What a failed step had accumulated is not in the next one.
#[test]
fn a_failed_step_leaves_nothing_behind() -> Result<()> {
    let vars = variables(&[("x", &[1.0, -2.0], &[2]), ("e", &[0.5], &[1])])?;
    let (only_x, only_e) = vars.partition(|name| name == "x");
    let loss = |factor: f64| -> Result<Tensor> {
        let sum = (vars.get("x")?.powf(4.0)?.sum_all()? + vars.get("e")?.exp()?.sum_all()?)?;
        Ok((sum * factor)?)
    };
    let make = || -> Result<Composite> {
        Ok(Composite::new()
            .with("e", AdamW::default().lr(0.1).build(&only_e)?)
            .with("x", AdaHessian::builder().build(&only_x)?))
    };
    let start = vars.snapshot()?;
    let mut expected = make()?;
    expected.backward_step(&loss(1.0)?)?;
    let expected = numbers(&vars.snapshot()?)?;
    vars.assign(&start)?;
    // Gradients without a graph, accumulated before it is noticed.
    let mut optimizer = make()?;
    assert!(optimizer.step(&loss(100.0)?.backward()?).is_err());
    assert!(optimizer.apply().is_err(), "nothing is left to apply");
    // A gradient accumulated by hand, and a step that lacks its curvature.
    optimizer.accumulate_gradient(&loss(100.0)?.backward()?, 1.0)?;
    assert!(matches!(optimizer.apply(), Err(Error::NoCurvature)));
    optimizer.backward_step(&loss(1.0)?)?;
    assert_eq!(numbers(&vars.snapshot()?)?, expected);
    Ok(())
}

/// The same numbers, of which nothing is differentiated; afterwards, and after a panic, graphs are kept as before.
#[test]
fn without_a_graph_nothing_is_kept() -> Result<()> {
    let vars = model()?;
    let kept = value(&vars, None)?;
    let entered = Handle::enter(vars.iter().next().context("a variable")?.1)?;
    let constant = without_graph(|| {
        let inner = without_graph(|| value(&vars, None))?;
        // The inner one's end is not the outer one's.
        let outer = value(&vars, None)?;
        // What entered before is a constant, too.
        let later = ops::activation(&entered, Activation::Gelu)?.exit()?;
        // So is what left with a graph and comes back.
        let back = ops::activation(&kept, Activation::Gelu)?;
        anyhow::Ok([inner, outer, later, back])
    })?;
    assert!(kept.track_op());
    assert!(constant.iter().all(|value| !value.track_op()));
    for value in &constant[..2] {
        assert_eq!(value.to_scalar::<f64>()?, kept.to_scalar::<f64>()?);
    }
    let panicked = std::panic::catch_unwind(|| without_graph(|| panic!("in the middle")));
    assert!(panicked.is_err());
    assert!(value(&vars, None)?.track_op());
    // A step with such a loss is refused.
    let mut optimizer = AdaHessian::builder().build(&vars)?;
    let error =
        without_graph(|| value(&vars, None)).and_then(|loss| optimizer.backward_step(&loss));
    assert_says(error, &["reach"]);
    Ok(())
}
