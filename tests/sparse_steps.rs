//! Steps of sparse tables: the weights of micro-batches, and what is not finite.

use adahessian::sparse::{Precision, SparseOptimizer, SparseRule, SparseTable};
use adahessian::{Adagrad, Error, NamedVars, Optim, Rule, Sgd, State};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use testing::{assert_close, assert_says};

const SHAPE: [usize; 2] = [5, 3];

fn table(name: &str) -> Result<SparseTable> {
    let fill = |row: usize, numbers: &mut [f64]| {
        let columns = numbers.iter_mut().enumerate();
        columns.for_each(|(i, x)| *x = ((row * 2 + i) % 5) as f64 / 3.0 - 0.4);
    };
    Ok(SparseTable::from_fn(name, SHAPE, Precision::F64, fill)?)
}

/// Σ sin(3 · row), which has another gradient in every entry.
fn loss(rows: &Tensor) -> Result<Tensor> {
    Ok((rows * 3.0)?.sin()?.sum_all()?)
}

fn looked_up(table: &SparseTable, ids: &[u32]) -> Result<Tensor> {
    loss(&table.lookup(ids)?.rows)
}

fn picked(var: &Var, ids: &[u32]) -> Result<Tensor> {
    loss(&var.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?)
}

fn plain() -> Sgd {
    Sgd {
        momentum: 0.0,
        nesterov: false,
    }
}

#[test]
fn the_weight_of_a_single_part_makes_no_difference() -> Result<()> {
    for rule in [SparseRule::Sgd, SparseRule::adagrad()] {
        let stepped = |weight: f64| -> Result<Tensor> {
            let table = table("t")?;
            let mut opt = SparseOptimizer::new([&table], rule, 0.1)?;
            opt.accumulate_loss(&looked_up(&table, &[1, 3])?, weight)?;
            opt.apply()?;
            Ok(table.to_tensor()?)
        };
        assert_close("table", &stepped(0.25)?, &stepped(1.0)?, 0.0)?;
    }
    Ok(())
}

/// Two micro-batches of different weights, of which each touches one table alone, and then a third that
/// touches both: the mean is over all weights, as it is for dense variables.
fn two_tables(rule: SparseRule, dense: impl Rule) -> Result<()> {
    let (a, b) = (table("a")?, table("b")?);
    let var = |t: &SparseTable| -> Result<Var> { Ok(Var::from_tensor(&t.to_tensor()?)?) };
    let (va, vb) = (var(&a)?, var(&b)?);
    let named = NamedVars::new([("a".to_string(), va.clone()), ("b".to_string(), vb.clone())])?;
    let mut sparse = SparseOptimizer::new([&a, &b], rule, 0.1)?;
    let mut dense = dense.lr(0.1).build(&named)?;
    for _ in 0..2 {
        sparse.accumulate_loss(&looked_up(&a, &[0, 2])?, 0.25)?;
        sparse.accumulate_loss(&looked_up(&b, &[1, 2, 4])?, 0.5)?;
        dense.accumulate_loss(&picked(&va, &[0, 2])?, 0.25)?;
        dense.accumulate_loss(&picked(&vb, &[1, 2, 4])?, 0.5)?;
        sparse.apply()?;
        dense.apply()?;
    }
    let both = (looked_up(&a, &[2, 3])? + looked_up(&b, &[0])?)?;
    sparse.accumulate_loss(&both, 0.125)?;
    sparse.accumulate_loss(&looked_up(&a, &[3, 4])?, 2.0)?;
    dense.accumulate_loss(&(picked(&va, &[2, 3])? + picked(&vb, &[0])?)?, 0.125)?;
    dense.accumulate_loss(&picked(&va, &[3, 4])?, 2.0)?;
    sparse.apply()?;
    dense.apply()?;
    assert_close("a", &a.to_tensor()?, va.as_tensor(), 1e-14)?;
    assert_close("b", &b.to_tensor()?, vb.as_tensor(), 1e-14)
}

#[test]
fn a_table_that_one_of_two_parts_touches_takes_its_share() -> Result<()> {
    two_tables(SparseRule::Sgd, plain())?;
    two_tables(SparseRule::adagrad(), Adagrad::default())
}

/// Two losses of one lookup, a loss in two halves, and one that counts for nothing before it: the mean of all, as a dense
/// variable has it.
#[test]
fn several_losses_of_one_lookup_are_all_taken() -> Result<()> {
    for rule in [SparseRule::Sgd, SparseRule::adagrad()] {
        let t = table("t")?;
        let var = Var::from_tensor(&t.to_tensor()?)?;
        let mut sparse = SparseOptimizer::new([&t], rule, 0.1)?;
        let named = NamedVars::new([("t".to_string(), var.clone())])?;
        let mut dense: Box<dyn Optim> = match rule {
            SparseRule::Sgd => Box::new(plain().lr(0.1).build(&named)?),
            SparseRule::Adagrad { .. } => Box::new(Adagrad::default().lr(0.1).build(&named)?),
        };
        let ids = [0, 3, 4];
        for _ in 0..2 {
            let rows = t.lookup(&ids)?.rows;
            let same = var.index_select(&Tensor::new(&ids, &Device::Cpu)?, 0)?;
            let both: [(&mut dyn Optim, Tensor); 2] = [(&mut sparse, rows), (&mut *dense, same)];
            for (opt, rows) in both {
                let square = rows.sqr()?.sum_all()?;
                opt.accumulate_loss(&square, 0.0)?;
                opt.accumulate_loss(&loss(&rows)?, 0.5)?;
                opt.accumulate_loss(&square, 0.25)?;
                let grads = adahessian::backward_detached(&square)?;
                opt.accumulate_gradient(&grads, 0.5)?;
                opt.accumulate_gradient(&grads, 0.25)?;
                assert!(opt.reach().unreached.is_empty());
                opt.apply()?;
            }
        }
        assert_close("t", &t.to_tensor()?, var.as_tensor(), 1e-14)?;
    }
    Ok(())
}

/// As for dense variables, whose gradients are widened too.
#[test]
fn a_gradient_in_half_precision_is_taken() -> Result<()> {
    let ones = |_: usize, numbers: &mut [f64]| numbers.fill(1.0);
    let t = SparseTable::from_fn("t", [4, 2], Precision::F32, ones)?;
    let mut opt = SparseOptimizer::new([&t], SparseRule::Sgd, 0.5)?;
    let rows = t.lookup(&[1, 2])?.rows;
    let mut grads = adahessian::backward_detached(&rows.sum_all()?)?;
    let half = grads.get(&rows).unwrap().to_dtype(DType::F16)?;
    grads.insert(&rows, half);
    opt.accumulate_gradient(&grads, 1.0)?;
    opt.apply()?;
    let expected = [[1f32, 1.0], [0.5, 0.5], [0.5, 0.5], [1.0, 1.0]];
    assert_eq!(t.to_tensor()?.to_vec2::<f32>()?, expected);
    Ok(())
}

fn bad_step(table: &SparseTable, opt: &mut SparseOptimizer) -> adahessian::Result<Option<String>> {
    let lookup = table.lookup(&[1, 2])?;
    let loss = (lookup.rows * f64::NAN)?.sum_all()?;
    Ok(opt.backward_step(&loss)?.skipped)
}

fn good_step(table: &SparseTable, opt: &mut SparseOptimizer) -> Result<()> {
    assert_eq!(opt.backward_step(&looked_up(table, &[1])?)?.skipped, None);
    Ok(())
}

#[test]
fn too_many_steps_in_a_row_that_are_not_finite_are_an_error() -> Result<()> {
    let table = table("words")?;
    let before = table.to_tensor()?;
    let new = || SparseOptimizer::new([&table], SparseRule::adagrad(), 0.1);
    let mut opt = new()?;
    for _ in 0..10 {
        assert_eq!(bad_step(&table, &mut opt)?.as_deref(), Some("words"));
    }
    match bad_step(&table, &mut opt) {
        Err(Error::NonFinite { name, skipped, .. }) => assert_eq!((&*name, skipped), ("words", 11)),
        other => anyhow::bail!("the eleventh: {other:?}"),
    }
    assert_close("table", &table.to_tensor()?, &before, 0.0)?;

    let mut opt = new()?.max_skipped(2);
    for _ in 0..2 {
        bad_step(&table, &mut opt)?;
        bad_step(&table, &mut opt)?;
        good_step(&table, &mut opt)?; // the row begins anew
    }
    bad_step(&table, &mut opt)?;
    bad_step(&table, &mut opt)?;
    assert_says(
        bad_step(&table, &mut opt),
        &["3 steps in a row", "gradient of `words`"],
    );
    Ok(())
}

#[test]
fn the_count_of_skipped_steps_is_part_of_the_state() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("optim.safetensors");
    let table = table("words")?;
    let new = || -> Result<SparseOptimizer> {
        let opt = SparseOptimizer::new([&table], SparseRule::adagrad(), 0.1)?;
        Ok(opt.max_skipped(2))
    };
    let mut opt = new()?;
    good_step(&table, &mut opt)?;
    bad_step(&table, &mut opt)?;
    bad_step(&table, &mut opt)?;
    opt.state()?.save(&file)?;
    let saved = State::load(&file)?;
    let mut resumed = new()?;
    resumed.load_state(&saved)?;
    assert_eq!(resumed.state()?.meta, opt.state()?.meta);
    assert_says(bad_step(&table, &mut resumed), &["3 steps in a row"]);

    // A version that did not count them: what it saved is read, and counted from there.
    let mut old = saved.clone();
    assert!(old.meta.remove("skipped").is_some());
    assert!(old.meta.remove("skipped_in_a_row").is_some());
    let mut resumed = new()?;
    resumed.load_state(&old)?;
    let sums = |state: &State| state.tensors["sum_gradient_sq.words"].clone();
    assert_close("sums", &sums(&resumed.state()?), &sums(&saved), 0.0)?;
    bad_step(&table, &mut resumed)?;
    bad_step(&table, &mut resumed)?;
    assert_says(bad_step(&table, &mut resumed), &["3 steps in a row"]);
    Ok(())
}
