//! One run from its plan to its summary.

use crate::parts;
use crate::plan::Plan;
use adahessian::ops::Mode;
use anyhow::Result;
use candle_core::{Device, Tensor};
use common::watch::{audited, watched};
use common::{layers, program};
use datasets::criteo::{ClickBatch, Store};
use models::Model;
use models::dlrm::{Dlrm, Ids};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use trainers::tasks::ClickPrediction;
use trainers::{Ahead, Outcome, RunFolder, Summary, TrainConfig, Trainer};

/// Trains, evaluates and saves. With `resume` it goes on from that folder or checkpoint.
pub fn run(
    plan: &Plan,
    store: &Store,
    resume: Option<&Path>,
    stop: &Arc<AtomicBool>,
) -> Result<Summary> {
    program::reset_peak_memory();
    let settings = &plan.settings;
    let train = parts::train_batches(plan, store)?;
    let eval_on = settings.eval_on.as_deref().unwrap_or("test");
    let evaluation = parts::evaluation(store, settings, eval_on, settings.limit_eval)?;
    let model = parts::model(plan, store, resume.is_none())?;
    let optimizer = parts::optimizer(plan, &model)?;
    let text = layers::text(settings)?;
    let folder = match resume {
        Some(path) => RunFolder::open(path)?,
        None => RunFolder::create(&plan.folder, &text)?,
    };
    println!(
        "{} with seed {}: {} rows to train on, {} of {eval_on}, {} parameters and {} rows of tables, \
         learning rates {} and {}",
        plan.optimizer,
        plan.seed,
        train.rows.len(),
        evaluation.0.rows.len(),
        model.vars().elem_count(),
        model.config().rows(),
        settings.lr.unwrap_or_default(),
        settings.table_lr.unwrap_or_default(),
    );
    let vars = model.vars();
    let task = ClickPrediction::new(forward(&model), evaluation);
    let batches = Ahead::new((train, Device::Cpu), settings.prefetch.unwrap_or(3));
    let batches = Arc::new(batches);
    let label = format!("{} seed {}", plan.optimizer, plan.seed);
    let trainer = Trainer::new(
        task,
        batches.clone(),
        &vars,
        Box::new(optimizer),
        config(plan)?,
    )?;
    let mut trainer = watched(trainer, &folder, text, &label, stop);
    if let Some(path) = resume {
        trainer.resume(path)?;
    }
    audited(&mut trainer, settings.audit)?;
    let summary = trainer.fit()?;
    let waited = batches.waited();
    println!(
        "  waited for rows: {:.3} s for the first batch, {:.3} s for the {} others",
        waited.first_seconds,
        waited.later_seconds,
        waited.batches.saturating_sub(1)
    );
    if let Outcome::Interrupted { .. } = summary.outcome {
        println!("  stopped at step {}", summary.steps);
    }
    Ok(summary)
}

/// The model as a function from a batch to logits.
pub fn forward(model: &Dlrm) -> impl Fn(&ClickBatch, &Mode) -> trainers::Result<Tensor> + use<> {
    let model = model.clone();
    move |batch, mode| {
        let ids = Ids::Single(batch.ids.clone());
        let logits = model.forward(&batch.dense, &ids, mode);
        logits.map_err(trainers::Error::user)
    }
}

fn config(plan: &Plan) -> Result<TrainConfig> {
    let settings = &plan.settings;
    Ok(TrainConfig {
        epochs: settings.epochs.unwrap_or(1),
        max_steps: settings.max_steps,
        micro_batches: settings.micro_batches.unwrap_or(1),
        curvature_fraction: settings.curvature_fraction.unwrap_or(1.0),
        schedule: settings.schedule.as_deref().unwrap_or("constant").parse()?,
        eval_every: settings.eval_every,
        checkpoint_every: settings.checkpoint_every,
        keep_checkpoints: 1, // with the tables they are large
        log_every: settings.log_every.unwrap_or(100),
        seed: plan.seed,
        ..TrainConfig::default()
    })
}
