//! The optimizer that the settings ask for.

use crate::settings::Settings;
use adahessian::sparse::{Accumulator, SparseRule};
use adahessian::{Average, Block, Blocks, NamedVars, Optim};
use adahessian::{Rules, optimizer_by_name};
use anyhow::{Result, bail};
use std::str::FromStr;

/// The optimizers that can be asked for. Whatever depends on one is a `match` without a last arm for the
/// others, so that one that is added here is wired everywhere or does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    /// AdaHessian.
    AdaHessian,
    /// AdamW.
    AdamW,
    /// Adam, with L2 regularisation.
    Adam,
    /// SGD.
    Sgd,
    /// RMSProp.
    RmsProp,
    /// Adagrad.
    Adagrad,
    /// LAMB.
    Lamb,
    /// Sophia-H.
    SophiaH,
}

/// The optimizers by name.
pub const OPTIMIZERS: [(&str, Optimizer); 8] = [
    ("adahessian", Optimizer::AdaHessian),
    ("adamw", Optimizer::AdamW),
    ("adam", Optimizer::Adam),
    ("sgd", Optimizer::Sgd),
    ("rmsprop", Optimizer::RmsProp),
    ("adagrad", Optimizer::Adagrad),
    ("lamb", Optimizer::Lamb),
    ("sophiah", Optimizer::SophiaH),
];

impl FromStr for Optimizer {
    type Err = anyhow::Error;

    /// # Errors
    /// With the list of names.
    fn from_str(name: &str) -> Result<Self> {
        match OPTIMIZERS.iter().find(|(known, _)| *known == name) {
            Some((_, optimizer)) => Ok(*optimizer),
            None => bail!(
                "--optimizer {name}: expected one of {}",
                OPTIMIZERS.map(|(name, _)| name).join(", ")
            ),
        }
    }
}

/// Checks an optimizer's name.
///
/// # Errors
/// With the list of names.
pub fn check(name: &str) -> Result<()> {
    name.parse::<Optimizer>().map(drop)
}

/// Where the weights come from decides the scale of a good learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A pretrained checkpoint.
    Pretrained,
    /// Fresh weights.
    Scratch,
}

/// The learning rate that works for this optimizer on transformers.
///
/// # Errors
/// For an unknown name.
pub fn default_lr(optimizer: &str, origin: Origin) -> Result<f64> {
    let (pretrained, scratch) = match optimizer.parse()? {
        Optimizer::AdaHessian => (1e-2, 0.1),
        Optimizer::AdamW | Optimizer::Adam => (5e-5, 2e-3),
        Optimizer::Sgd => (1e-2, 5e-2),
        Optimizer::RmsProp => (2e-5, 5e-4),
        Optimizer::Adagrad => (1e-3, 1e-2),
        Optimizer::Lamb => (1e-3, 5e-3),
        Optimizer::SophiaH => (3e-5, 6e-4),
    };
    Ok(match origin {
        Origin::Pretrained => pretrained,
        Origin::Scratch => scratch,
    })
}

/// The weight decay by default.
///
/// # Errors
/// For an unknown name.
pub fn default_decay(optimizer: &str) -> Result<f64> {
    Ok(match optimizer.parse()? {
        Optimizer::AdaHessian => 1e-4,
        Optimizer::AdamW | Optimizer::Lamb => 0.01,
        Optimizer::SophiaH => 0.1,
        Optimizer::Adam | Optimizer::Sgd | Optimizer::RmsProp | Optimizer::Adagrad => 0.0,
    })
}

/// Makes the optimizer called `name` for a language model. `settings` must hold `lr` and
/// `weight_decay`.
///
/// # Errors
/// For an unknown name or a setting out of range.
pub fn optimizer(name: &str, settings: &Settings, vars: &NamedVars) -> Result<Box<dyn Optim>> {
    let own = match name.parse()? {
        Optimizer::SophiaH => "single",
        _ => "4",
    };
    let block: Block = settings.block_size.as_deref().unwrap_or(own).parse()?;
    optimizer_with(name, settings, Blocks::matrices(block), vars)
}

/// As [`optimizer`], with these blocks instead of the settings'.
///
/// # Errors
/// As [`optimizer`].
pub fn optimizer_with(
    name: &str,
    settings: &Settings,
    blocks: Blocks,
    vars: &NamedVars,
) -> Result<Box<dyn Optim>> {
    let lr = settings
        .lr
        .map_or_else(|| default_lr(name, Origin::Pretrained), Ok);
    let decay = settings
        .weight_decay
        .map_or_else(|| default_decay(name), Ok);
    let (lr, decay) = (lr?, decay?);
    let average = settings.average.as_deref().map(average).transpose()?;
    let mut rules = Rules::default();
    set(&mut rules.adahessian.eps, settings.eps);
    set(&mut rules.adahessian.hessian_power, settings.hessian_power);
    let optimizer = optimizer_by_name(name, &rules, vars, |common, curvature| {
        (common.lr, common.weight_decay) = (lr, decay);
        common.clip_norm = settings.clip_norm;
        curvature.blocks = blocks;
        set(&mut curvature.average, average);
        set(&mut curvature.every, settings.hessian_every);
        set(&mut curvature.always_first, settings.hessian_first);
        set(&mut curvature.samples, settings.samples);
        set(&mut curvature.seed, settings.seed);
    });
    Ok(optimizer?)
}

/// Changes what a program was told to.
pub fn set<T>(to: &mut T, told: Option<T>) {
    if let Some(value) = told {
        *to = value;
    }
}

/// What is averaged into D, by name.
///
/// # Errors
/// With the list of names.
pub fn average(name: &str) -> Result<Average> {
    Ok(match name {
        "absolute" => Average::Absolute,
        "signed" => Average::Signed,
        other => bail!("--average {other}: expected absolute or signed"),
    })
}

/// What sparse tables are stepped with, by name.
///
/// # Errors
/// With the list of names.
pub fn table_rule(name: &str) -> Result<SparseRule> {
    Ok(match name {
        "adagrad" => SparseRule::adagrad(),
        "adagrad-rows" => SparseRule::Adagrad {
            accumulator: Accumulator::Rows,
            eps: 1e-10,
        },
        "sgd" => SparseRule::Sgd,
        _ => bail!("--table-optimizer {name}: expected adagrad, adagrad-rows or sgd"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// The kind that the state of each optimizer must have, its learning rate with pretrained and with fresh
    /// weights, and its decay.
    const EXPECTED: [(&str, &str, f64, f64, f64); 8] = [
        ("adahessian", "adahessian", 1e-2, 0.1, 1e-4),
        ("adamw", "adamw", 5e-5, 2e-3, 0.01),
        ("adam", "adam", 5e-5, 2e-3, 0.0),
        ("sgd", "sgd", 1e-2, 5e-2, 0.0),
        ("rmsprop", "rmsprop", 2e-5, 5e-4, 0.0),
        ("adagrad", "adagrad", 1e-3, 1e-2, 0.0),
        ("lamb", "lamb", 1e-3, 5e-3, 0.01),
        ("sophiah", "sophiah", 3e-5, 6e-4, 0.1),
    ];

    fn vars() -> NamedVars {
        let x = Var::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        NamedVars::new([("x".to_string(), x)]).unwrap()
    }

    #[test]
    fn every_name_makes_the_optimizer_of_that_name() {
        assert_eq!(OPTIMIZERS.map(|(name, _)| name), EXPECTED.map(|row| row.0));
        for rule in adahessian::RULES {
            assert!(OPTIMIZERS.iter().any(|(name, _)| name == rule), "{rule}");
        }
        for (name, kind, pretrained, scratch, decay) in EXPECTED {
            let made = optimizer(name, &Settings::default(), &vars()).unwrap();
            assert_eq!(made.state().unwrap().meta["kind"], kind, "{name}");
            assert_eq!(made.lr(), pretrained, "{name}");
            assert_eq!(default_lr(name, Origin::Pretrained).unwrap(), pretrained);
            assert_eq!(default_lr(name, Origin::Scratch).unwrap(), scratch);
            assert_eq!(default_decay(name).unwrap(), decay, "{name}");
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_list_of_names() {
        let settings = Settings::default();
        let errors = [
            check("sdg").unwrap_err(),
            default_lr("sdg", Origin::Scratch).unwrap_err(),
            default_decay("sdg").unwrap_err(),
            optimizer("sdg", &settings, &vars()).map(drop).unwrap_err(),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains("--optimizer sdg"), "{text}");
            OPTIMIZERS
                .iter()
                .for_each(|(name, _)| assert!(text.contains(name), "{text}"));
        }
    }
}
