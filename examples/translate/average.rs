//! `translate average`: a model whose variables are the mean of a run's last checkpoints.

use crate::translator::Translator;
use anyhow::{Context, Result};
use clap::Args;
use common::program;
use common::values::count;
use std::path::PathBuf;
use trainers::RunFolder;
use trainers::generation::average_newest;

/// Average the variables of a run's last checkpoints into a model of their own.
#[derive(Args)]
pub struct Options {
    /// The folder of a run that has ended
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// How many checkpoints
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count)]
    last: usize,

    /// The model's folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn run(options: &Options) -> Result<()> {
    program::start(None)?;
    // Everything but the variables is as the run saved it.
    Translator::load(&options.run)?.save(&options.out)?;
    let run = RunFolder::open(&options.run)?;
    let to = options.out.join("model.safetensors");
    average_newest(&run, options.last, &to)
        .with_context(|| format!("averaging {} checkpoints", options.last))?;
    println!(
        "{}: the mean of {} checkpoints",
        options.out.display(),
        options.last
    );
    Ok(())
}
