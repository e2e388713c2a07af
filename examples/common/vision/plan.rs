//! Which runs to make, each with all of its settings.

use super::{Benchmark, VisionSettings};
use crate::choose::{self, Optimizer};
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
fn default_lr(optimizer: Optimizer) -> f64 {
    match optimizer {
        Optimizer::AdaHessian => 0.15,
        Optimizer::Sgd => 0.1,
        Optimizer::Adam | Optimizer::RmsProp | Optimizer::SophiaH => 1e-3,
        Optimizer::AdamW | Optimizer::Adagrad | Optimizer::Lamb => 1e-2,
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
        lr: Some(default_lr(optimizer.parse()?)),
        shortcut: Some("b".into()),
        micro_batches: Some(1),
        device: Some("cpu".into()),
        ..VisionSettings::default()
    };
    let mut resolved = own.over(settings)?;
    let asked = resolved.schedule.take();
    if settings.synthetic == Some(true) {
        resolved = resolved.over(&benchmark.synthetic)?;
    }
    let mut resolved = resolved.over(&benchmark.defaults)?.over(&defaults)?;
    if let Some(asked) = asked {
        resolved.schedule = Some(with_own_steps(&asked, resolved.schedule.as_deref()));
    }
    match optimizer {
        "adahessian" => resolved.over(&hessian(&resolved)),
        _ => Ok(resolved),
    }
}

/// A bare `step`, alone or after a warm-up, means the example's own steps.
fn with_own_steps(asked: &str, own: Option<&str>) -> String {
    match (asked.strip_suffix("step"), own) {
        (Some(before), Some(own)) if before.is_empty() || before.ends_with('+') => {
            format!("{before}{own}")
        }
        _ => asked.into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::Data;

    fn no_data(_: &VisionSettings) -> Result<Data> {
        bail!("no data here")
    }

    #[test]
    fn a_bare_step_is_the_examples_own() {
        let own = Some("step:0.1:0.5");
        assert_eq!(with_own_steps("step", own), "step:0.1:0.5");
        assert_eq!(
            with_own_steps("warmup:9+step", own),
            "warmup:9+step:0.1:0.5"
        );
        assert_eq!(with_own_steps("doorstep", own), "doorstep");
        assert_eq!(with_own_steps("cosine", own), "cosine");
    }

    fn plans_of(settings: VisionSettings) -> Result<Vec<Plan>> {
        let benchmark = Benchmark {
            name: "test",
            defaults: VisionSettings {
                epochs: Some(160),
                schedule: Some("step:0.1:0.5:0.75".into()),
                weight_decay: Some(5e-4),
                ..VisionSettings::default()
            },
            synthetic: VisionSettings {
                epochs: Some(2),
                ..VisionSettings::default()
            },
            top: None,
            load: no_data,
        };
        plans(&benchmark, &settings, Path::new("out"))
    }

    #[test]
    fn every_optimizer_runs_with_every_seed_in_a_folder_of_its_own() {
        let settings = VisionSettings {
            optimizer: Some("sgd, AdaHessian".into()),
            seed: Some("0,7".into()),
            ..VisionSettings::default()
        };
        let plans = plans_of(settings.clone()).unwrap();
        let folders: Vec<_> = plans.iter().map(|p| p.folder.to_str().unwrap()).collect();
        assert_eq!(
            folders,
            [
                "out/sgd-seed0",
                "out/adahessian-seed0",
                "out/sgd-seed7",
                "out/adahessian-seed7"
            ]
        );
        assert_eq!(plans[2].seed, 7);
        let single = plans_of(VisionSettings::default()).unwrap();
        assert_eq!(single[0].folder, Path::new("out"));
        for (optimizer, seed) in [("sgdd", "0"), ("sgd", "x"), ("sgd", ",")] {
            let settings = VisionSettings {
                optimizer: Some(optimizer.into()),
                seed: Some(seed.into()),
                ..VisionSettings::default()
            };
            assert!(plans_of(settings).is_err(), "{optimizer} {seed}");
        }
    }

    #[test]
    fn decoupled_decay_is_divided_by_the_rate_and_flags_go_before_defaults() {
        let settings = VisionSettings {
            optimizer: Some("sgd,adam,adamw,adahessian".into()),
            hessian_every: Some(5),
            schedule: Some("step".into()),
            ..VisionSettings::default()
        };
        let plans = plans_of(settings).unwrap();
        let expected = [(0.1, 5e-4), (1e-3, 5e-4), (0.01, 0.05), (0.15, 5e-4 / 0.15)];
        for (plan, (lr, decay)) in plans.iter().zip(expected) {
            let own = plan.settings.for_optimizer(&plan.optimizer, 3, 196);
            assert_eq!((own.lr, own.weight_decay), (Some(lr), Some(decay)));
            assert_eq!(plan.settings.schedule.as_deref(), Some("step:0.1:0.5:0.75"));
            assert_eq!(own.seed, Some(3));
        }
        // The Hessian of the first 5 of 160 epochs, and every fifth one after them.
        let own = plans[3].settings.for_optimizer("adahessian", 3, 196);
        assert_eq!((own.hessian_every, own.hessian_first), (Some(5), Some(980)));
        let quick = VisionSettings {
            synthetic: Some(true),
            lr: Some(0.3),
            ..VisionSettings::default()
        };
        let quick = &plans_of(quick).unwrap()[0].settings;
        assert_eq!((quick.epochs, quick.lr), (Some(2), Some(0.3)));
        let text = quick.text().unwrap();
        assert_eq!(&toml::from_str::<VisionSettings>(&text).unwrap(), quick);
    }
}
