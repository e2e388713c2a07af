//! One run from its plan to its summary.

use super::plan::Plan;
use super::{Benchmark, Data};
use crate::watch::{audited, watched};
use crate::{choose, program};
use adahessian::ops::Mode;
use adahessian::{Block, Blocks};
use anyhow::{Context, Result};
use candle_core::Device;
use datasets::{Batcher, ImageBatch, ImageBatches};
use models::resnet::Config;
use models::{Model, ResNet, Start};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use trainers::tasks::ImageClassification;
use trainers::{Outcome, Plateau, RunFolder, Summary, TrainConfig, Trainer};

/// Pictures in a batch of an evaluation: of CIFAR's size, and of ImageNet's. Few enough that the peak
/// memory is that of training.
const EVALUATION_BATCH: (usize, usize) = (100, 50);
/// Batches of an evaluation made ahead.
const EVALUATION_AHEAD: usize = 2;

/// Trains, evaluates and saves. With `resume` it goes on from that folder or checkpoint.
///
/// # Errors
/// With whatever part of it fails.
pub fn run(
    benchmark: &Benchmark,
    plan: &Plan,
    data: &Data,
    resume: Option<&Path>,
    stop: &Arc<AtomicBool>,
) -> Result<Summary> {
    program::reset_peak_memory();
    let settings = &plan.settings;
    let device = program::device(settings.device.as_deref().unwrap_or("cpu"))?;
    let model = Arc::new(model(plan, data, &device)?);
    let train = Arc::new(train_batches(plan, data, &device));
    let test = test_batches(data, &device);
    let steps = train.len() as u64;
    announce(plan, data, &model);

    let (network, replaced) = (model.clone(), Arc::new(AtomicUsize::new(0)));
    let count = replaced.clone();
    let forward = move |batch: &ImageBatch, mode: &Mode| {
        if matches!(mode, Mode::Train { micro: 0, .. }) {
            count.fetch_add(batch.replaced, Ordering::Relaxed);
        }
        let logits = network.forward(&batch.pixels, mode);
        logits.map_err(trainers::Error::user)
    };
    let mut task = ImageClassification::new(forward, test)
        .label_smoothing(settings.label_smoothing.unwrap_or_default());
    task.top = benchmark.top;
    let own = settings.for_optimizer(&plan.optimizer, plan.seed, steps);
    let optimizer =
        choose::optimizer_with(&plan.optimizer, &own, blocks(plan, &model)?, &model.vars())?;
    let text = settings.text()?;
    let folder = match resume {
        Some(path) => RunFolder::open(path)?,
        None => RunFolder::create(&plan.folder, &text)?,
    };
    let label = format!("{} seed {}", plan.optimizer, plan.seed);
    let saved = model.saved_vars();
    let trainer = Trainer::new(task, train.clone(), &saved, optimizer, config(plan, steps)?)?;
    let mut trainer = watched(trainer, &folder, text, &label, stop);
    if let Some(path) = resume {
        trainer.resume(path)?;
    }
    audited(&mut trainer, settings.audit)?;
    let summary = trainer.fit()?;
    finish(&summary, &folder, &model, &train)?;
    match replaced.load(Ordering::Relaxed) {
        0 => {}
        count => println!("  {count} times a picture that cannot be decoded was replaced"),
    }
    Ok(summary)
}

fn model(plan: &Plan, data: &Data, device: &Device) -> Result<ResNet> {
    let settings = &plan.settings;
    let name = settings.model.as_deref().unwrap_or("resnet20");
    let base = Config::named(name).with_context(|| format!("--model {name}"))?;
    let config = Config {
        classes: data.train.classes().len(),
        width: settings.width.unwrap_or(base.width),
        shortcut: settings.shortcut.as_deref().unwrap_or("b").parse()?,
        ..base
    };
    let start = Start {
        seed: plan.seed,
        device: device.clone(),
        new_head: true,
        ..Start::default()
    };
    Ok(match &settings.weights {
        Some(path) => ResNet::load(path, &config, &start)?.0,
        None => ResNet::new(&config, &start)?,
    })
}

fn blocks(plan: &Plan, model: &ResNet) -> Result<Blocks> {
    Ok(match plan.settings.block_size.as_deref() {
        None | Some("spatial") => model.blocks(),
        Some(text) => Blocks::matrices(text.parse::<Block>()?),
    })
}

fn train_batches(plan: &Plan, data: &Data, device: &Device) -> ImageBatches {
    let batcher = Batcher {
        batch_size: plan.settings.batch_size.unwrap_or(256),
        seed: plan.seed,
        ..Batcher::default()
    };
    let ahead = plan.settings.prefetch.unwrap_or(3);
    ImageBatches::new(
        data.train.clone(),
        batcher,
        data.train_augment,
        device,
        ahead,
    )
}

fn test_batches(data: &Data, device: &Device) -> ImageBatches {
    let is_small = data.test_augment.size().is_none_or(|size| size <= 64);
    let (small, large) = EVALUATION_BATCH;
    let batcher = Batcher {
        batch_size: if is_small { small } else { large },
        shuffle: false,
        ..Batcher::default()
    };
    let (test, augment) = (data.test.clone(), data.test_augment);
    ImageBatches::new(test, batcher, augment, device, EVALUATION_AHEAD)
}

fn config(plan: &Plan, steps_per_epoch: u64) -> Result<TrainConfig> {
    let settings = &plan.settings;
    let schedule = settings.schedule.as_deref().unwrap_or("constant");
    let plateau = Plateau {
        factor: 0.1,
        patience: 5,
    };
    let before_plateau = schedule.strip_suffix("plateau");
    Ok(TrainConfig {
        epochs: settings.epochs.unwrap_or(1),
        max_steps: settings.max_steps,
        micro_batches: settings.micro_batches.unwrap_or(1),
        curvature_fraction: settings.curvature_fraction.unwrap_or(1.0),
        schedule: match before_plateau {
            Some(warmup) => format!("{warmup}constant").parse()?,
            None => schedule.parse()?,
        },
        plateau: before_plateau.map(|_| plateau),
        log_every: settings
            .log_every
            .unwrap_or((steps_per_epoch / 50).clamp(1, 10)),
        seed: plan.seed,
        ..TrainConfig::default()
    })
}

fn announce(plan: &Plan, data: &Data, model: &ResNet) {
    println!(
        "{} with seed {}: {} training and {} test pictures, {} parameters, learning rate {}",
        plan.optimizer,
        plan.seed,
        data.train.len(),
        data.test.len(),
        model.vars().elem_count(),
        plan.settings.lr.unwrap_or_default(),
    );
}

fn finish(
    summary: &Summary,
    folder: &RunFolder,
    model: &ResNet,
    train: &ImageBatches,
) -> Result<()> {
    let waited = train.waited();
    println!(
        "  waited for pictures: {:.2} s for the first batch, {:.2} s for the {} others",
        waited.first_seconds,
        waited.later_seconds,
        waited.batches.saturating_sub(1)
    );
    match summary.outcome {
        Outcome::Interrupted { .. } => println!("  stopped at step {}", summary.steps),
        _ => model
            .save(&folder.path().join("model"))
            .context("saving the model")?,
    }
    Ok(())
}
