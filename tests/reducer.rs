//! Several participants that train together against one that does all by itself.

use adahessian::sparse::{Precision, SparseOptimizer, SparseRule, SparseTable};
use adahessian::{
    AdaHessian, Adam, Composite, Error, NamedVars, Optim, Reducer, Rule, SophiaH, StepInfo,
};
use adahessian::{RowSums, Sums, ThreadGroup, ThreadReducer};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use std::thread;
use testing::{assert_close, assert_number, assert_says, variables};

const CPU: Device = Device::Cpu;

/// A participant's own model and optimizer.
struct Model {
    vars: NamedVars,
    table: SparseTable,
    optimizer: Box<dyn Optim>,
}

type Make = fn(&NamedVars, &SparseTable) -> adahessian::Result<Box<dyn Optim>>;

const TABLE: [(&str, bool, Make); 4] = [
    ("adahessian", false, |vars, _| {
        let builder = AdaHessian::builder().lr(0.05).samples(2).every(2).seed(9);
        Ok(Box::new(builder.clip_norm(0.5).build(vars)?))
    }),
    ("sophiah", false, |vars, _| {
        Ok(Box::new(SophiaH::builder().lr(0.05).every(3).build(vars)?))
    }),
    ("adam", false, |vars, _| {
        Ok(Box::new(Adam::default().lr(0.05).build(vars)?))
    }),
    ("composite", true, |vars, table| {
        let (dense, rest) = vars.partition(|name| name == "w");
        Ok(Box::new(
            Composite::new()
                .with("dense", AdaHessian::builder().lr(0.05).build(&dense)?)
                .with("rest", Adam::default().lr(0.05).build(&rest)?)
                .with(
                    "table",
                    SparseOptimizer::new([table], SparseRule::adagrad(), 0.1)?,
                ),
        ))
    }),
];

fn model(make: Make) -> Result<Model> {
    let vars = variables(&[("w", &[0.4, -0.3, 0.2], &[3]), ("b", &[0.1], &[1])])?;
    let numbers = |row: usize, x: &mut [f64]| x.fill(0.1 * (row as f64 + 1.0));
    let table = SparseTable::from_fn("t", [6, 3], Precision::F64, |row, x| {
        numbers(row, x);
    })?;
    Ok(Model {
        optimizer: make(&vars, &table)?,
        vars,
        table,
    })
}

/// The mean loss of these examples, each an id, times `factor`.
fn loss(model: &Model, with_table: bool, ids: &[u32], factor: f64) -> Result<Tensor> {
    let (w, b) = (model.vars.get("w")?, model.vars.get("b")?);
    let x = match with_table {
        true => {
            let lookup = model.table.lookup(ids)?;
            let places = Tensor::new(lookup.places.as_slice(), &CPU)?;
            lookup.rows.index_select(&places, 0)?
        }
        false => {
            let x = ids
                .iter()
                .flat_map(|&id| [0.3, 1.0, -0.5].map(|c| c * f64::from(id + 1)));
            Tensor::from_iter(x, &CPU)?.reshape((ids.len(), 3))?
        }
    };
    let score = x.broadcast_mul(w)?.sum(1)?.broadcast_add(b)?.tanh()?;
    Ok(((score - 0.7)?.sqr()?.mean_all()? * factor)?)
}

fn step(model: &mut Model, with_table: bool, ids: &[u32], weight: f64) -> Result<StepInfo> {
    let loss = loss(model, with_table, ids, 1.0)?;
    model.optimizer.accumulate_loss(&loss, weight)?;
    Ok(model.optimizer.apply()?)
}

fn everything(model: &Model) -> Result<Vec<Tensor>> {
    let mut all: Vec<Tensor> = model.vars.snapshot()?.tensors().to_vec();
    all.push(model.table.to_tensor()?);
    Ok(all)
}

/// Runs one thread a participant.
fn together<T: Send>(
    count: usize,
    work: impl Fn(usize, ThreadReducer) -> Result<T> + Sync,
) -> Vec<Result<T>> {
    let work = &work;
    thread::scope(|scope| {
        let ranks = ThreadGroup::new(count).into_iter().enumerate();
        let threads = ranks.map(|(rank, own)| scope.spawn(move || work(rank, own)));
        let threads: Vec<_> = threads.collect();
        let ends = threads.into_iter().map(|t| t.join().unwrap());
        ends.collect()
    })
}

/// The batch of each step, an even number of ids: one appears in both halves.
const BATCHES: [[u32; 4]; 4] = [[0, 1, 1, 2], [3, 3, 5, 0], [2, 4, 0, 1], [5, 5, 5, 5]];

#[test]
fn two_with_half_of_a_batch_each_step_as_one_with_the_whole() -> Result<()> {
    for (name, with_table, make) in TABLE {
        let mut alone = model(make)?;
        let mut expected = Vec::new();
        for ids in BATCHES {
            expected.push(step(&mut alone, with_table, &ids, 1.0)?);
        }
        let ends = together(2, |rank, reducer| {
            let mut own = model(make)?;
            own.optimizer.set_reducer(Box::new(reducer));
            let half = |ids: &[u32; 4]| ids[2 * rank..][..2].to_vec();
            let steps = BATCHES.iter();
            let infos = steps.map(|ids| step(&mut own, with_table, &half(ids), 0.5));
            Ok((infos.collect::<Result<Vec<_>>>()?, everything(&own)?))
        });
        let ends = ends.into_iter().collect::<Result<Vec<_>>>()?;
        for (infos, all) in &ends {
            for (ours, theirs) in infos.iter().zip(&expected) {
                let what = |part| format!("{name}, step {}: {part}", theirs.step);
                let pairs = [
                    ("gradient", ours.gradient_norm, theirs.gradient_norm),
                    ("update", ours.update_norm, theirs.update_norm),
                    (
                        "loss",
                        ours.loss.context("loss")?,
                        theirs.loss.context("loss")?,
                    ),
                ];
                for (part, ours, theirs) in pairs {
                    assert_number(&what(part), ours, theirs, 1e-12)?;
                }
                let curvature = |info: &StepInfo| info.curvature.map(|c| c.mean_abs);
                match (curvature(ours), curvature(theirs)) {
                    (Some(a), Some(b)) => assert_number(&what("D"), a, b, 1e-12)?,
                    (a, b) => assert_eq!(a, b),
                }
            }
            for (ours, theirs) in all.iter().zip(everything(&alone)?) {
                assert_close(name, ours, &theirs, 1e-12)?;
            }
        }
        // The same bits everywhere.
        for (a, b) in ends[0].1.iter().zip(&ends[1].1) {
            assert_close(name, a, b, 0.0)?;
        }
    }
    Ok(())
}

/// In the order of their ranks, whoever comes first.
#[test]
fn sums_do_not_depend_on_timing() -> Result<()> {
    let run = |late: usize| -> Result<Vec<f32>> {
        let ends = together(3, |rank, mut reducer| {
            if rank == late {
                thread::sleep(std::time::Duration::from_millis(30));
            }
            let x = Tensor::new(&[1f32, 1e8, -1e8][rank..][..1], &CPU)?;
            let mut own = Sums::default();
            own.tensors.insert("x".into(), x);
            Ok(reducer.reduce(own)?.tensors["x"].to_vec1::<f32>()?)
        });
        Ok(ends.into_iter().collect::<Result<Vec<_>>>()?.concat())
    };
    let first = run(0)?;
    assert_eq!(first, [0.0, 0.0, 0.0]); // (1 + 1e8) - 1e8 in f32
    for late in 1..3 {
        assert_eq!(run(late)?, first);
    }
    Ok(())
}

#[test]
fn what_is_not_finite_on_one_is_skipped_by_all() -> Result<()> {
    for (name, with_table, make) in TABLE {
        let ends = together(2, |rank, reducer| {
            let mut own = model(make)?;
            own.optimizer.set_reducer(Box::new(reducer));
            let before = everything(&own)?;
            let factor = [1.0, f64::NAN][rank];
            let loss = loss(&own, with_table, &[0, 3], factor)?;
            own.optimizer.accumulate_loss(&loss, 0.5)?;
            let skipped = own.optimizer.apply()?.skipped;
            for (now, before) in everything(&own)?.iter().zip(&before) {
                assert_close(name, now, before, 0.0)?;
            }
            // And they go on together.
            let next = step(&mut own, with_table, &[1, 2], 0.5)?;
            assert_eq!((next.step, next.skipped), (1, None), "{name}");
            Ok(skipped)
        });
        let skipped = ends.into_iter().collect::<Result<Vec<_>>>()?;
        assert!(skipped[0].is_some(), "{name}");
        assert_eq!(skipped[0], skipped[1], "{name}");
    }
    Ok(())
}

#[test]
fn a_participant_that_leaves_is_an_error_for_the_others() -> Result<()> {
    let ends = together(3, |rank, reducer| {
        let mut own = model(TABLE[0].2)?;
        own.optimizer.set_reducer(Box::new(reducer));
        step(&mut own, false, &[0, 1], 0.5)?;
        match rank {
            1 => Ok(None), // drops its reducer
            _ => Ok(Some(step(&mut own, false, &[0, 1], 0.5).map(drop))),
        }
    });
    for end in [&ends[0], &ends[2]] {
        let Ok(Some(Err(error))) = end else {
            panic!("{end:?}");
        };
        let error = error.downcast_ref::<Error>();
        assert!(
            matches!(error, Some(Error::Participant { .. })),
            "{error:?}"
        );
    }
    Ok(())
}

#[test]
fn other_names_or_shapes_are_named() -> Result<()> {
    let refused = |start: fn(usize) -> (&'static str, usize), pieces: &[&str]| {
        let ends = together(2, |rank, reducer| {
            let (name, count) = start(rank);
            let vars = variables(&[(name, &vec![1.0; count], &[count])])?;
            let mut optimizer = Adam::default().build(&vars)?;
            optimizer.set_reducer(Box::new(reducer));
            optimizer.backward_step(&vars.get(name)?.sqr()?.sum_all()?)?;
            Ok(())
        });
        ends.into_iter().for_each(|end| assert_says(end, pieces));
    };
    refused(
        |rank| ("x", 2 + rank),
        &["gradient.x", "F64 [2]", "F64 [3]"],
    );
    refused(|rank| (["x", "y"][rank], 2), &["gradient.x", "participant"]);
    let rows = |width: usize| -> Result<RowSums> {
        Ok(RowSums {
            rows: vec![1, 4],
            gradients: Tensor::ones((2, width), DType::F64, &CPU)?,
        })
    };
    let ends = together(2, |rank, mut reducer| {
        let mut own = Sums::default();
        own.rows.insert("rows.t".into(), rows(3 + rank)?);
        Ok(reducer.reduce(own).map(drop)?)
    });
    ends.into_iter()
        .for_each(|end| assert_says(end, &["rows.t", "[2, 3]", "[2, 4]"]));
    Ok(())
}

/// Rows that are none of the table's are an error, and not memory of somebody else.
#[test]
fn a_reducers_rows_are_looked_at() -> Result<()> {
    struct Says(Vec<u32>, usize);
    impl Reducer for Says {
        fn reduce(&mut self, mut own: Sums) -> adahessian::Result<Sums> {
            let gradients = Tensor::zeros((self.0.len(), self.1), DType::F32, &Device::Cpu)?;
            let rows = self.0.clone();
            own.rows
                .insert("rows.t".into(), RowSums { rows, gradients });
            Ok(own)
        }
    }
    for (rows, width, good) in [
        (vec![0, 3], 2, true),
        (vec![4], 2, false),
        (vec![3, 0], 2, false),
        (vec![1, 1], 2, false),
        (vec![1], 3, false),
    ] {
        let table = SparseTable::from_fn("t", [4, 2], Precision::F32, |_, row| row.fill(1.0))?;
        let mut opt = SparseOptimizer::new([&table], SparseRule::adagrad(), 0.1)?;
        opt.set_reducer(Box::new(Says(rows.clone(), width)));
        let loss = table.lookup(&[0])?.rows.sqr()?.sum_all()?;
        let outcome = opt.backward_step(&loss);
        match good {
            true => drop(outcome?),
            false => assert_says(outcome, &["`t`", "expected"]),
        }
    }
    Ok(())
}
