//! `translate average`: a model whose variables are the mean of a run's last checkpoints.

use super::translator::Translator;
use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::Args;
use common::program;
use common::say;
use common::values::count;
use std::path::PathBuf;
use trainers::generation::{average, average_newest};
use trainers::{RunFolder, disk};

/// Average the variables of a run's last checkpoints into a model of their own, or take those of its best one.
#[derive(Args)]
pub struct Options {
    /// The folder of a run that has ended
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// How many checkpoints; a run keeps those of `translate train --keep-checkpoints`
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count)]
    last: usize,

    /// The best checkpoint instead, by validation loss
    #[arg(long, conflicts_with = "last")]
    best: bool,

    /// The model's folder, a new one
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn run(options: &Options) -> Result<()> {
    program::start(None)?;
    if options.out.exists() {
        bail!("--out {}: is there already", options.out.display());
    }
    // Everything but the variables is as the run saved it.
    let translator = Translator::load(&options.run, &Device::Cpu)?;
    let checkpoints = RunFolder::open(&options.run)?;
    let best = checkpoints.checkpoints().best()?;
    // Whole, or not there.
    disk::write_folder(&options.out, |folder| {
        translator.save(folder).map_err(trainers::Error::user)?;
        let to = folder.join("model.safetensors");
        match (options.best, &best) {
            (false, _) => average_newest(&checkpoints, options.last, &to),
            (true, Some(best)) => average(std::slice::from_ref(best), &to),
            (true, None) => Err(trainers::Error::user(anyhow::anyhow!(
                "the run has no best checkpoint: it was never evaluated"
            ))),
        }
    })
    .with_context(|| format!("averaging checkpoints of {}", options.run.display()))?;
    let what = match options.best {
        true => "the best checkpoint".to_string(),
        false => format!("the mean of {} checkpoints", options.last),
    };
    say!("{}: {what}", options.out.display());
    Ok(())
}
