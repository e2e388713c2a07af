//! Language models on Penn Treebank, WikiText or any text: the tensorized transformer and a standard one, with AdaHessian or
//! a first-order optimizer, and texts from them.

mod corpus;
mod generate;
mod train;

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use common::driver::{self, Augment};
use std::process::ExitCode;

const EXAMPLES: &str = "Examples:\n  \
    language_model train\n  \
    language_model train --data ptb --optimizer adahessian,adamw,sgd --out runs/ptb\n  \
    language_model train --data ptb --attention standard --out runs/standard\n  \
    language_model train --data wikitext-103 --preset wikitext-103 --out runs/wikitext\n  \
    language_model generate runs/ptb/adahessian-seed0 --prompt 'the company said' --words 50 --top-p 0.9";

fn main() -> ExitCode {
    let train = Command::new("train").about(train::ABOUT);
    let matches = Command::new("language_model")
        .about("Train a language model word by word, and let it write.")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(train::LanguageArgs::augment(train))
        .subcommand(generate::Options::augment_args(Command::new("generate")))
        .get_matches();
    driver::exit(run(&matches))
}

fn run(matches: &ArgMatches) -> Result<ExitCode> {
    match matches.subcommand() {
        Some(("generate", m)) => generate::run(&generate::Options::from_arg_matches(m)?)?,
        Some((_, matches)) => return driver::train(&train::Language, matches),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}
