//! Gradients, sums and states that come from elsewhere: what does not fit is refused and changes nothing, and what was
//! handed out stays what it was.

use adahessian::sparse::{Precision, SparseOptimizer, SparseRule, SparseTable};
use adahessian::{
    AdaHessian, Adam, AdamW, Composite, Error, NamedVars, Optim, Reducer, Rule, Sgd, SophiaH, Sums,
    backward,
};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use testing::{assert_close, assert_says, variables};

const CPU: Device = Device::Cpu;

fn start() -> Result<NamedVars> {
    variables(&[
        ("w", &[-1.0, 0.5, 0.3, -0.2, 1.5, 1.0], &[2, 3]),
        ("c", &[0.5, 2.0], &[2]),
    ])
}

fn objective(vars: &NamedVars) -> Result<Tensor> {
    let (w, c) = (vars.get("w")?, vars.get("c")?);
    let fourth = w.sqr()?.sqr()?.sum_all()?;
    Ok((fourth + c.sin()?.sum_all()?)?)
}

type Make = fn(&NamedVars) -> adahessian::Result<Box<dyn Optim>>;

const MADE: [(&str, Make); 4] = [
    ("sgd", |vars| {
        Ok(Box::new(Sgd::default().lr(0.1).build(vars)?))
    }),
    ("adamw", |vars| {
        Ok(Box::new(AdamW::default().lr(0.1).build(vars)?))
    }),
    ("adahessian", |vars| {
        Ok(Box::new(AdaHessian::builder().lr(0.1).build(vars)?))
    }),
    ("composite", |vars| {
        let (some, rest) = vars.partition(|name| name == "c");
        let composite = Composite::new()
            .with("some", AdamW::default().build(&some)?)
            .with("rest", Adam::default().build(&rest)?);
        Ok(Box::new(composite))
    }),
];

/// Passes over memory pair a variable's numbers with those of its gradient: with fewer of them some would not move, or
/// move by another's.
#[test]
fn a_gradient_of_another_shape_or_type_is_refused() -> Result<()> {
    for (name, make) in MADE {
        for step in 0..2 {
            let vars = start()?;
            let mut opt = make(&vars)?;
            for _ in 0..step {
                opt.backward_step(&objective(&vars)?)?;
            }
            let before = vars.snapshot()?;
            let w = vars.get("w")?.clone();
            let whole = Tensor::ones((2, 3), DType::F64, &CPU)?;
            for (wrong, got) in [
                (whole.narrow(0, 0, 1)?, "[1, 3]"),
                (whole.t()?, "[3, 2]"),
                (whole.flatten_all()?, "[6]"),
                (Tensor::ones((2, 4), DType::F64, &CPU)?, "[2, 4]"),
                (whole.to_dtype(DType::F32)?, "F32"),
            ] {
                let mut grads = backward(&objective(&vars)?)?;
                grads.insert(&w, wrong);
                let refused = opt.accumulate_gradient(&grads, 1.0);
                assert!(matches!(refused, Err(Error::Variable { .. })), "{name}");
                assert_says(refused, &["variable `w`", "[2, 3]", got]);
            }
            for (now, before) in vars.snapshot()?.tensors().iter().zip(before.tensors()) {
                assert_close(name, now, before, 0.0)?;
            }
            // Nothing is left of what was refused.
            let twin = start()?;
            let mut other = make(&twin)?;
            for _ in 0..step {
                other.backward_step(&objective(&twin)?)?;
            }
            opt.backward_step(&objective(&vars)?)?;
            other.backward_step(&objective(&twin)?)?;
            assert_close(name, vars.get("w")?, twin.get("w")?, 0.0)?;
        }
    }
    Ok(())
}

/// Gives back sums with one that is another variable's.
struct Confused;

impl Reducer for Confused {
    fn reduce(&mut self, mut sums: Sums) -> adahessian::Result<Sums> {
        let name = sums.tensors.keys().find(|name| name.ends_with(".w"));
        if let Some(name) = name.cloned() {
            let other = Tensor::ones(3, DType::F64, &CPU)?;
            sums.tensors.insert(name, other);
        }
        Ok(sums)
    }
}

#[test]
fn a_reducers_tensors_are_looked_at() -> Result<()> {
    for (name, make) in &MADE[..3] {
        let vars = start()?;
        let mut opt = make(&vars)?;
        *opt.reducer() = Some(Box::new(Confused));
        let refused = opt.backward_step(&objective(&vars)?);
        assert!(matches!(refused, Err(Error::Variable { .. })), "{name}");
        assert_close(name, vars.get("w")?, start()?.get("w")?, 0.0)?;
    }
    Ok(())
}

/// Sophia's curvature is a running mean, which each step changes where it is.
#[test]
fn a_diagonal_that_was_handed_out_stays_what_it_was() -> Result<()> {
    let vars = start()?;
    let makes: [Make; 2] = [
        |vars| Ok(Box::new(SophiaH::builder().lr(0.01).every(1).build(vars)?)),
        |vars| Ok(Box::new(AdaHessian::builder().lr(0.01).build(vars)?)),
    ];
    for make in makes {
        let mut opt = make(&vars)?;
        opt.backward_step(&objective(&vars)?)?;
        let first = opt.diagonal()?.context("no curvature")?;
        let kept = first.tensors()[1].to_vec2::<f64>()?;
        opt.backward_step(&objective(&vars)?)?;
        let second = opt.diagonal()?.context("no curvature")?;
        assert_eq!(first.tensors()[1].to_vec2::<f64>()?, kept);
        assert_ne!(second.tensors()[1].to_vec2::<f64>()?, kept);
    }
    Ok(())
}

/// What was accumulated is of where the variables were, and the state's step has none of it.
#[test]
fn a_state_that_is_loaded_drops_what_was_accumulated() -> Result<()> {
    for (name, make) in MADE {
        let (vars, twin) = (start()?, start()?);
        let (mut opt, mut other) = (make(&vars)?, make(&twin)?);
        let (state, saved) = (opt.state()?, vars.snapshot()?);
        opt.accumulate_loss(&(objective(&vars)? * 7.0)?, 0.5)?;
        vars.assign(&saved)?;
        opt.load_state(&state)?;
        let info = opt.backward_step(&objective(&vars)?)?;
        let expected = other.backward_step(&objective(&twin)?)?;
        assert_eq!(info.loss, expected.loss, "{name}");
        for (var, twin) in [("w", "w"), ("c", "c")].map(|(a, b)| (vars.get(a), twin.get(b))) {
            assert_close(name, var?, twin?, 0.0)?;
        }
    }
    Ok(())
}

/// Micro-batches' losses of one entry, whatever shape they have.
#[test]
fn losses_of_one_entry_add_up() -> Result<()> {
    let vars = start()?;
    let mut opt = Sgd::default().lr(0.1).build(&vars)?;
    let loss = objective(&vars)?;
    opt.accumulate_loss(&loss, 0.5)?;
    opt.accumulate_loss(&objective(&vars)?.reshape(1)?, 0.5)?;
    let info = opt.apply()?;
    assert_eq!(info.loss, Some(loss.to_scalar::<f64>()?));
    Ok(())
}

/// Two losses that are computed first and accumulated then: each finds its rows.
#[test]
fn rows_of_a_loss_that_is_still_to_come_are_kept() -> Result<()> {
    let table = || {
        let fill = |row: usize, x: &mut [f64]| x.fill(row as f64 + 0.5);
        SparseTable::from_fn("t", [4, 2], Precision::F64, fill)
    };
    let loss = |table: &SparseTable, id: u32| -> Result<Tensor> {
        Ok(table.lookup(&[id])?.rows.sqr()?.sum_all()?)
    };
    let (first, other) = (table()?, table()?);
    let mut opt = SparseOptimizer::new([&first], SparseRule::Sgd, 0.1)?;
    let (a, b) = (loss(&first, 0)?, loss(&first, 1)?);
    let none = loss(&first, 2)?;
    opt.accumulate_loss(&a, 0.25)?;
    assert_eq!(opt.reach().unreached.len(), 0);
    opt.accumulate_loss(&none, 0.0)?;
    opt.accumulate_loss(&b, 0.75)?;
    opt.apply()?;
    let mut opt = SparseOptimizer::new([&other], SparseRule::Sgd, 0.1)?;
    opt.accumulate_loss(&loss(&other, 0)?, 0.25)?;
    opt.accumulate_loss(&loss(&other, 1)?, 0.75)?;
    opt.apply()?;
    assert_close("table", &first.to_tensor()?, &other.to_tensor()?, 0.0)?;
    let moved = (first.to_tensor()? - table()?.to_tensor()?)?;
    let moved = moved.to_vec2::<f64>()?;
    assert!(moved[0][0] < 0.0 && moved[1][0] < 0.0, "{moved:?}");
    assert_eq!(moved[2..], [vec![0.0; 2], vec![0.0; 2]]);
    Ok(())
}

/// A leaf's gradient from elsewhere is looked at, too.
#[test]
fn a_rows_gradient_of_another_shape_is_refused() -> Result<()> {
    let table = SparseTable::from_fn("t", [4, 2], Precision::F32, |_, x| x.fill(0.5))?;
    let mut opt = SparseOptimizer::new([&table], SparseRule::adagrad(), 0.1)?;
    let found = table.lookup(&[0, 2])?;
    let mut grads = backward(&found.rows.sqr()?.sum_all()?)?;
    grads.insert(&found.rows, Tensor::ones((1, 2), DType::F32, &CPU)?);
    assert_says(
        opt.accumulate_gradient(&grads, 1.0),
        &["`t`", "[2, 2]", "[1, 2]"],
    );
    Ok(())
}
