//! Trains DLRM on Criteo's click logs: AdaHessian on the dense layers beside Adagrad on the tables, or
//! first-order optimizers. The defaults are the paper's settings.

mod evaluate;
mod generate;
mod parts;
mod plan;
mod planted;
mod prepare;
mod run;
mod scores;
mod settings;
mod train;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Predict clicks with DLRM on Criteo's logs, or on generated ones.
#[derive(Parser)]
#[command(after_help = "Examples:\n  \
    criteo train --synthetic\n  \
    criteo prepare train.txt --out kaggle.clicks\n  \
    criteo train --data kaggle.clicks --optimizer adahessian,adagrad,sgd --seed 0,1,2 --out runs/kaggle\n  \
    criteo train --resume runs/kaggle\n  \
    criteo evaluate runs/kaggle/adahessian-seed0 --on validation\n\n\
    A run's folder holds config.toml, metrics.jsonl, TensorBoard events, curves.svg, summary.json and checkpoint/.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Prepare(prepare::Options),
    Train(Box<train::Options>),
    Evaluate(evaluate::Options),
    Generate(generate::Options),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Prepare(options) => prepare::run(&options),
        Command::Train(options) => train::run(&options),
        Command::Evaluate(options) => evaluate::run(&options),
        Command::Generate(options) => generate::run(&options),
    }
}
