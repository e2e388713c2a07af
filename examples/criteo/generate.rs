//! `criteo generate`: click logs of a known model.

use anyhow::{Context, Result};
use clap::Args;
use common::program;
use common::say;
use datasets::criteo;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

/// Write click logs of a known model in the contest's format.
///
/// Categorical values come by Zipf's law, a quarter of the rows are clicks, and the probability of each
/// click is known: the printed log loss is that of the model which made them. The text is a function of
/// rows and seed.
#[derive(Args)]
pub struct Options {
    /// The file to write
    file: PathBuf,

    /// Rows; some 244 bytes each
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    rows: u64,

    /// The seed of model and rows
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Threads [default: the machine's physical cores]
    #[arg(long)]
    threads: Option<usize>,
}

pub fn run(options: &Options) -> Result<()> {
    program::start(options.threads)?;
    let path = options.file.as_path();
    let place = || path.display().to_string();
    let file = File::create_new(path).with_context(place)?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let made = criteo::generate(options.rows, options.seed, &mut file).with_context(place)?;
    say!(
        "{}: {} rows, {} clicks; the model that made them has log loss {:.5} on them, {:.5} expected",
        path.display(),
        made.rows,
        made.clicks,
        made.log_loss,
        made.expected_log_loss,
    );
    Ok(())
}
