//! Entries that no Hessian has seen: rows of an embedding, weights of units at rest.

use adahessian::{AdaHessian, Builder, NamedVars, Optim, Unseen};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};

const CPU: Device = Device::Cpu;

/// A table of three rows and a bias, which every batch reaches.
fn vars(dtype: DType) -> Result<NamedVars> {
    let table = Tensor::new(&[[0.5f64, -1.0], [2.0, 0.3], [-0.7, 1.1]], &CPU)?.to_dtype(dtype)?;
    let bias = Tensor::new(&[0.1f64, 0.2], &CPU)?.to_dtype(dtype)?;
    Ok(NamedVars::new([
        ("table".to_string(), Var::from_tensor(&table)?),
        ("bias".to_string(), Var::from_tensor(&bias)?),
    ])?)
}

/// ½ |row - 1|² + ½ |bias - 1|²: of the other rows neither gradient nor curvature.
fn loss(vars: &NamedVars, row: u32) -> Result<Tensor> {
    let row = vars
        .get("table")?
        .index_select(&Tensor::new(&[row], &CPU)?, 0)?;
    let squares = |x: &Tensor| (x - 1.0)?.sqr()?.sum_all();
    Ok(((squares(&row)? + squares(vars.get("bias")?)?)? * 0.5)?)
}

fn table(vars: &NamedVars) -> Result<Vec<Vec<f64>>> {
    Ok(vars.get("table")?.to_dtype(DType::F64)?.to_vec2()?)
}

/// How far each row has moved after each of these batches.
fn moves(builder: Builder<AdaHessian>, dtype: DType, rows: &[u32]) -> Result<Vec<[f64; 3]>> {
    let vars = vars(dtype)?;
    let mut optimizer = builder.build(vars.clone())?;
    let mut before = table(&vars)?;
    let mut all = Vec::new();
    for row in rows {
        optimizer.backward_step(&loss(&vars, *row)?)?;
        let after = table(&vars)?;
        let moved = |row: usize| {
            let pairs = before[row].iter().zip(&after[row]);
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        all.push([moved(0), moved(1), moved(2)]);
        before = after;
    }
    Ok(all)
}

#[test]
fn a_row_waits_for_the_first_hessian_that_sees_it() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let builder = || AdaHessian::builder().lr(0.1).every(3);
        // The Hessian is taken of the batches 0, 3 and 6.
        let all = moves(builder(), dtype, &[0, 1, 0, 2, 1, 2, 1])?;
        for (step, [_, second, _]) in all.iter().enumerate() {
            let may = step == 6;
            assert_eq!(
                *second > 0.0,
                may,
                "row 1, step {step}: {second}, {dtype:?}"
            );
        }
        for (step, [first, _, third]) in all.iter().enumerate() {
            assert!(*first > 0.0, "row 0, step {step}");
            assert_eq!(*third > 0.0, step >= 3, "row 2, step {step}");
        }
        let longest = all.iter().flatten().fold(0.0, |a: f64, b| a.max(*b));
        assert!(longest < 1.0, "{longest}");
        // As published it leaps, and does not find back.
        let leap = moves(builder().unseen(Unseen::Divide), dtype, &[0, 1])?;
        assert!(leap[1][1] > 100.0, "{:?}", leap[1]);
    }
    Ok(())
}

/// With a Hessian of every batch nothing differs, to the last bit, unless it is asked for.
#[test]
fn every_step_with_its_own_hessian_is_the_published_one() -> Result<()> {
    let rows = [0, 1, 0, 2, 1, 2];
    let of = |unseen| {
        moves(
            AdaHessian::builder().lr(0.1).unseen(unseen),
            DType::F64,
            &rows,
        )
    };
    assert_eq!(of(Unseen::Auto)?, of(Unseen::Divide)?);
    // A row that has a gradient has a curvature, too: waiting changes nothing here either.
    assert_eq!(of(Unseen::Auto)?, of(Unseen::Wait)?);
    Ok(())
}

/// Where the Hessian is of a part of the batch, a row of the rest has a gradient alone.
#[test]
fn a_part_of_the_batch() -> Result<()> {
    let step = |unseen| -> Result<Vec<Vec<f64>>> {
        let vars = vars(DType::F64)?;
        let builder = AdaHessian::builder().lr(0.1).unseen(unseen);
        let mut optimizer = builder.build(vars.clone())?;
        let of_all = (loss(&vars, 0)? + loss(&vars, 1)?)?;
        optimizer.accumulate_gradient(&adahessian::backward_detached(&of_all)?, 1.0)?;
        optimizer.accumulate_curvature(&adahessian::backward(&loss(&vars, 0)?)?, 1.0)?;
        optimizer.apply()?;
        table(&vars)
    };
    let begun = table(&vars(DType::F64)?)?;
    let waited = step(Unseen::Wait)?;
    assert_ne!(waited[0], begun[0]);
    assert_eq!(waited[1..], begun[1..]);
    let leapt = step(Unseen::Divide)?;
    assert!((leapt[1][0] - begun[1][0]).abs() > 100.0);
    Ok(())
}

/// A power of 0 divides by no curvature, and a run that goes on from a state waits for what it waited for.
#[test]
fn powers_and_states() -> Result<()> {
    let builder = || AdaHessian::builder().lr(0.1).every(3);
    let momentum = moves(builder().hessian_power(0.0), DType::F64, &[0, 1])?;
    assert!(momentum[1][1] > 0.0 && momentum[1][1] < 1.0);

    let vars = vars(DType::F64)?;
    let mut whole = builder().build(vars.clone())?;
    whole.backward_step(&loss(&vars, 0)?)?;
    let state = whole.state()?;
    let before = table(&vars)?;
    let mut resumed = builder().build(vars.clone())?;
    resumed.load_state(&state)?;
    resumed.backward_step(&loss(&vars, 1)?)?;
    let after = table(&vars)?;
    assert_eq!(after[1], before[1]);
    assert_ne!(after[0], before[0]); // by its momentum
    Ok(())
}
