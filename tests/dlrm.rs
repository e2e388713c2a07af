//! DLRM against PyTorch, and its training with AdaHessian beside Adagrad.

use adahessian::engine::Handle;
use adahessian::ops::{Mode, Pooling, binary_cross_entropy};
use adahessian::sparse::Precision;
use adahessian::sparse::{SparseOptimizer, SparseRule};
use adahessian::{AdaHessian, Composite, Hessian, LinearOperator, Optim, VarVec, check};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use models::dlrm::{Config, Dlrm, Ids};
use models::{Model, Start};
use std::collections::HashMap;
use testing::{assert_close, assert_number, assert_says, load, reference};
use trainers::Task;
use trainers::{FixedBatches, Loss, Supervised, TensorBatch};

const TRAIN: Mode = Mode::Train {
    seed: 0,
    step: 0,
    micro: 0,
};

fn start(dtype: DType) -> Start {
    Start {
        dtype,
        ..Start::default()
    }
}

fn config() -> Config {
    Config {
        bottom: vec![6, 12, 8],
        tables: vec![30, 7, 50, 11, 23],
        top: vec![16, 8, 1],
    }
}

/// The golden model in this precision, and its tensors.
fn golden(dtype: DType) -> Result<(Dlrm, Ids, HashMap<String, Tensor>)> {
    let golden = load(&reference().join("dlrm/golden.safetensors"))?;
    let precision = match dtype {
        DType::F64 => Precision::F64,
        _ => Precision::F32,
    };
    let model = Dlrm::new(&config(), &start(dtype), precision)?;
    for (name, var) in model.vars().iter() {
        var.set(&golden[&format!("param.{name}")].to_dtype(dtype)?)?;
    }
    model.tables().set(&tables(&golden, "param")?)?;
    let column = |name: &str, table: usize| -> Result<Vec<u32>> {
        let tensor = golden[&format!("{name}.{table}")].to_dtype(DType::U32)?;
        Ok(tensor.to_vec1()?)
    };
    let (mut ids, mut starts) = (Vec::new(), vec![0]);
    for sample in 0..9 {
        for table in 0..5 {
            let (all, offsets) = (column("indices", table)?, column("offsets", table)?);
            let end = offsets
                .get(sample + 1)
                .map_or(all.len(), |end| *end as usize);
            ids.extend(&all[offsets[sample] as usize..end]);
            starts.push(ids.len() as u32);
        }
    }
    let pooling = Pooling::Sum;
    Ok((
        model,
        Ids::Bags {
            ids,
            starts,
            pooling,
        },
        golden,
    ))
}

fn tables(golden: &HashMap<String, Tensor>, kind: &str) -> Result<Tensor> {
    let all = (0..5).map(|table| golden[&format!("{kind}.emb_l.{table}.weight")].clone());
    Ok(Tensor::cat(&all.collect::<Vec<_>>(), 0)?)
}

fn against_golden(dtype: DType, tolerance: f64) -> Result<()> {
    let (model, ids, golden) = golden(dtype)?;
    let dense = golden["dense_x"].to_dtype(dtype)?;
    let logits = model.forward(&dense, &ids, &TRAIN)?;
    assert_close(
        "logits",
        &logits,
        &golden["logits"].flatten_all()?,
        tolerance,
    )?;
    let targets = golden["target"].flatten_all()?;
    let loss = binary_cross_entropy(&Handle::enter(&logits)?, &targets)?.exit()?;
    assert_close("loss", &loss, &golden["loss"], tolerance)?;
    let vars = model.vars();
    let z = VarVec::from_fn(&vars, |name, _, dtype, _| {
        let bits = golden[&format!("z.{name}")].to_dtype(dtype)?;
        Ok(((bits * 2.0)? - 1.0)?)
    })?;
    let hessian = Hessian::of(&loss, &vars)?;
    for (kind, vector) in [("grad", hessian.gradient()?), ("hz", hessian.apply(&z)?)] {
        for (name, got) in vector.iter() {
            let name = format!("{kind}.{name}");
            assert_close(&name, got, &golden[&name], tolerance)?;
        }
    }
    // With plain steps of length 1 the tables change by their gradient, row by row.
    let before = model.tables().to_tensor()?;
    let mut sparse = SparseOptimizer::new([model.tables()], SparseRule::Sgd, 1.0)?;
    let again = model.forward(&dense, &ids, &TRAIN)?;
    sparse.backward_step(&binary_cross_entropy(&Handle::enter(&again)?, &targets)?.exit()?)?;
    let change = (before - model.tables().to_tensor()?)?;
    assert_close(
        "tables",
        &change,
        &tables(&golden, "grad")?,
        tolerance * 10.0,
    )?;
    Ok(())
}

#[test]
fn it_agrees_with_pytorch() -> Result<()> {
    against_golden(DType::F64, 1e-10)?;
    against_golden(DType::F32, 1e-4)
}

#[test]
fn it_is_reached_and_differentiated_everywhere() -> Result<()> {
    let config = Config {
        bottom: vec![3, 4, 2],
        tables: vec![5, 4],
        top: vec![4, 1],
    };
    let model = Dlrm::new(&config, &start(DType::F64), Precision::F64)?;
    let dense = Tensor::new(&[[0.3f64, -1.2, 0.7], [1.1, 0.2, -0.4]], &Device::Cpu)?;
    let targets = Tensor::new(&[1f64, 0.0], &Device::Cpu)?;
    let loss = || {
        let ids = Ids::Single(vec![4, 0, 2, 3]);
        let logits = model.forward(&dense, &ids, &Mode::Eval);
        let logits = logits.map_err(|e| candle_core::Error::msg(e.to_string()))?;
        binary_cross_entropy(&Handle::enter(&logits)?, &targets)?.exit()
    };
    let vars = model.vars();
    check::gradient(&vars, 1e-6, loss)?;
    check::hessian(&vars, 1e-6, loss)?;
    Ok(())
}

/// AdaHessian on the networks and Adagrad on the tables learn a batch by heart.
#[test]
fn a_small_batch_overfits() -> Result<()> {
    let model = Dlrm::new(&config(), &start(DType::F32), Precision::F32)?;
    let stream = |name: &str| adahessian::random::Stream::new(5, name, 0, 0);
    let dense = stream("dense").normal_tensor(&[16, 6], DType::F32, &Device::Cpu)?;
    let sizes = config().tables;
    let uniform = stream("ids").uniform(16 * 5).into_iter().enumerate();
    let ids = Ids::Single(
        uniform
            .map(|(i, u)| (u * sizes[i % 5] as f64) as u32)
            .collect(),
    );
    let targets = stream("targets").bernoulli(16, 0.4);
    let targets = Tensor::from_vec(targets, 16, &Device::Cpu)?;
    let dense_part = AdaHessian::builder().lr(0.05).blocks(model.blocks());
    let mut opt = Composite::new()
        .with("dense", dense_part.build(model.vars())?)
        .with(
            "tables",
            SparseOptimizer::new([model.tables()], SparseRule::adagrad(), 0.1)?,
        )
        .covering(&model.vars())?;
    let mut losses = Vec::new();
    for _ in 0..60 {
        let logits = model.forward(&dense, &ids, &TRAIN)?;
        let loss = binary_cross_entropy(&Handle::enter(&logits)?, &targets)?.exit()?;
        losses.push(opt.backward_step(&loss)?.loss.unwrap_or(f64::NAN));
    }
    assert!(losses[0] > 0.4 && losses[59] < 0.02, "{losses:?}");
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let wrong = |edit: fn(&mut Config)| {
        let mut config = config();
        edit(&mut config);
        Dlrm::new(&config, &start(DType::F32), Precision::F32).map(drop)
    };
    assert_says(
        wrong(|c| c.top = vec![4, 2]),
        &["top", "end with 1", "[4, 2]"],
    );
    assert_says(wrong(|c| c.tables = vec![3, 0]), &["tables", "0 rows"]);
    assert_says(wrong(|c| c.bottom = vec![3]), &["bottom", "two widths"]);
    let model = Dlrm::new(&config(), &start(DType::F32), Precision::F32)?;
    let dense =
        |batch: usize, features: usize| Tensor::zeros((batch, features), DType::F32, &Device::Cpu);
    let forward = |dense: &Tensor, ids: Vec<u32>| model.forward(dense, &Ids::Single(ids), &TRAIN);
    assert_says(
        forward(&dense(1, 5)?, vec![0; 5]),
        &["dense", "6", "[1, 5]"],
    );
    assert_says(forward(&dense(2, 6)?, vec![0; 5]), &["ids", "2 x 5", "5"]);
    let outside = forward(&dense(1, 6)?, vec![0, 7, 0, 0, 0]);
    assert_says(outside, &["0 to 6 in table 1", "7 in sample 0"]);
    Ok(())
}

/// The task's loss and scores are those of its parts.
#[test]
fn clicks_are_a_task() -> Result<()> {
    let logits = Tensor::new(&[[2f32], [-1.0], [0.5], [-3.0]], &Device::Cpu)?;
    let labels = Tensor::new(&[1u32, 0, 0, 0], &Device::Cpu)?;
    let batch = TensorBatch {
        inputs: logits.clone(),
        labels: labels.clone(),
    };
    let forward = |batch: &TensorBatch, _: &Mode| Ok(batch.inputs.clone());
    let task = Supervised::new(
        forward,
        Loss::BinaryCrossEntropy,
        FixedBatches(vec![batch.clone(), batch.clone()]),
    )
    .metrics(&["clicks"])?;
    let loss = task.loss(&batch, &TRAIN)?.to_scalar::<f32>()?;
    let scores = task.evaluate()?;
    assert_eq!((scores.main_name(), scores.main()), ("auc", 1.0));
    assert_number(
        "loss",
        scores.get("loss").unwrap_or(f64::NAN),
        f64::from(loss),
        1e-6,
    )?;
    assert_eq!(scores.get("label_rate"), Some(0.25));
    assert_eq!(scores.get("says_nothing"), Some(0.0));
    let forward = |batch: &TensorBatch, _: &Mode| Ok(batch.inputs.zeros_like()?);
    let scores = Supervised::new(forward, Loss::BinaryCrossEntropy, FixedBatches(vec![batch]))
        .metrics(&["clicks"])?
        .evaluate()?;
    assert_eq!(
        (scores.main(), scores.get("says_nothing")),
        (0.5, Some(1.0))
    );
    // Rows of one label end no run: there is a loss, and no AUC.
    let one_label = TensorBatch {
        inputs: logits,
        labels: labels.zeros_like()?,
    };
    let forward = |batch: &TensorBatch, _: &Mode| Ok(batch.inputs.clone());
    let scores = Supervised::new(
        forward,
        Loss::BinaryCrossEntropy,
        FixedBatches(vec![one_label]),
    )
    .metrics(&["clicks"])?
    .evaluate()?;
    assert_eq!(
        (scores.main(), scores.get("says_nothing")),
        (0.5, Some(1.0))
    );
    assert_eq!(scores.get("normalised_entropy"), None);
    assert!(
        scores.iter().all(|(_, value)| value.is_finite()),
        "{scores}"
    );
    Ok(())
}

/// An empty bag is zero, and so is a batch of nothing else: as in a batch where another sample has an id.
#[test]
fn bags_that_are_all_empty_are_zeros() -> Result<()> {
    let model = Dlrm::new(&config(), &start(DType::F64), Precision::F64)?;
    let dense = Tensor::new(&[[0.1f64, -0.2, 0.3, 0.4, 0.0, 1.0]; 2], &Device::Cpu)?;
    let bags = |ids: Vec<u32>, starts: Vec<u32>| Ids::Bags {
        ids,
        starts,
        pooling: Pooling::Sum,
    };
    let behind = bags(vec![3, 4], [vec![0; 6], vec![1; 5]].concat());
    assert_says(
        model.forward(&dense, &behind, &TRAIN).map(drop),
        &["starts of bags", "2 as the last", "1"],
    );
    let both = bags(vec![3], [vec![0; 6], vec![1; 5]].concat());
    let both = model.forward(&dense, &both, &TRAIN)?;
    let before = model.tables().to_tensor()?;
    let mut opt = Composite::new()
        .with("dense", AdaHessian::builder().lr(0.01).build(model.vars())?)
        .with(
            "tables",
            SparseOptimizer::new([model.tables()], SparseRule::adagrad(), 0.1)?,
        );
    for mode in [TRAIN, Mode::Eval] {
        let none = model.forward(&dense.narrow(0, 0, 1)?, &bags(vec![], vec![0; 6]), &mode)?;
        assert_close("logit", &none, &both.narrow(0, 0, 1)?, 1e-12)?;
    }
    let none = model.forward(&dense.narrow(0, 0, 1)?, &bags(vec![], vec![0; 6]), &TRAIN)?;
    opt.backward_step(&none.sqr()?.sum_all()?)?;
    assert_close("tables", &model.tables().to_tensor()?, &before, 0.0)
}
