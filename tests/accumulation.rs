//! What a batch contributes to a step: micro-batches, parts for the curvature, batches of texts.

use adahessian::ops::{self, Mode};
use adahessian::{AdaHessian, Hessian, Hutchinson, LinearOperator, NamedVars, VarVec};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use datasets::{TextBatches, UNLABELLED};
use testing::{assert_close, assert_says};
use trainers::{Batches, Error, TrainConfig, Trainer};
use trainers::{FixedBatches, LabelledBatch, Loss, Supervised, TensorBatch};

const LR: f64 = 0.05;
const SEED: u64 = 11;

fn random(name: &str, shape: &[usize]) -> Result<Tensor> {
    Ok(
        adahessian::random::Stream::new(1, name, 0, 0).normal_tensor(
            shape,
            DType::F64,
            &Device::Cpu,
        )?,
    )
}

/// A network with one hidden layer, in f64.
fn network() -> Result<NamedVars> {
    let var = |name: &str, shape: &[usize]| -> Result<(String, Var)> {
        Ok((name.into(), Var::from_tensor(&random(name, shape)?)?))
    };
    Ok(NamedVars::new([
        var("hidden", &[4, 3])?,
        var("output", &[1, 4])?,
    ])?)
}

fn forward(vars: &NamedVars, inputs: &Tensor) -> Result<Tensor> {
    let hidden = inputs.matmul(&vars.get("hidden")?.t()?)?.tanh()?; // [n, 4]
    Ok(hidden.matmul(&vars.get("output")?.t()?)?.flatten_all()?) // [n]
}

fn batch() -> Result<TensorBatch> {
    Ok(TensorBatch {
        inputs: random("inputs", &[10, 3])?,
        labels: random("labels", &[10])?,
    })
}

/// The network after one step of the trainer.
fn trained(config: TrainConfig) -> Result<NamedVars> {
    let (vars, batch) = (network()?, batch()?);
    let model = vars.clone();
    let forward =
        move |batch: &TensorBatch, _: &Mode| forward(&model, &batch.inputs).map_err(Error::user);
    let task = Supervised::new(
        forward,
        Loss::SquaredError,
        FixedBatches(vec![batch.clone()]),
    )
    .metrics(&["pearson_spearman"])?;
    let optimizer = AdaHessian::builder().lr(LR).seed(SEED).build(&vars)?;
    let config = TrainConfig {
        max_steps: Some(1),
        ..config
    };
    Trainer::new(
        task,
        FixedBatches(vec![batch]),
        &vars,
        Box::new(optimizer),
        config,
    )?
    .fit()?;
    Ok(vars)
}

/// Gradient and z ⊙ Hz on the examples `start .. start + len`.
fn by_hand(vars: &NamedVars, start: usize, len: usize) -> Result<(VarVec, VarVec)> {
    let part = batch()?.narrow(start, len)?;
    let loss = ops::mse(&forward(vars, &part.inputs)?, part.labels()?)?;
    let hessian = Hessian::of(&loss, vars)?;
    let probe = Hutchinson::new(1, SEED).probe(vars, 0)?;
    Ok((
        hessian.gradient()?,
        hessian.apply(&probe)?.hadamard(&probe)?,
    ))
}

/// θ - η g / (|D| + ε): what the first step of AdaHessian comes to after its bias corrections.
fn expect_step(vars: &NamedVars, gradient: &VarVec, diagonal: &VarVec) -> Result<()> {
    for (name, start) in network()?.iter() {
        let denominator = (diagonal.get(name)?.abs()? + 1e-4)?;
        let expected = (start.as_tensor() - ((gradient.get(name)? / denominator)? * LR)?)?;
        assert_close(name, vars.get(name)?.as_tensor(), &expected, 1e-11)?;
    }
    Ok(())
}

#[test]
fn micro_batches_contribute_their_own_gradient_and_curvature() -> Result<()> {
    let start = network()?;
    let (mut gradient, mut diagonal) = (VarVec::zeros(&start)?, VarVec::zeros(&start)?);
    // Ten examples in four parts.
    for (first, len) in [(0, 3), (3, 3), (6, 2), (8, 2)] {
        let (g, d) = by_hand(&start, first, len)?;
        gradient = gradient.add_scaled(&g, len as f64 / 10.0)?;
        diagonal = diagonal.add_scaled(&d, len as f64 / 10.0)?;
    }
    let vars = trained(TrainConfig {
        micro_batches: 4,
        ..TrainConfig::default()
    })?;
    expect_step(&vars, &gradient, &diagonal)?;
    // The mean of the parts is the whole, here where the loss is a mean over examples.
    let (whole, _) = by_hand(&start, 0, 10)?;
    assert_close(
        "hidden",
        gradient.get("hidden")?,
        whole.get("hidden")?,
        1e-12,
    )?;
    // More parts than examples: one example each.
    trained(TrainConfig {
        micro_batches: 64,
        ..TrainConfig::default()
    })?;
    Ok(())
}

#[test]
fn curvature_from_a_fraction_of_the_examples() -> Result<()> {
    let start = network()?;
    let (gradient, _) = by_hand(&start, 0, 10)?;
    // Three of ten examples; four windows cover them all.
    let mut drawn = [0; 4];
    for seed in 0..24 {
        let vars = trained(TrainConfig {
            curvature_fraction: 0.21,
            seed,
            ..TrainConfig::default()
        })?;
        for (drawn, first) in drawn.iter_mut().zip([0, 2, 4, 7]) {
            let (_, diagonal) = by_hand(&start, first, 3)?;
            *drawn += usize::from(expect_step(&vars, &gradient, &diagonal).is_ok());
        }
    }
    assert_eq!(drawn.iter().sum::<usize>(), 24, "{drawn:?}");
    assert!(drawn.iter().all(|&count| count > 0), "{drawn:?}");
    Ok(())
}

#[test]
fn text_batches_follow_the_batcher() -> Result<()> {
    let example = |i: u32| datasets::Encoded {
        ids: (0..=i % 3).map(|_| i + 1).collect(),
        types: vec![0; (i % 3 + 1) as usize],
        label: Some(datasets::Label::Class(i % 2)),
    };
    let data = datasets::TextDataset {
        examples: (0..10).map(example).collect(),
        pad_id: 0,
    };
    let batcher = datasets::Batcher {
        batch_size: 4,
        seed: 5,
        ..Default::default()
    };
    let batches = TextBatches::new(data.clone(), batcher, &Device::Cpu);
    assert_eq!((batches.len(0), batches.is_empty(7)), (3, false));
    for epoch in [0, 1, 0] {
        let order = batcher.order(&data.lengths(), epoch);
        for index in [2, 0, 1] {
            let first: Vec<u32> = batches
                .get(epoch, index)?
                .input_ids
                .narrow(1, 0, 1)?
                .flatten_all()?
                .to_vec1()?;
            let expected: Vec<u32> = order[index].iter().map(|i| *i as u32 + 1).collect();
            assert_eq!(first, expected);
        }
    }
    assert_says(batches.get(0, 3), &["batch 3", "3 batches"]);
    let in_order = TextBatches::in_order(&data, 4, &Device::Cpu)?;
    assert_eq!(
        in_order.iter().map(|b| b.len()).collect::<Vec<_>>(),
        [4, 4, 2]
    );
    Ok(())
}

/// Of labels of every integer type those count that are some.
#[test]
fn labels_of_any_integer_type_weigh_alike() -> Result<()> {
    let labels = [[0u32, UNLABELLED, 2], [UNLABELLED, UNLABELLED, UNLABELLED]];
    let labels = Tensor::new(&labels, &Device::Cpu)?;
    for dtype in [DType::U32, DType::I64] {
        let batch = TensorBatch {
            inputs: Tensor::zeros((2, 3), DType::F64, &Device::Cpu)?,
            labels: labels.to_dtype(dtype)?,
        };
        assert_eq!(batch.weight()?, 2.0, "{dtype:?}");
        assert_eq!(batch.narrow(1, 1)?.weight()?, 0.0, "{dtype:?}");
    }
    Ok(())
}
