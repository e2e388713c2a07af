//! Translates: an encoder-decoder transformer from parallel text to BLEU, with AdaHessian or a first-order optimizer.
//!
//! Without data it learns to say German numbers in English.

mod average;
mod corpus;
mod decode;
mod evaluate;
mod pieces;
mod score;
mod train;
mod translator;

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use common::driver::{self, Augment};
use std::process::ExitCode;

const EXAMPLES: &str = "Examples:\n  \
    translate train --optimizer adahessian,adamw\n  \
    translate train --data multi30k --source de --target en --preset small --tokenize --lower-case --out runs/multi30k\n  \
    translate evaluate runs/multi30k --data multi30k --set test_2016_flickr\n  \
    echo 'ein hund läuft .' | translate decode runs/multi30k --beam 5\n  \
    translate score hypotheses.en reference.en\n  \
    translate average runs/multi30k --last 5 --out averaged";

fn main() -> ExitCode {
    let train = Command::new("train").about(train::ABOUT);
    let matches = Command::new("translate")
        .about("Train a transformer on parallel text, translate with it, and score translations.")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(train::TranslateArgs::augment(train))
        .subcommand(evaluate::Options::augment_args(Command::new("evaluate")))
        .subcommand(decode::Options::augment_args(Command::new("decode")))
        .subcommand(score::Options::augment_args(Command::new("score")))
        .subcommand(average::Options::augment_args(Command::new("average")))
        .get_matches();
    driver::exit(run(&matches))
}

fn run(matches: &ArgMatches) -> Result<ExitCode> {
    match matches.subcommand() {
        Some(("evaluate", m)) => evaluate::run(&evaluate::Options::from_arg_matches(m)?)?,
        Some(("decode", m)) => decode::run(&decode::Options::from_arg_matches(m)?)?,
        Some(("score", m)) => score::run(&score::Options::from_arg_matches(m)?)?,
        Some(("average", m)) => average::run(&average::Options::from_arg_matches(m)?)?,
        Some((_, matches)) => return driver::train(&train::Translate, matches),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}
