//! Small models on the CPU and on a GPU, side by side.

mod cases;
mod side;

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use cases::Case;
use clap::Parser;
use common::{program, table};
use std::path::PathBuf;

/// Compares loss, gradients, Hessian-vector products and steps of small BERT and SqueezeBERT models, a
/// residual network and a DLRM with sparse tables between the CPU and a GPU. Says so where there is
/// no GPU.
#[derive(Parser)]
struct Cli {
    /// The folder with the golden models
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/huggingface"))]
    reference: PathBuf,

    /// cuda or cuda:N
    #[arg(long, default_value = "cuda")]
    device: String,

    /// Fail, instead of saying so, where there is no GPU
    #[arg(long)]
    require: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    program::start(None)?;
    // A slip of the finger is no missing GPU.
    program::ordinal(&cli.device)?;
    let gpu = match program::device(&cli.device) {
        Ok(gpu) => gpu,
        Err(error) if cli.require => return Err(error),
        Err(error) => {
            println!("{error}");
            return Ok(());
        }
    };
    let golden = |model: &str| Case::Golden(cli.reference.join(model));
    let cases = [
        golden("bert_tiny"),
        golden("squeezebert_a"),
        Case::Images,
        Case::Clicks,
    ];
    let mut rows = Vec::new();
    for case in &cases {
        for dtype in [DType::F64, DType::F32] {
            let what = format!("{} {dtype:?}", case.name());
            let side = |device: &Device| case.side(dtype, device);
            let (cpu, other) = (side(&Device::Cpu)?, side(&gpu)?);
            rows.push(side::compare(&what, dtype, &cpu, &other).context(what.clone())?);
        }
    }
    let header = [
        "relative difference",
        "loss",
        "gradient",
        "Hz",
        "steps",
        "CPU ms/step",
        "GPU ms/step",
    ];
    println!("{}", table::format(&header, &rows));
    println!("{} comparisons on {:?} passed", rows.len(), gpu.location());
    Ok(())
}
