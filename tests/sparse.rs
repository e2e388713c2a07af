//! Sparse tables and their optimizer against dense ones.

use adahessian::sparse::{self, Accumulator, Precision, SparseOptimizer, SparseRule, SparseTable};
use adahessian::{AdaHessian, Adagrad, Composite, Optim, Rule, State};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use testing::{assert_close, assert_says};

const SHAPE: [usize; 2] = [12, 3];

fn value(row: usize, numbers: &mut [f64]) {
    let columns = numbers.iter_mut().enumerate();
    columns.for_each(|(i, x)| *x = ((row * 5 + i * 3) % 7) as f64 / 4.0 - 0.5);
}

fn table(precision: Precision) -> Result<SparseTable> {
    Ok(SparseTable::from_fn("words", SHAPE, precision, value)?)
}

fn ids(step: usize) -> Vec<u32> {
    (0..7).map(|i| ((i * i + 3 * step) % 11) as u32).collect()
}

/// Σ sin(row) · weight over the rows of the ids, from unique rows and places.
fn loss(rows: &Tensor, places: &[u32], step: usize) -> Result<Tensor> {
    let places = Tensor::new(places, &Device::Cpu)?;
    let picked = rows.index_select(&places, 0)?;
    let weights: Vec<f64> = (0..picked.elem_count())
        .map(|i| ((i + step) % 5) as f64 - 1.7)
        .collect();
    let weights = Tensor::from_vec(weights, picked.shape(), &Device::Cpu)?;
    Ok((picked.sin()? * weights.to_dtype(rows.dtype())?)?.sum_all()?)
}

fn step(table: &SparseTable, opt: &mut SparseOptimizer, number: usize) -> Result<()> {
    let lookup = table.lookup(&ids(number))?;
    opt.backward_step(&loss(&lookup.rows, &lookup.places, number)?)?;
    Ok(())
}

#[test]
fn adagrad_is_that_of_a_dense_table() -> Result<()> {
    let table = table(Precision::F64)?;
    let var = Var::from_tensor(&table.to_tensor()?)?;
    let mut dense = Adagrad::default().lr(0.3).build(vec![var.clone()])?;
    let mut sparse = SparseOptimizer::new([&table], SparseRule::adagrad(), 0.3)?;
    for number in 0..6 {
        step(&table, &mut sparse, number)?;
        dense.backward_step(&loss(var.as_tensor(), &ids(number), number)?)?;
    }
    assert_close("table", &table.to_tensor()?, var.as_tensor(), 1e-14)
}

#[test]
fn one_accumulator_a_row() -> Result<()> {
    let table = SparseTable::from_fn("t", [2, 2], Precision::F64, |_, x| x.fill(0.0))?;
    let rule = SparseRule::Adagrad {
        accumulator: Accumulator::Rows,
        eps: 0.0,
    };
    let mut opt = SparseOptimizer::new([&table], rule, 0.5)?;
    let weights = Tensor::new(&[[3f64, 4.0]], &Device::Cpu)?;
    for _ in 0..2 {
        let lookup = table.lookup(&[1])?;
        opt.backward_step(&(lookup.rows * &weights)?.sum_all()?)?;
    }
    // s is 12.5 and then 25.
    let expected = |g: f64| -0.5 * g * (1.0 / 12.5f64.sqrt() + 1.0 / 5.0);
    let expected = Tensor::new(&[[0.0, 0.0], [expected(3.0), expected(4.0)]], &Device::Cpu)?;
    assert_close("table", &table.to_tensor()?, &expected, 1e-14)?;
    assert_eq!(opt.state()?.tensors["sum_gradient_sq.t"].dims(), [2, 1]);
    Ok(())
}

#[test]
fn micro_batches_are_the_batch() -> Result<()> {
    let (whole, parts) = (table(Precision::F64)?, table(Precision::F64)?);
    let optimizer = |t: &SparseTable| SparseOptimizer::new([t], SparseRule::adagrad(), 0.1);
    let (mut a, mut b) = (optimizer(&whole)?, optimizer(&parts)?);
    let both: Vec<u32> = ids(0).into_iter().chain(ids(1)).collect();
    let lookup = whole.lookup(&both)?;
    let places: Vec<&[u32]> = lookup.places.chunks(7).collect();
    let sum = (loss(&lookup.rows, places[0], 0)? * 0.25)?;
    a.backward_step(&(sum + (loss(&lookup.rows, places[1], 1)? * 0.75)?)?)?;
    for (number, weight) in [(0, 0.25), (1, 0.75)] {
        let lookup = parts.lookup(&ids(number))?;
        b.accumulate_loss(&loss(&lookup.rows, &lookup.places, number)?, weight)?;
    }
    b.apply()?;
    assert_close("tables", &parts.to_tensor()?, &whole.to_tensor()?, 1e-14)
}

#[test]
fn a_resumed_run_has_the_same_bits() -> Result<()> {
    let first = table(Precision::F32)?;
    let optimizer = |t: &SparseTable| SparseOptimizer::new([t], SparseRule::adagrad(), 0.1);
    let mut opt = optimizer(&first)?;
    (0..3).try_for_each(|number| step(&first, &mut opt, number))?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("optim.safetensors");
    opt.state()?.save(&file)?;
    let second = table(Precision::F32)?;
    second.set(&first.to_tensor()?)?;
    let mut other = optimizer(&second)?;
    other.load_state(&State::load(&file)?)?;
    for number in 3..6 {
        step(&first, &mut opt, number)?;
        step(&second, &mut other, number)?;
    }
    let bits =
        |t: &SparseTable| -> Result<Vec<f32>> { Ok(t.to_tensor()?.flatten_all()?.to_vec1()?) };
    assert_eq!(bits(&first)?, bits(&second)?);
    assert_eq!(opt.state()?.meta, other.state()?.meta);
    let small = SparseTable::from_fn("words", [2, 3], Precision::F32, value)?;
    let outcome = optimizer(&small)?.load_state(&opt.state()?);
    assert_says(outcome, &["sum_gradient_sq.words", "[2, 3]", "[12, 3]"]);
    let mut more = opt.state()?;
    let other = Tensor::zeros(SHAPE[0], DType::F32, &Device::Cpu)?;
    more.tensors.insert("sum_gradient_sq.other".into(), other);
    assert_says(
        opt.load_state(&more),
        &["sum_gradient_sq.other", "1 tensors", "2 tensors"],
    );
    Ok(())
}

/// An accumulator in f32 that is infinite would stay so, and its row stand still for good.
#[test]
fn squares_beyond_the_range_of_an_accumulator_are_skipped() -> Result<()> {
    let run = |precision, rule| -> Result<(Option<String>, Vec<f64>)> {
        let table = SparseTable::from_fn("t", [2, 1], precision, |_, x| x.fill(0.0))?;
        let mut opt = SparseOptimizer::new([&table], rule, 1.0)?;
        let rows = table.lookup(&[0])?.rows;
        let info = opt.backward_step(&(rows * 2e19)?.sum_all()?)?;
        let table = table.to_tensor()?.to_dtype(DType::F64)?;
        Ok((info.skipped, table.flatten_all()?.to_vec1()?))
    };
    let (skipped, row) = run(Precision::F32, SparseRule::adagrad())?;
    assert_eq!((skipped.as_deref(), row), (Some("t"), vec![0.0, 0.0]));
    let (skipped, row) = run(Precision::F64, SparseRule::adagrad())?;
    assert_eq!((skipped, row), (None, vec![-1.0, 0.0]));
    assert_eq!(run(Precision::F32, SparseRule::Sgd)?.0, None);
    Ok(())
}

#[test]
fn sizes_beyond_memory_are_refused() {
    for size in [
        [4_000_000_000, 400_000_000],
        [usize::MAX, 1],
        [3, usize::MAX / 8],
    ] {
        let outcome = SparseTable::from_fn("t", size, Precision::F64, |_, _| {});
        assert_says(outcome.map(drop), &["size of a sparse table"]);
    }
}

#[test]
fn files_hold_tables_of_every_kind_bit_for_bit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tables.safetensors");
    let all = |value: fn(usize, &mut [f64])| -> Result<Vec<SparseTable>> {
        let of = |name, precision| SparseTable::from_fn(name, SHAPE, precision, value);
        let path = folder.path().join("map");
        let _ = std::fs::remove_file(&path); // the second time it is there
        Ok(vec![
            of("f32", Precision::F32)?,
            of("f64", Precision::F64)?,
            of("bf16", Precision::Bf16)?,
            SparseTable::mapped("mapped", SHAPE, &path, value)?,
        ])
    };
    let (tables, others) = (all(value)?, all(|_, x| x.fill(3.0))?);
    sparse::save(&tables, &file)?;
    sparse::check(&others, &file)?;
    assert_close(
        "bf16",
        &others[2].to_tensor()?,
        &Tensor::full(3f32, &SHAPE, &Device::Cpu)?,
        0.0,
    )?;
    sparse::load(&others, &file)?;
    for (table, other) in tables.iter().zip(&others) {
        assert_close(table.name(), &other.to_tensor()?, &table.to_tensor()?, 0.0)?;
    }
    // Any candle program reads the file.
    let plain = candle_core::safetensors::load(&file, &Device::Cpu)?;
    assert_eq!(plain["bf16"].dtype(), DType::BF16);
    assert_close("f64", &plain["f64"], &tables[1].to_tensor()?, 0.0)?;

    let before = others[0].to_tensor()?;
    let wrong = SparseTable::from_fn("f64", SHAPE, Precision::F32, value)?;
    let outcome = sparse::load(&[others[0].clone(), wrong], &file);
    assert_says(outcome, &["`f64`", "F32 [12, 3]", "F64 [12, 3]"]);
    let absent = SparseTable::from_fn("other", SHAPE, Precision::F32, value)?;
    assert_says(
        sparse::check(&[absent], &file),
        &["`other`", "no such table"],
    );
    assert_close("unchanged", &others[0].to_tensor()?, &before, 0.0)?;
    let twice = [tables[0].clone(), tables[0].clone()];
    assert_says(
        sparse::save(&twice, &file),
        &["names of tables", "`f32` twice"],
    );
    std::fs::write(&file, "short")?;
    assert_says(sparse::load(&others, &file), &["tables.safetensors"]);
    Ok(())
}

#[test]
fn a_composite_covers_every_table_exactly_once() -> Result<()> {
    let of = |name| SparseTable::from_fn(name, SHAPE, Precision::F32, value);
    let (users, items) = (of("users")?, of("items")?);
    let sgd = |tables: &[&SparseTable]| {
        SparseOptimizer::new(tables.iter().copied(), SparseRule::Sgd, 0.1)
    };
    let dense = || AdaHessian::builder().build(vec![Var::new(1f32, &Device::Cpu)?]);
    let with = |tables: &[&SparseTable]| -> Result<Composite> {
        Ok(Composite::new()
            .with("dense", dense()?)
            .with("tables", sgd(tables)?))
    };
    let all = [&users, &items];
    let missing = with(&[&users])?.covering_tables(all).map(drop);
    assert_says(missing, &["in no part [\"items\"]"]);
    let twice = with(&all)?.with("more", sgd(&[&items])?);
    assert_says(
        twice.covering_tables(all).map(drop),
        &["in two [\"items\"]"],
    );
    let good = with(&all)?.covering_tables(all)?;
    let names: Vec<String> = good.tables().iter().map(|t| t.name().to_string()).collect();
    assert_eq!(names, ["users", "items"]);
    let namesake = of("users")?;
    assert_says(
        sgd(&[&users, &namesake]).map(drop),
        &["sparse tables", "users"],
    );
    Ok(())
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() -> Result<()> {
    let table = table(Precision::F32)?;
    let mut opt = SparseOptimizer::new([&table], SparseRule::adagrad(), 0.1)?;
    let before = table.to_tensor()?;
    let lookup = table.lookup(&[1, 2])?;
    let info = opt.backward_step(&(lookup.rows * f64::NAN)?.sum_all()?)?;
    assert_eq!(info.skipped.as_deref(), Some("words"));
    assert_close("table", &table.to_tensor()?, &before, 0.0)?;
    step(&table, &mut opt, 0)?;
    assert!(assert_close("table", &table.to_tensor()?, &before, 0.0).is_err());
    Ok(())
}

#[test]
fn half_precision_and_files_hold_the_same() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("table.f32");
    let exact = table(Precision::F32)?;
    let half = table(Precision::Bf16)?;
    let mapped = SparseTable::mapped("words", SHAPE, &path, value)?;
    for table in [&exact, &half, &mapped] {
        let mut opt = SparseOptimizer::new([table], SparseRule::adagrad(), 0.1)?;
        (0..4).try_for_each(|number| step(table, &mut opt, number))?;
    }
    assert_close("mapped", &mapped.to_tensor()?, &exact.to_tensor()?, 0.0)?;
    assert_close("bf16", &half.to_tensor()?, &exact.to_tensor()?, 0.02)?;
    assert_eq!(half.dtype(), DType::F32);
    mapped.flush()?;
    drop(mapped);
    // It is there again, and not made afresh.
    let again = SparseTable::mapped("words", SHAPE, &path, |_, x| x.fill(9.0))?;
    assert_close("again", &again.to_tensor()?, &exact.to_tensor()?, 0.0)?;
    let twice = SparseTable::mapped("words", SHAPE, &path, value);
    assert_says(twice.map(drop), &["another table"]);
    drop(again);
    let other = SparseTable::mapped("words", [13, 3], &path, value);
    assert_says(other, &["144 bytes", "156", "13 rows of 3"]);
    Ok(())
}

#[test]
fn lookups_give_each_row_once_and_refuse_what_is_not_there() -> Result<()> {
    let table = table(Precision::F64)?;
    let lookup = table.read(&[5, 1, 5, 11])?;
    assert_eq!(lookup.rows.dims(), [3, 3]);
    assert_eq!(lookup.places, [1, 0, 1, 2]);
    let all = table.to_tensor()?;
    let expected = all.index_select(&Tensor::new(&[1u32, 5, 11], &Device::Cpu)?, 0)?;
    assert_close("rows", &lookup.rows, &expected, 0.0)?;
    assert_says(table.lookup(&[3, 12]), &["0 to 11 in table `words`", "12"]);
    assert_says(table.lookup(&[]), &["at least one", "words"]);
    let values = Tensor::zeros((3, 12), DType::F64, &Device::Cpu)?;
    assert_says(table.set(&values), &["words", "[12, 3]", "[3, 12]"]);
    let twice = [table.clone(), table.clone()];
    let outcome = SparseOptimizer::new(&twice, SparseRule::Sgd, 0.1);
    assert_says(outcome.map(drop), &["each once", "words"]);
    let outcome = SparseOptimizer::new(&twice[..1], SparseRule::Sgd, f64::NAN);
    assert_says(outcome.map(drop), &["learning rate"]);
    Ok(())
}
