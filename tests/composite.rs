//! What several optimizers as one take, refuse and forget.

use adahessian::sparse::{Precision, SparseOptimizer, SparseRule, SparseTable};
use adahessian::{
    AdaHessian, Adagrad, Adam, Composite, NamedVars, Optim, RmsProp, Rule, ThreadGroup, VarVec,
    backward,
};
use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use testing::{assert_close, assert_number, assert_says, variables};

fn vars() -> Result<NamedVars> {
    variables(&[("a", &[1.0], &[1]), ("b", &[2.0], &[1])])
}

/// 3a² + 5b².
fn loss(vars: &NamedVars) -> Result<Tensor> {
    let (a, b) = (vars.get("a")?.sqr()?, vars.get("b")?.sqr()?);
    Ok(((a * 3.0)? + (b * 5.0)?)?.sum_all()?)
}

fn adagrad(vars: &NamedVars) -> Result<adahessian::Optimizer<Adagrad>> {
    Ok(Adagrad::default().lr(0.1).build(vars)?)
}

/// The first step fails with this, and changes nothing.
fn refuses(mut opt: Composite, vars: &NamedVars, says: &[&str]) -> Result<()> {
    let before = vars.snapshot()?;
    assert_says(opt.backward_step(&loss(vars)?).map(drop), says);
    for ((name, var), before) in vars.iter().zip(before.tensors()) {
        assert_close(name, var.as_tensor(), before, 0.0)?;
    }
    Ok(())
}

#[test]
fn parts_that_cannot_be_parts() -> Result<()> {
    let all = vars()?;
    let (a, b) = all.partition(|name| name == "a");
    let names = Composite::new()
        .with("part", adagrad(&a)?)
        .with("part", adagrad(&b)?);
    refuses(names, &all, &["a name of its own", "part `part`"])?;
    let slash = Composite::new()
        .with("x", adagrad(&a)?)
        .with("x/y", adagrad(&b)?);
    refuses(slash, &all, &["without a slash", "part `x/y`"])?;
    let mut reduces = adagrad(&b)?;
    let reducer = ThreadGroup::new(1).into_iter().next().unwrap();
    reduces.set_reducer(Box::new(reducer));
    let reduces = Composite::new().with("a", adagrad(&a)?).with("b", reduces);
    assert_says(
        reduces.covering(&all).map(drop),
        &["no reducer but that of the whole", "part `b`"],
    );
    // Another variable of one name: a probe, which goes by names, would be of one of them.
    let namesake = variables(&[("a", &[4.0], &[1])])?;
    let names = Composite::new()
        .with("one", adagrad(&a)?)
        .with("two", adagrad(&namesake)?);
    assert_says(names.check_ready(), &["in two [\"a\"]"]);
    Ok(())
}

#[test]
fn a_table_has_one_owner() -> Result<()> {
    let all = vars()?;
    let of = |name| SparseTable::from_fn(name, [3, 2], Precision::F32, |_, x| x.fill(1.0));
    let (table, namesake) = (of("words")?, of("words")?);
    for second in [&table, &namesake] {
        let sgd = |table| SparseOptimizer::new([table], SparseRule::Sgd, 0.1);
        let both = Composite::new()
            .with("dense", adagrad(&all)?)
            .with("one", sgd(&table)?)
            .with("two", sgd(second)?);
        refuses(both, &all, &["in two [\"words\"]"])?;
    }
    Ok(())
}

#[test]
fn a_state_of_further_parts_is_refused() -> Result<()> {
    let all = vars()?;
    let (a, b) = all.partition(|name| name == "a");
    let one = || -> Result<Composite> { Ok(Composite::new().with("a", adagrad(&a)?)) };
    let mut both = one()?.with("b", adagrad(&b)?);
    both.backward_step(&loss(&all)?)?;
    let state = both.state()?;
    assert_says(
        one()?.load_state(&state),
        &["b/", "entries of the parts [\"a\"] alone"],
    );
    one()?.with("b", adagrad(&b)?).load_state(&state)?;
    Ok(())
}

/// Adds a good micro-batch, then one that fails halfway; a step then takes the next one alone.
fn forgets(
    opt: &mut dyn Optim,
    vars: &NamedVars,
    fail: impl Fn(&mut dyn Optim, &GradStore) -> adahessian::Result<()>,
) -> Result<()> {
    opt.accumulate(&backward(&(loss(vars)? * 100.0)?)?, 1.0)?;
    // candle's own backward pass leaves no graph.
    let plain = loss(vars)?.backward()?;
    assert!(fail(opt, &plain).is_err());
    let info = opt.backward_step(&loss(vars)?)?;
    assert_number("loss", info.loss.unwrap_or(f64::NAN), 23.0, 1e-12)?;
    assert_number("norm", info.gradient_norm, 6f64.hypot(20.0), 1e-12)
}

#[test]
fn what_fails_halfway_is_forgotten() -> Result<()> {
    let all = vars()?;
    forgets(
        &mut AdaHessian::builder().build(&all)?,
        &all,
        |opt, grads| opt.accumulate_curvature(grads, 1.0),
    )?;
    let all = vars()?;
    let (a, b) = all.partition(|name| name == "a");
    let mut both = Composite::new()
        .with("a", adagrad(&a)?)
        .with("b", AdaHessian::builder().build(&b)?);
    forgets(&mut both, &all, |opt, grads| {
        opt.accumulate_curvature(grads, 1.0)
    })?;
    let all = vars()?;
    forgets(
        &mut AdaHessian::builder().build(&all)?,
        &all,
        |opt, grads| opt.accumulate_probed(grads, &[], 1.0),
    )
}

/// D of b alone: 10, whatever the probe's sign.
#[test]
fn probes_are_of_the_parts_of_second_order() -> Result<()> {
    let all = vars()?;
    let (a, b) = all.partition(|name| name == "a");
    let mut both = Composite::new()
        .with("a", adagrad(&a)?)
        .with("b", AdaHessian::builder().build(&b)?);
    let of = |vars: &NamedVars, value: f64| -> Result<VarVec> {
        let one = |_| Ok(Tensor::new(&[value], &Device::Cpu)?);
        let tensors = vars.names().map(one).collect::<Result<_>>()?;
        Ok(VarVec::new(vars, tensors)?)
    };
    for probe in [of(&b, -1.0)?, of(&all, 1.0)?] {
        let grads = backward(&loss(&all)?)?;
        both.accumulate_gradient(&grads, 1.0)?;
        both.accumulate_probed(&grads, &[probe], 1.0)?;
        let curvature = both.apply()?.curvature.expect("a curvature");
        assert_number("D", curvature.max_abs, 10.0, 1e-12)?;
    }
    // The part of second order wants its own.
    let grads = backward(&loss(&all)?)?;
    let lacking = both.accumulate_probed(&grads, &[of(&a, 1.0)?], 1.0);
    assert_says(lacking, &["`b`", "a vector of the same variables"]);
    Ok(())
}

/// 0 / 0 where there is neither a gradient nor a curvature.
#[test]
fn a_denominator_without_eps_is_no_number_nowhere() -> Result<()> {
    let still = |build: &dyn Fn(Vec<Var>) -> Result<Box<dyn Optim>>| -> Result<()> {
        for dtype in [candle_core::DType::F32, candle_core::DType::F64] {
            let var = Var::from_tensor(&Tensor::new(&[0f64, 1.0], &Device::Cpu)?.to_dtype(dtype)?)?;
            let mut opt = build(vec![var.clone()])?;
            // No gradient and no curvature in the first entry: x⁴ at 0.
            opt.backward_step(&var.sqr()?.sqr()?.sum_all()?)?;
            let got = var.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
            assert_eq!(got[0], 0.0);
            assert!(got[1] < 1.0 && got[1].is_finite(), "{got:?}");
        }
        Ok(())
    };
    still(&|vars| {
        let builder = AdaHessian::builder().eps(0.0).lr(0.1);
        Ok(Box::new(builder.build(vars)?))
    })?;
    still(&|vars| {
        let rule = Adagrad { eps: 0.0 };
        Ok(Box::new(rule.lr(0.1).build(vars)?))
    })?;
    still(&|vars| {
        let rule = RmsProp {
            eps: 0.0,
            momentum: 0.9,
            ..RmsProp::default()
        };
        Ok(Box::new(rule.lr(0.1).build(vars)?))
    })?;
    let table = SparseTable::from_fn("t", [2, 2], Precision::F32, |_, x| x.fill(1.0))?;
    let rule = SparseRule::Adagrad {
        accumulator: Default::default(),
        eps: 0.0,
    };
    let mut opt = SparseOptimizer::new([&table], rule, 0.5)?;
    let weights = Tensor::new(&[[0f32, 4.0]], &Device::Cpu)?;
    opt.backward_step(&(table.lookup(&[1])?.rows * weights)?.sum_all()?)?;
    let row = table.to_tensor()?.get(1)?.to_vec1::<f32>()?;
    assert_eq!(row, [1.0, 0.5]);
    // Those that need one still say so.
    let rule = Adam {
        eps: 0.0,
        ..Adam::default()
    };
    assert_says(rule.build(&vars()?).map(drop), &["eps"]);
    Ok(())
}
