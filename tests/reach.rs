//! What the first step says of variables that no gradient reaches.

use adahessian::sparse::{Precision, SparseOptimizer, SparseRule, SparseTable};
use adahessian::{
    AdaHessian, Adagrad, AdamW, Common, Composite, Error, NamedVars, Optim, Rule, Sgd, check,
};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{ModuleT, VarBuilder, VarMap, batch_norm};
use testing::{assert_says, variables};

const CPU: Device = Device::Cpu;

fn three() -> Result<NamedVars> {
    variables(&[
        ("a.weight", &[1.0, 2.0], &[2]),
        ("b.weight", &[3.0], &[1]),
        ("c.weight", &[-1.0], &[1]),
    ])
}

/// Reaches the first and the last.
fn loss(vars: &NamedVars) -> Result<Tensor> {
    let (a, c) = (vars.get("a.weight")?, vars.get("c.weight")?);
    Ok((a.sqr()?.sum_all()? + c.exp()?.sum_all()?)?)
}

type Make = fn(&NamedVars, &[&str]) -> adahessian::Result<Box<dyn Optim>>;

fn first_order(
    vars: &NamedVars,
    rule: impl Rule,
    allowed: &[&str],
) -> adahessian::Result<Box<dyn Optim>> {
    let common = Common {
        allow_unreached: allowed.iter().map(ToString::to_string).collect(),
        ..Common::new(0.01)
    };
    Ok(Box::new(rule.with(common).build(vars)?))
}

fn composite(vars: &NamedVars, allowed: &[&str]) -> adahessian::Result<Box<dyn Optim>> {
    let (a, rest) = vars.partition(|name| name.starts_with('a'));
    Ok(Box::new(
        Composite::new()
            .with(
                "a",
                AdaHessian::builder()
                    .allow_unreached(allowed.iter().copied())
                    .build(&a)?,
            )
            .with_boxed("rest", first_order(&rest, Adagrad::default(), allowed)?)
            .covering(vars)?,
    ))
}

const ALL: [(&str, Make); 5] = [
    ("adahessian", |vars, allowed| {
        let builder = AdaHessian::builder().allow_unreached(allowed.iter().copied());
        Ok(Box::new(builder.build(vars)?))
    }),
    ("adamw", |vars, allowed| {
        first_order(vars, AdamW::default(), allowed)
    }),
    ("sgd", |vars, allowed| {
        first_order(vars, Sgd::default(), allowed)
    }),
    ("adagrad", |vars, allowed| {
        first_order(vars, Adagrad::default(), allowed)
    }),
    ("composite", composite),
];

#[test]
fn the_first_step_names_what_it_does_not_reach() -> Result<()> {
    for (name, make) in ALL {
        let vars = three()?;
        let before = vars.snapshot()?;
        let mut optimizer = make(&vars, &[])?;
        let error = optimizer.backward_step(&loss(&vars)?).unwrap_err();
        assert!(
            matches!(&error, Error::NotReached { names, of: 3, .. } if names == &["b.weight"]),
            "{name}: {error}"
        );
        assert_says(
            Err::<(), _>(error),
            &["1 of 3", "b.weight", "allow_unreached", "frozen"],
        );
        // Nothing was changed, and nothing of the failed step is left for the next.
        for ((_, var), (_, before)) in vars.iter().zip(before.iter()) {
            assert_eq!(var.to_vec1::<f64>()?, before.to_vec1::<f64>()?, "{name}");
        }
        let again = optimizer.backward_step(&loss(&vars)?);
        assert!(
            matches!(again, Err(Error::NotReached { .. })),
            "{name}: the step was not taken"
        );
    }
    Ok(())
}

#[test]
fn what_is_allowed_is_counted() -> Result<()> {
    for (name, make) in ALL {
        let vars = three()?;
        let mut optimizer = make(&vars, &["b.weight"])?;
        for _ in 0..2 {
            let info = optimizer.backward_step(&loss(&vars)?)?;
            assert_eq!((info.unreached, info.skipped), (1, None), "{name}");
        }
        assert_eq!(vars.get("b.weight")?.to_vec1::<f64>()?, [3.0], "{name}");
        // A pattern that means another variable allows nothing.
        let mut optimizer = make(&three()?, &["bias", "a.*"])?;
        assert!(
            optimizer.backward_step(&loss(optimizer.vars())?).is_err(),
            "{name}"
        );
    }
    Ok(())
}

/// Later steps may leave variables out: an auxiliary head, a stochastic depth.
#[test]
fn only_the_first_step_must_reach_all() -> Result<()> {
    for (name, make) in ALL {
        let vars = three()?;
        let mut optimizer = make(&vars, &[])?;
        let all = (loss(&vars)? + vars.get("b.weight")?.sqr()?.sum_all()?)?;
        assert_eq!(optimizer.backward_step(&all)?.unreached, 0, "{name}");
        assert_eq!(
            optimizer.backward_step(&loss(&vars)?)?.unreached,
            1,
            "{name}"
        );
    }
    Ok(())
}

#[test]
fn a_loss_that_reaches_nothing_is_always_an_error() -> Result<()> {
    for (name, make) in ALL {
        let vars = three()?;
        let mut optimizer = make(&vars, &["*"])?;
        let elsewhere = Var::new(2f64, &CPU)?.sqr()?;
        let error = optimizer.backward_step(&elsewhere).unwrap_err();
        assert!(matches!(error, Error::NotReached { .. }), "{name}: {error}");
        optimizer.backward_step(&loss(&vars)?)?;
        let error = optimizer.backward_step(&elsewhere).unwrap_err();
        assert!(matches!(error, Error::NotReached { .. }), "{name}: {error}");
        let constant = Tensor::new(2f64, &CPU)?;
        assert!(optimizer.backward_step(&constant).is_err(), "{name}");
    }
    Ok(())
}

/// What micro-batches reach, they reach together.
#[test]
fn micro_batches_count_together() -> Result<()> {
    for (name, make) in ALL {
        let vars = three()?;
        let mut optimizer = make(&vars, &[])?;
        optimizer.accumulate_loss(&loss(&vars)?, 0.5)?;
        optimizer.accumulate_loss(&vars.get("b.weight")?.sqr()?.sum_all()?, 0.5)?;
        assert_eq!(optimizer.apply()?.unreached, 0, "{name}");
    }
    Ok(())
}

/// A normalisation's running statistics lie in the VarMap, and are nothing to train.
#[test]
fn running_statistics_are_no_variables_to_train() -> Result<()> {
    let map = VarMap::new();
    let builder = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let norm = batch_norm(2, 1e-5, builder.pp("bn"))?;
    builder.get(3, "only.running_mean")?; // no variance beside it: somebody's own variable
    let vars = NamedVars::from(&map);
    let names: Vec<_> = vars.trained().names().map(String::from).collect();
    assert_eq!(names, ["bn.bias", "bn.weight", "only.running_mean"]);
    let loss = || -> adahessian::Result<Tensor> {
        let x = Tensor::arange(0f32, 8.0, &CPU)?.reshape((4, 2))?;
        Ok(norm.forward_t(&x, true)?.sin()?.sum_all()?)
    };
    let (trained, _) = vars.partition(|name| name.starts_with("bn"));
    check::all_reached(&trained, loss)?;
    let mut optimizer = AdaHessian::builder().build(&trained)?;
    assert_eq!(optimizer.backward_step(&loss()?)?.unreached, 0);
    assert_eq!(optimizer.vars().len(), 2);
    // A composite need not own them, either.
    Composite::new().with("bn", optimizer).covering(&trained)?;
    assert_says(check::all_reached(&vars, loss), &["only.running_mean"]);
    Ok(())
}

/// Variables without names cannot be told from running statistics; the error says what to do.
#[test]
fn variables_without_names_get_advice() -> Result<()> {
    let (x, statistic) = (Var::new(&[1f32], &CPU)?, Var::new(&[0f32], &CPU)?);
    let mut optimizer = AdaHessian::builder().build(vec![x.clone(), statistic])?;
    assert_says(
        optimizer.backward_step(&x.sqr()?.sum_all()?),
        &["var.000001", "VarMap"],
    );
    Ok(())
}

/// A table that was looked up in and got no gradient counts like a variable.
#[test]
fn a_table_without_gradient_is_not_reached() -> Result<()> {
    let table = SparseTable::from_fn("words", [5, 2], Precision::F32, |_, row| row.fill(0.5))?;
    let weight = Var::new(&[1f32, 2.0], &CPU)?;
    let vars = NamedVars::new([("weight".into(), weight.clone())])?;
    let mut optimizer = Composite::new()
        .with("dense", AdaHessian::builder().build(&vars)?)
        .with(
            "tables",
            SparseOptimizer::new([&table], SparseRule::adagrad(), 0.1)?,
        );
    let found = table.lookup(&[1, 3])?;
    let product = found.rows.detach().broadcast_mul(weight.as_tensor())?;
    assert_says(
        optimizer.backward_step(&product.sqr()?.sum_all()?),
        &["1 of 2", "words"],
    );
    let found = table.lookup(&[1, 3])?;
    let product = found.rows.broadcast_mul(weight.as_tensor())?;
    assert_eq!(
        optimizer
            .backward_step(&product.sqr()?.sum_all()?)?
            .unreached,
        0
    );
    Ok(())
}
