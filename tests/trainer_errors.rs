//! What fails half way leaves nothing behind: the step after it is that of a run in which nothing failed.

use adahessian::ops::{
    Activation, BatchNorm, Convolution, Mode, RunningStatistics, conv_batch_norm,
};
use adahessian::sparse::{Precision, SparseOptimizer, SparseRule, SparseTable};
use adahessian::{AdaHessian, Composite, NamedVars, Optim, Rule, Sgd};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use std::cell::Cell;
use testing::assert_says;
use testing::twins::{random, vars};
use trainers::{
    Error, FixedBatches, Loss, Scores, Supervised, Task, TensorBatch, TrainConfig, Trainer,
};

/// Where a task fails, in the second of three micro-batches of its first step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Narrow,
    Weight,
    Loss,
    /// In the second loss of a micro-batch, which is for the curvature alone.
    CurvatureLoss,
    /// The loss is a vector, so that the backward pass refuses it.
    Backward,
}

/// Σ (w·x)² + Σ e·x over the examples, with e from a table.
struct Fails {
    vars: NamedVars,
    table: SparseTable,
    at: Cell<Option<At>>,
    losses: Cell<usize>,
}

impl Fails {
    fn new(at: Option<At>) -> Result<Self> {
        let w = Var::new(&[0.7f64, -0.3], &Device::Cpu)?;
        let fill = |_: usize, x: &mut [f64]| x.fill(0.5);
        Ok(Self {
            vars: NamedVars::new([("w".to_string(), w)])?,
            table: SparseTable::from_fn("e", [4, 2], Precision::F64, fill)?,
            at: Cell::new(at),
            losses: Cell::new(0),
        })
    }

    fn fails(&self, at: At) -> bool {
        let now = self.at.get() == Some(at);
        if now {
            self.at.set(None);
        }
        now
    }
}

fn broken<T>() -> trainers::Result<T> {
    Err(Error::user("the lights went out"))
}

impl Task for Fails {
    type Batch = Vec<f64>;

    fn size(&self, batch: &Vec<f64>) -> usize {
        batch.len()
    }

    fn weight(&self, batch: &Vec<f64>) -> trainers::Result<f64> {
        match batch[0] == 2.0 && self.fails(At::Weight) {
            true => broken(),
            false => Ok(batch.len() as f64),
        }
    }

    fn narrow(&self, batch: &Vec<f64>, start: usize, len: usize) -> trainers::Result<Vec<f64>> {
        let part = batch[start..start + len].to_vec();
        match part[0] == 2.0 && self.fails(At::Narrow) {
            true => broken(),
            false => Ok(part),
        }
    }

    fn loss(&self, batch: &Vec<f64>, mode: &Mode) -> trainers::Result<Tensor> {
        let id = batch[0] as u32 % 4;
        let lookup = self.table.lookup(&[id])?;
        // The curvature's examples may be others of the micro-batch than its first ones.
        if matches!(
            mode,
            Mode::Train {
                step: 0,
                micro: 1,
                ..
            }
        ) {
            self.losses.set(self.losses.get() + 1);
            let second = self.losses.get() == 2;
            if self.fails(At::Loss) || second && self.fails(At::CurvatureLoss) {
                return broken();
            }
        }
        let x = Tensor::new(batch.as_slice(), &Device::Cpu)?.mean_all()?;
        let dense = self.vars.get("w")?.broadcast_mul(&x)?.sqr()?;
        let both = (dense.reshape((1, 2))? + lookup.rows.broadcast_mul(&x)?)?;
        match batch[0] == 2.0 && self.fails(At::Backward) {
            true => Ok(both),
            false => Ok(both.sum_all()?),
        }
    }

    fn evaluate(&self) -> trainers::Result<Scores> {
        Ok(Scores::new("score", 0.0))
    }
}

type Bits = Vec<u64>;

/// The weights after three steps; the first is tried again where it fails.
fn trained(at: Option<At>, second_order: bool, fraction: f64) -> Result<(Bits, Bits)> {
    let task = Fails::new(at)?;
    let (vars, table) = (task.vars.clone(), task.table.clone());
    let dense: Box<dyn Optim> = match second_order {
        true => Box::new(AdaHessian::builder().lr(0.1).seed(3).build(&vars)?),
        false => Box::new(Sgd::default().lr(0.1).build(&vars)?),
    };
    let tables = SparseOptimizer::new([&table], SparseRule::adagrad(), 0.1)?;
    let both = Composite::new()
        .with_boxed("dense", dense)
        .with("tables", tables);
    let config = TrainConfig {
        micro_batches: 3,
        curvature_fraction: fraction,
        ..TrainConfig::default()
    };
    // Two examples a micro-batch; the second of the first step begins with 2.
    let batches = [
        [1.0, 1.5, 2.0, 0.5, -1.0, 3.0],
        [0.5, 1.0, -0.5, 0.25, 1.0, 1.0],
        [1.0, 0.5, 1.5, 0.25, 3.0, 0.5],
    ];
    let batches = FixedBatches(batches.iter().map(|b| b.to_vec()).collect());
    let mut trainer = Trainer::new(task, batches, &vars, Box::new(both), config)?;
    if at.is_some() {
        assert!(trainer.fit().is_err(), "{at:?} should fail");
        assert_eq!(trainer.progress().step, 0);
    }
    trainer.fit()?;
    assert_eq!(trainer.progress().step, 3);
    let bits = |t: &Tensor| -> Result<Bits> {
        let numbers = t.flatten_all()?.to_vec1::<f64>()?;
        Ok(numbers.into_iter().map(f64::to_bits).collect())
    };
    Ok((
        bits(vars.get("w")?.as_tensor())?,
        bits(&table.to_tensor()?)?,
    ))
}

#[test]
fn a_step_that_failed_half_way_is_taken_again_from_its_beginning() -> Result<()> {
    for second_order in [false, true] {
        let undisturbed = trained(None, second_order, 1.0)?;
        for at in [At::Narrow, At::Weight, At::Loss, At::Backward] {
            let tried_again = trained(Some(at), second_order, 1.0)?;
            assert_eq!(tried_again, undisturbed, "{at:?}, {second_order}");
        }
    }
    let undisturbed = trained(None, true, 0.5)?;
    for at in [At::Narrow, At::Weight, At::Loss, At::CurvatureLoss] {
        let tried_again = trained(Some(at), true, 0.5)?;
        assert_eq!(tried_again, undisturbed, "{at:?}, half of the curvature");
    }
    Ok(())
}

/// A loss that leaves out one of two variables.
struct HalfReached(NamedVars);

impl Task for HalfReached {
    type Batch = f64;

    fn size(&self, _: &f64) -> usize {
        1
    }

    fn narrow(&self, batch: &f64, _: usize, _: usize) -> trainers::Result<f64> {
        Ok(*batch)
    }

    fn loss(&self, batch: &f64, _: &Mode) -> trainers::Result<Tensor> {
        Ok((self.0.get("used")?.sqr()? * *batch)?.sum_all()?)
    }

    fn evaluate(&self) -> trainers::Result<Scores> {
        Ok(Scores::new("score", 0.0))
    }
}

#[test]
fn variables_that_are_not_reached_are_named_with_the_way_out() -> Result<()> {
    let var = || Var::new(&[1f64, 2.0], &Device::Cpu);
    let vars = NamedVars::new([("unused".to_string(), var()?), ("used".to_string(), var()?)])?;
    let optimizer = || Sgd::default().lr(0.1).build(&vars);
    let task = HalfReached(vars.clone());
    let Err(direct) = optimizer()?.backward_step(&task.loss(&1.0, &Mode::Eval)?) else {
        anyhow::bail!("the optimizer should refuse it by itself");
    };
    let batches = FixedBatches(vec![1.0]);
    let config = TrainConfig::default();
    let mut trainer = Trainer::new(task, batches, &vars, Box::new(optimizer()?), config)?;
    match trainer.fit() {
        Err(Error::Optimizer(error @ adahessian::Error::NotReached { .. })) => {
            assert_eq!(error.to_string(), direct.to_string());
            assert_says::<(), _>(Err(error), &["1 of 2 variables", "\"unused\""]);
            Ok(())
        }
        other => anyhow::bail!("another outcome: {other:?}"),
    }
}

fn examples(count: usize) -> Result<TensorBatch> {
    Ok(TensorBatch {
        inputs: Tensor::zeros((count, 2), DType::F64, &Device::Cpu)?,
        labels: Tensor::zeros(count, DType::U32, &Device::Cpu)?,
    })
}

fn forward(batch: &TensorBatch, _: &Mode) -> trainers::Result<Tensor> {
    Ok(batch.inputs.clone())
}

fn first_column(batch: &TensorBatch, _: &Mode) -> trainers::Result<Tensor> {
    Ok(batch.inputs.narrow(1, 0, 1)?)
}

#[test]
fn an_evaluation_on_nothing_is_the_same_error_for_all_tasks() -> Result<()> {
    for nothing in [vec![], vec![examples(0)?], vec![examples(0)?, examples(0)?]] {
        let outcomes = [
            Supervised::new(forward, Loss::CROSS_ENTROPY, FixedBatches(nothing.clone()))
                .metrics(&["accuracy"])?
                .evaluate(),
            Supervised::new(
                first_column,
                Loss::SquaredError,
                FixedBatches(nothing.clone()),
            )
            .metrics(&["pearson_spearman"])?
            .evaluate(),
            Supervised::new(forward, Loss::CROSS_ENTROPY, FixedBatches(nothing.clone()))
                .metrics(&["accuracy", "top2"])?
                .evaluate(),
            Supervised::new(
                first_column,
                Loss::BinaryCrossEntropy,
                FixedBatches(nothing.clone()),
            )
            .metrics(&["clicks"])?
            .evaluate(),
        ];
        for (task, outcome) in outcomes.into_iter().enumerate() {
            let Err(Error::Batch { expected, got }) = outcome else {
                panic!("task {task}, {} batches: {outcome:?}", nothing.len());
            };
            assert_eq!(
                expected, "at least one example to evaluate on",
                "task {task}"
            );
            assert_eq!(got, "none", "task {task}");
        }
    }
    // A batch of nothing beside others counts for nothing.
    let (some, both) = (vec![examples(3)?], vec![examples(0)?, examples(3)?]);
    let scores = |batches: Vec<TensorBatch>| {
        Supervised::new(forward, Loss::CROSS_ENTROPY, FixedBatches(batches))
            .metrics(&["accuracy"])?
            .evaluate()
    };
    assert_eq!(scores(both)?, scores(some)?);
    Ok(())
}

/// A normalised image, whose loss fails once after its forward pass has moved the running statistics.
struct MovesThenFails {
    vars: NamedVars,
    running: RunningStatistics,
    fails: Cell<bool>,
    /// What the loss is multiplied with.
    factor: f64,
}

impl Task for MovesThenFails {
    type Batch = Tensor;

    fn size(&self, batch: &Tensor) -> usize {
        batch.dims()[0]
    }

    fn narrow(&self, batch: &Tensor, start: usize, len: usize) -> trainers::Result<Tensor> {
        batch.narrow(0, start, len).map_err(Error::user)
    }

    fn loss(&self, batch: &Tensor, _: &Mode) -> trainers::Result<Tensor> {
        let [kernel, scale, shift] = ["k", "scale", "shift"].map(|name| self.vars.get(name));
        let norm = BatchNorm::new(scale?, shift?, &self.running, true);
        let conv = Convolution::new(1, 1);
        let y = conv_batch_norm(batch, kernel?, &conv, &norm, None, Activation::Silu)?;
        match self.fails.replace(false) {
            true => broken(),
            false => (y.sqr().and_then(|y| y.mean_all()? * self.factor)).map_err(Error::user),
        }
    }

    fn evaluate(&self) -> trainers::Result<Scores> {
        Ok(Scores::new("score", 0.0))
    }
}

#[test]
fn a_step_that_failed_leaves_running_statistics_where_they_were() -> Result<()> {
    let trained = |fails: bool, factor: f64| -> Result<Vec<f64>> {
        let trained = vars(&[("k", &[2, 1, 3, 3]), ("scale", &[2]), ("shift", &[2])])?;
        let running = RunningStatistics::new(2, DType::F64, &Device::Cpu)?;
        let statistics = [
            ("norm.running_mean".to_string(), running.mean.clone()),
            ("norm.running_var".to_string(), running.variance.clone()),
        ];
        let all = trained.union(&NamedVars::new(statistics)?);
        let task = MovesThenFails {
            vars: trained.clone(),
            running: running.clone(),
            fails: Cell::new(fails),
            factor,
        };
        let optimizer = AdaHessian::builder().lr(0.01).build(&trained)?;
        let config = TrainConfig {
            micro_batches: 2,
            max_steps: Some(1),
            ..TrainConfig::default()
        };
        let images = FixedBatches(vec![random("images", &[4, 1, 4, 4])?]);
        let mut trainer = Trainer::new(task, images, &all, Box::new(optimizer), config)?;
        assert_eq!(trainer.fit().is_err(), fails);
        if fails {
            trainer.fit()?;
        }
        assert_eq!(trainer.progress().skipped, u64::from(factor.is_infinite()));
        let both = Tensor::cat(&[running.mean.as_tensor(), running.variance.as_tensor()], 0)?;
        Ok(both.to_vec1()?)
    };
    let undisturbed = trained(false, 1.0)?;
    assert_eq!(trained(true, 1.0)?, undisturbed);
    let at_first = [0.0, 0.0, 1.0, 1.0];
    assert_ne!(undisturbed, at_first);
    // Nor does one that is skipped for its loss.
    assert_eq!(trained(false, f64::INFINITY)?, at_first);
    Ok(())
}

/// Nothing would be trained, and what was not trained would be saved as a model.
#[test]
fn a_run_without_a_batch_is_an_error() -> Result<()> {
    let task = Fails::new(None)?;
    let vars = task.vars.clone();
    let optimizer = Sgd::default().lr(0.1).build(&vars)?;
    let (batches, config) = (FixedBatches(Vec::new()), TrainConfig::default());
    let mut trainer = Trainer::new(task, batches, &vars, Box::new(optimizer), config)?;
    let outcome = trainer.fit();
    assert!(matches!(outcome, Err(Error::Batch { .. })), "{outcome:?}");
    assert_says(outcome, &["at least one to train on", "none"]);
    Ok(())
}
