//! Which runs to make, each with all of its settings.

use anyhow::{Result, bail};
use common::choose::{self, Origin};
use common::settings::{Settings, list};
use datasets::GlueTask;
use std::path::{Path, PathBuf};

/// One run: a task, an optimizer, a folder, and settings that leave nothing open.
#[derive(Clone, Debug)]
pub struct Plan {
    pub task: GlueTask,
    pub optimizer: String,
    pub folder: PathBuf,
    pub settings: Settings,
}

/// The runs that the settings ask for: every task with every optimizer. A single run owns the
/// output folder, several get a folder each below it.
pub fn plans(settings: &Settings, out: &Path) -> Result<Vec<Plan>> {
    let tasks = tasks(settings.task.as_deref().unwrap_or("sst2"))?;
    let default = match settings.model {
        Some(_) => "adahessian",
        None => "adahessian,adamw",
    };
    let optimizers = list(settings.optimizer.as_deref().unwrap_or(default));
    optimizers.iter().try_for_each(|name| choose::check(name))?;
    let mut plans = Vec::new();
    for task in &tasks {
        for optimizer in &optimizers {
            let folder = match tasks.len() * optimizers.len() {
                1 => out.to_path_buf(),
                _ => out.join(format!("{task}-{optimizer}")),
            };
            plans.push(Plan {
                task: *task,
                optimizer: optimizer.clone(),
                folder,
                settings: resolved(settings, *task, optimizer)?,
            });
        }
    }
    match plans.is_empty() {
        true => bail!("--task and --optimizer: expected at least one of each"),
        false => Ok(plans),
    }
}

fn tasks(text: &str) -> Result<Vec<GlueTask>> {
    // MNLI is evaluated on both of its validation sets in one run.
    let all = [
        GlueTask::Rte,
        GlueTask::Mrpc,
        GlueTask::Stsb,
        GlueTask::Sst2,
        GlueTask::Qnli,
        GlueTask::Qqp,
        GlueTask::Mnli,
        GlueTask::Cola,
    ];
    let mut tasks = Vec::new();
    for name in list(text) {
        match name.as_str() {
            "all" => tasks.extend(all),
            name => tasks.push(name.parse()?),
        }
    }
    Ok(tasks)
}

/// The settings of one run: what was asked for over the defaults of the task and the optimizer.
fn resolved(settings: &Settings, task: GlueTask, optimizer: &str) -> Result<Settings> {
    let origin = match settings.model {
        Some(_) => Origin::Pretrained,
        None => Origin::Scratch,
    };
    let epochs = match (origin, task) {
        (Origin::Scratch, _) => 8,
        (_, GlueTask::Rte | GlueTask::Stsb) => 10,
        _ => 5,
    };
    let defaults = Settings {
        max_length: Some(128),
        schedule: Some("linear".into()),
        lr: Some(choose::default_lr(optimizer, origin)?),
        weight_decay: Some(choose::default_decay(optimizer)?),
        epochs: Some(epochs),
        batch_size: Some(16),
        micro_batches: Some(1),
        seed: Some(0),
        log_every: Some(10),
        device: Some("cpu".into()),
        ..Settings::default()
    };
    let own = Settings {
        task: Some(task.to_string()),
        optimizer: Some(optimizer.into()),
        ..Settings::default()
    };
    let hessian = Settings {
        hessian_every: Some(1),
        hessian_first: Some(0),
        hessian_power: Some(1.0),
        block_size: Some("4".into()),
        average: Some("absolute".into()),
        samples: Some(1),
        eps: Some(1e-4),
        curvature_fraction: Some(1.0),
        ..Settings::default()
    };
    let resolved = own.over(settings)?.over(&defaults)?;
    match optimizer {
        "adahessian" => resolved.over(&hessian),
        _ => Ok(resolved),
    }
}
