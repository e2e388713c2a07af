//! Trains DLRM on Criteo's click logs: AdaHessian on the dense layers beside Adagrad on the tables, or
//! first-order optimizers. The defaults are the paper's settings, and a bound of the step.

mod evaluate;
mod generate;
mod parts;
mod prepare;
mod train;

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use common::driver::{self, Augment};
use std::process::ExitCode;

const EXAMPLES: &str = "Examples:\n  \
    criteo train --synthetic\n  \
    criteo prepare train.txt --out kaggle.clicks\n  \
    criteo train --data kaggle.clicks --optimizer adahessian,adagrad,sgd --seed 0,1,2 --out runs/kaggle\n  \
    criteo train --resume runs/kaggle\n  \
    criteo evaluate runs/kaggle/adahessian-seed0 --on validation";

fn main() -> ExitCode {
    let train = Command::new("train").about(train::ABOUT);
    let matches = Command::new("criteo")
        .about("Predict clicks with DLRM on Criteo's logs, or on generated ones.")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(prepare::Options::augment_args(Command::new("prepare")))
        .subcommand(train::ClickArgs::augment(train))
        .subcommand(evaluate::Options::augment_args(Command::new("evaluate")))
        .subcommand(generate::Options::augment_args(Command::new("generate")))
        .get_matches();
    driver::exit(run(&matches))
}

fn run(matches: &ArgMatches) -> Result<ExitCode> {
    match matches.subcommand() {
        Some(("prepare", matches)) => prepare::run(&prepare::Options::from_arg_matches(matches)?)?,
        Some(("evaluate", matches)) => {
            evaluate::run(&evaluate::Options::from_arg_matches(matches)?)?
        }
        Some(("generate", matches)) => {
            generate::run(&generate::Options::from_arg_matches(matches)?)?
        }
        Some((_, matches)) => return driver::train(&train::Clicks, matches),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}
