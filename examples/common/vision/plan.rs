//! Which runs to make, each with all of its settings.

use super::{Benchmark, VisionSettings};
use crate::choose;
use crate::settings::list;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// One run: an optimizer, a seed, a folder, and settings that leave nothing open.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The optimizer's name.
    pub optimizer: String,
    /// The seed of everything.
    pub seed: u64,
    /// Where its files lie.
    pub folder: PathBuf,
    /// All settings.
    pub settings: VisionSettings,
}

/// The runs that the settings ask for: every optimizer with every seed, seed by seed, so that an
/// interrupted comparison has all optimizers. A single run owns the output folder, several get a
/// folder each below it.
///
/// # Errors
/// For an unknown optimizer, a seed that is no number, or none at all.
pub fn plans(benchmark: &Benchmark, settings: &VisionSettings, out: &Path) -> Result<Vec<Plan>> {
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
                settings: resolved(benchmark, settings, optimizer, seed)?,
            });
        }
    }
    match plans.is_empty() {
        true => bail!("--optimizer and --seed: expected at least one of each"),
        false => Ok(plans),
    }
}

/// The paper's rates for residual networks on CIFAR-10.
fn default_lr(optimizer: &str) -> f64 {
    match optimizer {
        "adahessian" => 0.15,
        "sgd" => 0.1,
        "adam" | "rmsprop" => 1e-3,
        _ => 1e-2,
    }
}

/// The settings of one run: what was asked for over the defaults of the example and the optimizer.
fn resolved(
    benchmark: &Benchmark,
    settings: &VisionSettings,
    optimizer: &str,
    seed: &str,
) -> Result<VisionSettings> {
    let own = VisionSettings {
        optimizer: Some(optimizer.into()),
        seed: Some(seed.into()),
        ..VisionSettings::default()
    };
    let defaults = VisionSettings {
        lr: Some(default_lr(optimizer)),
        shortcut: Some("b".into()),
        micro_batches: Some(1),
        device: Some("cpu".into()),
        ..VisionSettings::default()
    };
    let mut resolved = own.over(settings)?;
    if resolved.schedule.as_deref() == Some("step") {
        resolved.schedule = None; // the example's own steps
    }
    if settings.synthetic == Some(true) {
        resolved = resolved.over(&benchmark.synthetic)?;
    }
    let resolved = resolved.over(&benchmark.defaults)?.over(&defaults)?;
    match optimizer {
        "adahessian" => resolved.over(&hessian(&resolved)),
        _ => Ok(resolved),
    }
}

fn hessian(settings: &VisionSettings) -> VisionSettings {
    let every = settings.hessian_every.unwrap_or(1);
    let epochs = settings.epochs.unwrap_or(1);
    VisionSettings {
        hessian_every: Some(every),
        // The first 5 of 160 epochs have it on all steps (paper, Table 8).
        hessian_first_epochs: Some(match every {
            0 | 1 => 0,
            _ => (epochs * 5).div_ceil(160),
        }),
        hessian_power: Some(1.0),
        block_size: Some("spatial".into()),
        average: Some("absolute".into()),
        samples: Some(1),
        eps: Some(1e-4),
        curvature_fraction: Some(1.0),
        ..VisionSettings::default()
    }
}
