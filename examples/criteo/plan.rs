//! Which runs to make, each with all of its settings.

use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use common::choose::{self, Optimizer};
use common::layers;
use common::settings::list;
use std::path::{Path, PathBuf};

/// One run: an optimizer, a seed, a folder, and settings that leave nothing open.
#[derive(Clone, Debug)]
pub struct Plan {
    pub optimizer: String,
    pub seed: u64,
    pub folder: PathBuf,
    pub settings: Settings,
}

/// The runs that the settings ask for: every optimizer with every seed, seed by seed. A single run owns
/// the output folder, several get a folder each below it.
pub fn plans(settings: &Settings, out: &Path) -> Result<Vec<Plan>> {
    let optimizers = list(settings.optimizer.as_deref().unwrap_or("adahessian"));
    optimizers.iter().try_for_each(|name| choose::check(name))?;
    let seeds = list(settings.seed.as_deref().unwrap_or("0"));
    let mut plans = Vec::new();
    for seed in &seeds {
        for optimizer in &optimizers {
            let folder = match seeds.len() * optimizers.len() {
                1 => out.to_path_buf(),
                _ => out.join(format!("{optimizer}-seed{seed}")),
            };
            plans.push(Plan {
                optimizer: optimizer.clone(),
                seed: seed.parse().with_context(|| format!("--seed {seed}"))?,
                folder,
                settings: resolved(settings, optimizer, seed)?,
            });
        }
    }
    match plans.len() {
        0 => bail!("--optimizer and --seed: expected at least one of each"),
        1 => Ok(plans),
        _ if settings.table_file.is_some() => {
            bail!("--table-file: one file cannot hold the tables of several runs")
        }
        _ => Ok(plans),
    }
}

/// The settings of one run: what was asked for over the paper's.
fn resolved(settings: &Settings, optimizer: &str, seed: &str) -> Result<Settings> {
    let own = Settings {
        optimizer: Some(optimizer.into()),
        seed: Some(seed.into()),
        ..Settings::default()
    };
    let (lr, tables) = match optimizer.parse()? {
        Optimizer::AdaHessian => (0.043, "adagrad"),
        Optimizer::Adagrad => (0.01, "adagrad"),
        Optimizer::Sgd => (0.1, "sgd"),
        Optimizer::AdamW
        | Optimizer::Adam
        | Optimizer::RmsProp
        | Optimizer::Lamb
        | Optimizer::SophiaH => (1e-3, "adagrad"),
    };
    let table_optimizer = settings.table_optimizer.as_deref().unwrap_or(tables);
    let defaults = Settings {
        bottom: Some("512,256,64,16".into()),
        top: Some("512,256".into()),
        precision: Some("f32".into()),
        days: Some(7),
        eval_on: Some("test".into()),
        lr: Some(lr),
        table_optimizer: Some(table_optimizer.into()),
        table_lr: Some(if table_optimizer == "sgd" { 0.1 } else { 0.01 }),
        schedule: Some("constant".into()),
        weight_decay: Some(0.0),
        epochs: Some(1),
        batch_size: Some(128),
        micro_batches: Some(1),
        shuffle: Some(true),
        log_every: Some(100),
        prefetch: Some(3),
        ..Settings::default()
    };
    let hessian = Settings {
        hessian_every: Some(1),
        hessian_first: Some(match settings.hessian_every {
            None | Some(0 | 1) => 0,
            // Two times the steps 1 / (1 - 0.98) that the average of the curvature remembers.
            Some(_) => 100,
        }),
        hessian_power: Some(0.5),
        betas: Some("0.9,0.98".into()),
        block_size: Some("single".into()),
        average: Some("absolute".into()),
        samples: Some(1),
        eps: Some(1e-4),
        curvature_fraction: Some(1.0),
        ..Settings::default()
    };
    let resolved = layers::over(&layers::over(&own, settings)?, &defaults)?;
    match optimizer {
        "adahessian" => layers::over(&resolved, &hessian),
        _ => Ok(resolved),
    }
}
