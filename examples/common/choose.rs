//! The optimizer that the settings ask for.

use crate::settings::Settings;
use adahessian::sparse::{Accumulator, SparseRule};
use adahessian::{
    AdaHessian, Adagrad, Adam, AdamW, Average, Block, Blocks, Common, FirstOrder, Lamb, NamedVars,
    Optim, RmsProp, Sgd,
};
use anyhow::{Result, bail};

/// The optimizers by name.
pub const OPTIMIZERS: [&str; 7] = [
    "adahessian",
    "adamw",
    "adam",
    "sgd",
    "rmsprop",
    "adagrad",
    "lamb",
];

/// Checks an optimizer's name.
///
/// # Errors
/// With the list of names.
pub fn check(name: &str) -> Result<()> {
    match OPTIMIZERS.contains(&name) {
        true => Ok(()),
        false => bail!(
            "--optimizer {name}: expected one of {}",
            OPTIMIZERS.join(", ")
        ),
    }
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
pub fn default_lr(optimizer: &str, origin: Origin) -> f64 {
    match (optimizer, origin) {
        ("adahessian", Origin::Pretrained) => 1e-2,
        ("adahessian", Origin::Scratch) => 0.1,
        ("adamw" | "adam", Origin::Pretrained) => 5e-5,
        ("adamw" | "adam", Origin::Scratch) => 2e-3,
        ("sgd", Origin::Pretrained) => 1e-2,
        ("sgd", Origin::Scratch) => 5e-2,
        ("rmsprop", Origin::Pretrained) => 2e-5,
        ("rmsprop", Origin::Scratch) => 5e-4,
        ("adagrad", Origin::Pretrained) => 1e-3,
        ("adagrad", Origin::Scratch) => 1e-2,
        (_, Origin::Pretrained) => 1e-3,
        (_, Origin::Scratch) => 5e-3,
    }
}

/// The weight decay by default.
pub fn default_decay(optimizer: &str) -> f64 {
    match optimizer {
        "adahessian" => 1e-4,
        "adamw" | "lamb" => 0.01,
        _ => 0.0,
    }
}

/// Makes the optimizer called `name` for a language model. `settings` must hold `lr` and
/// `weight_decay`.
///
/// # Errors
/// For an unknown name or a setting out of range.
pub fn optimizer(name: &str, settings: &Settings, vars: &NamedVars) -> Result<Box<dyn Optim>> {
    let block: Block = settings.block_size.as_deref().unwrap_or("4").parse()?;
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
    check(name)?;
    let common = Common {
        lr: settings
            .lr
            .unwrap_or_else(|| default_lr(name, Origin::Pretrained)),
        weight_decay: settings.weight_decay.unwrap_or_else(|| default_decay(name)),
        clip_norm: settings.clip_norm,
        ..Common::default()
    };
    Ok(match name {
        "adahessian" => Box::new(adahessian(settings, common, blocks, vars)?),
        "adamw" => Box::new(FirstOrder::new(vars, AdamW::default(), common)?),
        "adam" => Box::new(FirstOrder::new(vars, Adam::default(), common)?),
        "rmsprop" => Box::new(FirstOrder::new(vars, RmsProp::default(), common)?),
        "adagrad" => Box::new(FirstOrder::new(vars, Adagrad::default(), common)?),
        "lamb" => Box::new(FirstOrder::new(vars, Lamb::default(), common)?),
        _ => Box::new(FirstOrder::new(vars, Sgd::default(), common)?),
    })
}

fn adahessian(
    settings: &Settings,
    common: Common,
    blocks: Blocks,
    vars: &NamedVars,
) -> Result<AdaHessian> {
    let average = match settings.average.as_deref().unwrap_or("absolute") {
        "absolute" => Average::Absolute,
        "signed" => Average::Signed,
        other => bail!("--average {other}: expected absolute or signed"),
    };
    let mut builder = AdaHessian::builder()
        .blocks(blocks)
        .average(average)
        .hessian_power(settings.hessian_power.unwrap_or(1.0))
        .every(settings.hessian_every.unwrap_or(1))
        .always_first(settings.hessian_first.unwrap_or(0))
        .samples(settings.samples.unwrap_or(1))
        .eps(settings.eps.unwrap_or(1e-4))
        .seed(settings.seed.unwrap_or(0));
    builder.common = common;
    Ok(builder.build(vars)?)
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
