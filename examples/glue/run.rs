//! One run from its plan to its summary.

use crate::parts::{self, Glue};
use crate::plan::Plan;
use anyhow::{Context, Result};
use common::watch::{audited, watched};
use common::{choose, program};
use datasets::{Batcher, TextDataset};
use models::Model;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use trainers::callbacks::peak_memory_mib;
use trainers::tasks::TextBatches;
use trainers::{Outcome, RunFolder, Summary, TrainConfig, Trainer};

/// What a run gives to the table.
pub struct Finished {
    pub summary: Summary,
    pub peak_memory_mib: Option<f64>,
}

/// Trains, evaluates and saves. With `resume` it goes on from that folder or checkpoint.
pub fn run(plan: &Plan, resume: Option<&Path>, stop: &Arc<AtomicBool>) -> Result<Finished> {
    program::reset_peak_memory();
    let settings = &plan.settings;
    let device = program::device(settings.device.as_deref().unwrap_or("cpu"))?;
    // First the model: a mistyped path shows before anything is downloaded.
    let checkpoint = settings
        .model
        .as_deref()
        .map(parts::checkpoint_folder)
        .transpose()?;
    let rows = parts::rows(settings, plan.task)?;
    let model = parts::model(settings, checkpoint.as_deref(), plan.task, &rows, &device)?;
    announce(plan, &rows, &model);
    let train = TextDataset::encode(&model.encoder, &rows.train)?;
    let batcher = Batcher {
        batch_size: settings.batch_size.unwrap_or(16),
        seed: settings.seed.unwrap_or(0),
        bucket: settings.bucket,
        ..Batcher::default()
    };
    let (task, handle) = Glue::new(plan.task, model, &rows, &device)?;
    let vars = task.vars.clone();
    let optimizer = choose::optimizer(&plan.optimizer, settings, &vars)?;
    let text = settings.text()?;
    let folder = match resume {
        Some(path) => RunFolder::open(path)?,
        None => RunFolder::create(&plan.folder, &text)?,
    };
    let label = format!("{} {}", plan.task, plan.optimizer);
    let batches = TextBatches::new(train, batcher, &device);
    let trainer = Trainer::new(task, batches, &vars, optimizer, config(plan)?)?;
    let mut trainer = watched(trainer, &folder, text, &label, stop);
    if let Some(path) = resume {
        trainer.resume(path)?;
    }
    audited(&mut trainer, settings.audit)?;
    let summary = trainer.fit()?;
    if let Outcome::Interrupted { .. } = summary.outcome {
        println!(
            "stopped at step {}; go on with --resume {}",
            summary.steps,
            folder.path().display()
        );
    } else {
        handle
            .save(&folder.path().join("model"))
            .context("saving the model")?;
    }
    Ok(Finished {
        summary,
        peak_memory_mib: peak_memory_mib(),
    })
}

fn announce(plan: &Plan, rows: &parts::Rows, model: &parts::Model) {
    let settings = &plan.settings;
    let validation: Vec<String> = rows
        .validation
        .iter()
        .map(|(_, rows)| rows.len().to_string())
        .collect();
    println!(
        "{} with {}: {} training and {} validation examples, {:.1} M parameters, learning rate {}",
        plan.task,
        plan.optimizer,
        rows.train.len(),
        validation.join(" + "),
        model.classifier.vars().elem_count() as f64 / 1e6,
        settings.lr.unwrap_or_default(),
    );
    if let Some(report) = &model.report {
        println!(
            "  {} tensors loaded, fresh: {}, not used: {}",
            report.loaded.len(),
            or_none(&report.initialised),
            or_none(&report.unused)
        );
    }
}

fn or_none(names: &[String]) -> String {
    match names {
        [] => "none".into(),
        names => names.join(", "),
    }
}

fn config(plan: &Plan) -> Result<TrainConfig> {
    let settings = &plan.settings;
    Ok(TrainConfig {
        epochs: settings.epochs.unwrap_or(1),
        max_steps: settings.max_steps,
        micro_batches: settings.micro_batches.unwrap_or(1),
        curvature_fraction: settings.curvature_fraction.unwrap_or(1.0),
        schedule: settings.schedule.as_deref().unwrap_or("linear").parse()?,
        eval_every: settings.eval_every,
        checkpoint_every: settings.checkpoint_every,
        log_every: settings.log_every.unwrap_or(10),
        patience: settings.patience,
        seed: settings.seed.unwrap_or(0),
        ..TrainConfig::default()
    })
}
