//! Training residual networks: metrics, the task, and resumption bit for bit.

use adahessian::ops::Mode;
use adahessian::{AdaHessian, Common, NamedVars, Optim, Rule, Sgd};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use datasets::{Augment, Batcher, Crop, ImageBatch, ImageBatches, ImageDataset};
use models::resnet::{Config, ResNet, Shortcut, Stem, Unit};
use models::{Model, Start};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use testing::{assert_number, assert_says};
use trainers::metrics::top_k_hits;
use trainers::{
    Ahead, Batches, FixedBatches, Loss, RunFolder, Supervised, Task, TensorBatch, TrainConfig,
    Trainer,
};

const CPU: Device = Device::Cpu;

#[test]
fn top_k_counts_ranks_and_ties_by_class() -> Result<()> {
    let logits = Tensor::new(
        &[
            [0.1f32, 0.9, 0.5, 0.4],
            [2.0, 2.0, 2.0, 2.0],
            [1.0, f32::NAN, 3.0, 0.0],
        ],
        &CPU,
    )?;
    let hits = |labels: [u32; 3], k| top_k_hits(&logits, &Tensor::new(&labels, &CPU)?, k);
    // Ranks from 0: 1 is first, 2 second; of equals the lower class; beside a NaN one later.
    assert_eq!(hits([1, 0, 2], 1)?, 2);
    assert_eq!(hits([2, 1, 2], 1)?, 0);
    assert_eq!(hits([2, 1, 2], 2)?, 3);
    assert_eq!(hits([0, 3, 1], 3)?, 0);
    assert_eq!(hits([0, 3, 1], 4)?, 2);
    assert_eq!(hits([0, 3, 1], 5)?, 2);
    assert_says(hits([0, 4, 0], 1), &["top-k", "4 of 4 classes"]);
    let short = top_k_hits(&logits, &Tensor::new(&[0u32, 1], &CPU)?, 1);
    assert_says(short, &["[3, 4]", "[2]"]);
    Ok(())
}

#[test]
fn an_evaluation_weighs_batches_by_their_size() -> Result<()> {
    // The inputs are the logits. Right: rows 0, 1, 3 first, row 2 second.
    let rows = [
        [2f32, 0.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 3.0, 1.0],
        [0.0, 0.0, 4.0],
    ];
    let labels = [0u32, 1, 2, 2];
    let batch = |range: std::ops::Range<usize>| -> Result<TensorBatch> {
        Ok(TensorBatch {
            inputs: Tensor::new(rows[range.clone()].as_flattened(), &CPU)?.reshape(((), 3))?,
            labels: Tensor::new(&labels[range], &CPU)?,
        })
    };
    let forward = |batch: &TensorBatch, _: &Mode| Ok(batch.inputs.clone());
    let batches = vec![batch(0..3)?, batch(3..4)?];
    let scores = Supervised::new(forward, Loss::CROSS_ENTROPY, FixedBatches(batches))
        .metrics(&["accuracy", "top2"])?
        .evaluate()?;
    assert_eq!(scores.get("accuracy"), Some(0.75));
    assert_eq!(scores.get("top2"), Some(1.0));
    let loss = |row: &[f32; 3], label: u32| {
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        sum.ln() - f64::from(row[label as usize])
    };
    let mean = rows
        .iter()
        .zip(labels)
        .map(|(r, l)| loss(r, l))
        .sum::<f64>()
        / 4.0;
    assert_number("loss", scores.get("loss").context("no loss")?, mean, 1e-6)?;
    let nothing = Supervised::new(
        forward,
        Loss::CROSS_ENTROPY,
        FixedBatches(Vec::<TensorBatch>::new()),
    )
    .metrics(&["accuracy"])?;
    assert_says(nothing.evaluate(), &["at least one example"]);
    Ok(())
}

// ---- resumption -----------------------------------------------------------------------------

/// Twenty pictures of 8x8 in three classes.
fn pictures() -> Result<ImageDataset> {
    let pixels = (0..20 * 8 * 8 * 3).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    let names = ["a", "b", "c"].map(String::from).to_vec();
    let labels = (0..20).map(|i| i % 3).collect();
    Ok(ImageDataset::from_pixels(
        names,
        (8, 8),
        pixels.collect(),
        labels,
    )?)
}

fn batches(shuffle: bool, ahead: usize) -> Result<Ahead<ImageBatches>> {
    let batcher = Batcher {
        batch_size: 8,
        seed: 3,
        shuffle,
        ..Batcher::default()
    };
    let augment = match shuffle {
        true => Augment {
            crop: Crop::Padded {
                size: 8,
                padding: 2,
            },
            ..Augment::cifar_train()
        },
        false => Augment::cifar_test(),
    };
    let batches = ImageBatches::new(pictures()?, batcher, augment, &CPU);
    Ok(Ahead::new(batches, ahead))
}

fn optimizer(name: &str, model: &ResNet) -> Result<Box<dyn Optim>> {
    let vars = model.vars();
    Ok(match name {
        "sgd" => {
            let common = Common {
                weight_decay: 0.1,
                ..Common::new(0.05)
            };
            Box::new(Sgd::default().with(common).build(&vars)?)
        }
        _ => {
            let builder = AdaHessian::builder().lr(0.15).weight_decay(0.1).every(2);
            Box::new(builder.blocks(model.blocks()).build(&vars)?)
        }
    })
}

/// Runs to `steps` steps, from the start or from what the folder holds; the bits of all saved
/// variables.
fn run(name: &str, folder: &Path, steps: u64, ahead: usize) -> Result<BTreeMap<String, Vec<u32>>> {
    let config = Config {
        stem: Stem::Cifar,
        unit: Unit::Basic,
        stages: vec![1, 1],
        width: 4,
        shortcut: Shortcut::Projection,
        classes: 3,
    };
    let model = Arc::new(ResNet::new(&config, &Start::default())?);
    let network = model.clone();
    let forward = move |batch: &ImageBatch, mode: &Mode| {
        let logits = network.forward(&batch.pixels, mode);
        logits.map_err(trainers::Error::user)
    };
    let task = Supervised::new(forward, Loss::CROSS_ENTROPY, batches(false, ahead)?)
        .metrics(&["accuracy"])?;
    let settings = TrainConfig {
        epochs: 4,
        max_steps: Some(steps),
        micro_batches: 2,
        ..TrainConfig::default()
    };
    let resumes = folder.exists();
    let run_folder = match resumes {
        true => RunFolder::open(folder)?,
        false => RunFolder::create(folder, "")?,
    };
    let (train, saved) = (Arc::new(batches(true, ahead)?), model.saved_vars());
    let optimizer = optimizer(name, &model)?;
    let mut trainer =
        Trainer::new(task, train, &saved, optimizer, settings)?.run_folder(&run_folder, "");
    if resumes {
        trainer.resume(folder)?;
    }
    trainer.fit()?;
    bits(&saved)
}

fn bits(vars: &NamedVars) -> Result<BTreeMap<String, Vec<u32>>> {
    let all = vars.iter().map(|(name, var)| {
        let values = var.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        Ok((name.into(), values.into_iter().map(f32::to_bits).collect()))
    });
    all.collect()
}

#[test]
fn a_resumed_run_has_the_bits_of_an_undisturbed_one() -> Result<()> {
    for name in ["sgd", "adahessian"] {
        let folder = tempfile::tempdir()?;
        let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
        let expected = run(name, &whole, 10, 0)?;
        let early = run(name, &parts, 4, 2)?; // in the middle of the second epoch
        let late = run(name, &parts, 10, 2)?;
        assert_eq!(late, expected, "{name}");
        // The statistics have moved, and are part of what was saved: PyTorch's start is 0 and 1.
        let mean = "layer2.0.downsample.1.running_mean";
        assert!(early[mean] != late[mean] && early[mean].iter().all(|bits| *bits != 0));
    }
    Ok(())
}

#[test]
fn no_optimizer_touches_the_running_statistics() -> Result<()> {
    let config = Config::cifar(8)?;
    let model = ResNet::new(&Config { width: 2, ..config }, &Start::default())?;
    let batch = batches(true, 0)?.get(0, 0)?;
    let mode = Mode::Train {
        seed: 0,
        step: 0,
        micro: 0,
    };
    // Even where it is given all variables: no gradient reaches the statistics.
    let all = model.saved_vars();
    for name in ["sgd", "adahessian"] {
        let common = Common {
            weight_decay: 0.1,
            ..Common::new(0.05)
        };
        let mut optimizer: Box<dyn Optim> = match name {
            "sgd" => Box::new(Sgd::default().with(common).build(&all)?),
            _ => Box::new(AdaHessian::builder().weight_decay(0.1).build(&all)?),
        };
        let logits = model.forward(&batch.pixels, &mode)?;
        let loss = adahessian::ops::cross_entropy(&logits, &batch.labels, 0.0, None)?;
        let before = bits(&all)?;
        optimizer.backward_step(&loss)?;
        for (variable, after) in bits(&all)? {
            let moved = after != before[&variable];
            assert_eq!(moved, !variable.contains("running"), "{name}: {variable}");
        }
    }
    Ok(())
}

#[test]
fn batches_have_the_trait_of_the_loop() -> Result<()> {
    let batches = batches(true, 1)?;
    assert_eq!(Batches::len(&batches, 5), 3);
    let (first, again) = (Batches::get(&batches, 1, 2)?, Batches::get(&batches, 1, 2)?);
    let values = |b: &ImageBatch| b.pixels.flatten_all()?.to_vec1::<f32>();
    assert_eq!(first.labels.to_vec1::<u32>()?.len(), 4); // 20 = 8 + 8 + 4
    assert_eq!(values(&first)?, values(&again)?);
    Ok(())
}
