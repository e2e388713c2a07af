//! Running statistics of batch normalisations, and streams of random numbers: once for each purpose.

use adahessian::engine::Handle;
use adahessian::nn;
use adahessian::ops::Mode;
use adahessian::ops::{
    Activation, BatchNorm, Convolution, RunningStatistics, conv_batch_norm, statistics_at_rest,
};
use adahessian::{
    AdaHessian, FiniteDifference, Hutchinson, LinearOperator, NamedVars, Probe, check,
};
use anyhow::Result;
use candle_core::{DType, Device, ModuleT, Tensor};
use models::{Model, SequenceClassifier, Start, squeezebert};
use testing::twins::{random, vars};
use testing::{assert_close, assert_says};
use trainers::{FixedBatches, Loss, Supervised, TensorBatch, TrainConfig, Trainer};

fn model() -> Result<NamedVars> {
    vars(&[("kernel", &[2, 1, 3, 3]), ("scale", &[2]), ("shift", &[2])])
}

fn forward(
    vars: &NamedVars,
    running: &RunningStatistics,
    x: &Tensor,
) -> adahessian::Result<Tensor> {
    let norm = BatchNorm::new(vars.get("scale")?, vars.get("shift")?, running, true);
    let conv = Convolution::new(1, 1);
    let x = Handle::enter(x)?;
    let y = conv_batch_norm(
        &x,
        vars.get("kernel")?,
        &conv,
        &norm,
        None,
        Activation::Silu,
    )?;
    Ok(y.exit()?.mean((1, 2, 3))?)
}

fn batch() -> Result<TensorBatch> {
    Ok(TensorBatch {
        inputs: random("images", &[8, 1, 4, 4])?,
        labels: random("labels", &[8])?,
    })
}

/// The statistics after one step of the trainer.
fn after_a_step(config: TrainConfig) -> Result<RunningStatistics> {
    let (vars, running) = (
        model()?,
        RunningStatistics::new(2, DType::F64, &Device::Cpu)?,
    );
    let optimizer = AdaHessian::builder().lr(1e-3).build(&vars)?;
    let (theirs, inner) = (vars.clone(), running.clone());
    let forward = move |batch: &TensorBatch, _: &Mode| {
        forward(&theirs, &inner, &batch.inputs).map_err(trainers::Error::user)
    };
    let task = Supervised::new(forward, Loss::SquaredError, FixedBatches(vec![]))
        .metrics(&["pearson_spearman"])?;
    let config = TrainConfig {
        max_steps: Some(1),
        eval_every: Some(u64::MAX),
        ..config
    };
    let mut trainer = Trainer::new(
        task,
        FixedBatches(vec![batch()?]),
        &vars,
        Box::new(optimizer),
        config,
    )?;
    // Its only step is the last one, which evaluates; here on nothing, which is an error of its own.
    assert_says(trainer.fit(), &["at least one example to evaluate on"]);
    Ok(running)
}

/// A step on it is skipped, and the statistics with it.
#[test]
fn a_batch_that_is_not_finite_moves_no_running_statistics() -> Result<()> {
    let vars = model()?;
    let running = RunningStatistics::new(2, DType::F64, &Device::Cpu)?;
    forward(&vars, &running, &batch()?.inputs)?;
    let read = |running: &RunningStatistics| -> Result<[Vec<f64>; 2]> {
        Ok([running.mean.to_vec1()?, running.variance.to_vec1()?])
    };
    let before = read(&running)?;
    for bad in [f64::NAN, f64::INFINITY] {
        let inputs = (batch()?.inputs * bad)?;
        forward(&vars, &running, &inputs)?;
        assert_eq!(read(&running)?, before);
    }
    forward(&vars, &running, &batch()?.inputs)?;
    assert_ne!(read(&running)?, before);
    Ok(())
}

#[test]
fn a_curvature_on_a_part_moves_the_running_statistics_once() -> Result<()> {
    let (vars, expected) = (
        model()?,
        RunningStatistics::new(2, DType::F64, &Device::Cpu)?,
    );
    forward(&vars, &expected, &batch()?.inputs)?;
    for curvature_fraction in [1.0, 0.5] {
        let running = after_a_step(TrainConfig {
            curvature_fraction,
            ..TrainConfig::default()
        })?;
        assert_close("mean", &running.mean, &expected.mean, 1e-14)?;
        assert_close("variance", &running.variance, &expected.variance, 1e-14)?;
    }
    // Micro-batches move them one after the other, as PyTorch's do.
    let running = after_a_step(TrainConfig {
        micro_batches: 2,
        ..TrainConfig::default()
    })?;
    let halves = RunningStatistics::new(2, DType::F64, &Device::Cpu)?;
    for start in [0, 4] {
        forward(&vars, &halves, &batch()?.inputs.narrow(0, start, 4)?)?;
    }
    assert_close("mean of micro-batches", &running.mean, &halves.mean, 1e-14)
}

/// It is its own mean: the result would be β, whatever it is.
#[test]
fn one_value_a_channel_has_no_statistics() -> Result<()> {
    let running = RunningStatistics::new(2, DType::F64, &Device::Cpu)?;
    let small = vars(&[("kernel", &[2, 1, 3, 3]), ("scale", &[2]), ("shift", &[2])])?;
    let one = random("pixel", &[1, 1, 1, 1])?;
    assert_says(
        forward(&small, &running, &one).map(drop),
        &["batch of a normalisation", "more than one value a channel"],
    );
    assert_eq!(running.variance.to_vec1::<f64>()?, [1.0, 1.0]);
    let of = |value: f64| Tensor::full(value, 3, &Device::Cpu);
    let norm = nn::BatchNorm::new(3, of(0.0)?, of(1.0)?, of(1.0)?, of(0.0)?, 1e-5)?;
    let one = random("row", &[1, 3])?;
    assert_says(
        norm.forward_train(&one).map(drop),
        &["batch of a normalisation", "more than one value a channel"],
    );
    assert_eq!(norm.running_var().to_vec1::<f64>()?, [1.0; 3]);
    norm.forward_t(&one, false)?;
    Ok(())
}

#[test]
fn statistics_at_rest_stay() -> Result<()> {
    let (vars, running) = (
        model()?,
        RunningStatistics::new(2, DType::F64, &Device::Cpu)?,
    );
    let images = batch()?.inputs;
    let moved = |running: &RunningStatistics| -> Result<bool> {
        Ok(running.mean.to_vec1::<f64>()? != [0.0, 0.0])
    };
    statistics_at_rest(|| forward(&vars, &running, &images))?;
    assert!(!moved(&running)?);
    let audit = check::audit(&vars, || {
        Ok(forward(&vars, &running, &images)?.sqr()?.sum_all()?)
    })?;
    assert_eq!(audit.variables, 3);
    assert!(!moved(&running)?);
    // A panic inside does not leave them at rest for ever.
    let panic = std::panic::catch_unwind(|| statistics_at_rest(|| panic!("inside")));
    assert!(panic.is_err());
    forward(&vars, &running, &images)?;
    assert!(moved(&running)?);
    Ok(())
}

/// A probe that is the weights' own noise would make zᵀHz a curvature along the weights.
#[test]
fn first_weights_and_first_probes_are_independent() -> Result<()> {
    let start = Start {
        seed: 5,
        dtype: DType::F64,
        ..Start::default()
    };
    let model = SequenceClassifier::new(&squeezebert::Config::mini().architecture()?, 2, &start)?;
    let draw = Hutchinson::new(1, 5).with_probe(Probe::Gaussian);
    let (vars, mut compared) = (model.vars(), 0);
    let probe = draw.probe(&vars, 0)?;
    for ((name, var), z) in vars.iter().zip(probe.tensors()) {
        let drawn = var.sqr()?.sum_all()?.to_scalar::<f64>()? > 0.0;
        if var.elem_count() < 500 || !drawn {
            continue; // too few to tell, or the zeros of a bias
        }
        let product = (var.as_tensor() * z)?.sum_all()?.to_scalar::<f64>()?;
        let norm = |t: &Tensor| t.sqr()?.sum_all()?.to_scalar::<f64>();
        let correlation = product / (norm(var)? * norm(z)?).sqrt();
        // Three to four standard deviations.
        let limit = 4.0 / (var.elem_count() as f64).sqrt();
        assert!(correlation.abs() < limit, "{name}: {correlation}");
        compared += 1;
    }
    assert!(compared > 5, "{compared}");
    Ok(())
}

/// The losses of a check are no steps of the training.
#[test]
fn checks_leave_running_statistics_as_they_are() -> Result<()> {
    let (vars, x) = (model()?, batch()?.inputs);
    let running = RunningStatistics::new(2, DType::F64, &Device::Cpu)?;
    let loss = || Ok(forward(&vars, &running, &x)?.sqr()?.sum_all()?);
    let before = [running.mean.copy()?, running.variance.copy()?];
    check::all_reached(&vars, loss)?;
    check::gradient(&vars, 1e-5, loss)?;
    check::hessian(&vars, 1e-4, loss)?;
    FiniteDifference::new(&vars, loss).apply(&vars.snapshot()?)?;
    assert_close("mean", running.mean.as_tensor(), &before[0], 0.0)?;
    assert_close("variance", running.variance.as_tensor(), &before[1], 0.0)?;
    loss()?;
    assert!(testing::relative_error(&before[0], running.mean.as_tensor())? > 0.5);
    Ok(())
}
