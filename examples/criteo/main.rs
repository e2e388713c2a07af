//! Trains DLRM on Criteo's click logs: AdaHessian on the dense layers beside Adagrad on the tables, or
//! first-order optimizers. The defaults are the paper's settings.

mod generate;
mod prepare;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Predict clicks with DLRM on Criteo's logs, or on generated ones.
#[derive(Parser)]
#[command(after_help = "Examples:\n  \
    criteo prepare train.txt --out kaggle.clicks\n  \
    criteo generate planted.txt --rows 1000000 && criteo prepare planted.txt --out planted.clicks")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Prepare(prepare::Options),
    Generate(generate::Options),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Prepare(options) => prepare::run(&options),
        Command::Generate(options) => generate::run(&options),
    }
}
