//! Seconds and memory of one training step, beside plain SGD in the same program.

mod bench;
mod steps;

use crate::bench::Bench;
use adahessian::{Rule, Rules, Sgd};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use common::flags::OptimizerArgs;
use common::optimizers::{self, Place};
use common::program;
use common::values::list;
use serde_json::json;
use steps::{Curvature, Measured};
use trainers::callbacks::peak_memory_mib;

/// Median seconds of a training step (forward, backward passes, optimizer) on random inputs with
/// dropout 0, the ratio to SGD with momentum, and the peak memory. With --hessian-every f a unit is
/// a cycle of f steps, divided by f.
#[derive(Parser)]
struct Cli {
    /// squeezebert (base), squeezebert-mini, bert (base), bert-minilm, resnet20, resnet32, resnet56,
    /// resnet18, resnet50 and the like, nmt (the translator for IWSLT14), tensorlm (the tensorized transformer
    /// for Penn Treebank) or dlrm (Criteo Kaggle's sizes)
    #[arg(long, default_value = "squeezebert")]
    model: String,

    /// Optimizers, separated by commas: adahessian, sophiah, adamw, adam, sgd, rmsprop, adagrad,
    /// lamb
    #[arg(long, default_value = "adahessian", value_name = "LIST")]
    optimizer: String,

    /// The Hessian on every N-th step; several, separated by commas, are measured one after the other
    #[arg(long, default_value = "1", value_name = "LIST", value_delimiter = ',')]
    hessian_every: Vec<u64>,

    /// The Hessian of this share of the batch; several, separated by commas, are measured one after the other
    #[arg(long, default_value = "1", value_name = "LIST", value_delimiter = ',', value_parser = share_of_batch)]
    curvature_fraction: Vec<f64>,

    /// Examples a batch [default: 16 sequences, 32 pairs of sentences, 20 windows of words, 128 images of CIFAR's size, 16 of
    /// ImageNet's, 128 clicks]
    #[arg(long, visible_alias = "batch", value_name = "N", value_parser = common::values::count)]
    batch_size: Option<usize>,

    /// Tokens a sequence [default: 128, of a translator and a language model 32]
    #[arg(long, value_parser = common::values::count)]
    seq: Option<usize>,

    /// Words of a translator or a language model
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    vocabulary: usize,

    /// Layers of a model of texts [default: the model's]
    #[arg(long, value_name = "N", value_parser = common::values::count)]
    layers: Option<usize>,

    /// Rows of each of DLRM's 26 tables
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    table_rows: usize,

    /// Optimizer of DLRM's tables, in every measurement: sgd, adagrad or adagrad-rows
    #[arg(long, default_value = "sgd", value_name = "NAME")]
    table_optimizer: String,

    /// Height and width of an image [default: 32 or 224]
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,

    /// Shortcuts of a residual network: a (parameter-free) or b (projection) [default: a for
    /// CIFAR's, b for ImageNet's]
    #[arg(long)]
    shortcut: Option<String>,

    /// Split the batch into so many parts, each with its own graph, where one graph does not fit
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = common::values::count)]
    micro_batches: usize,

    /// Units to measure after one for warming up
    #[arg(long, default_value_t = 3)]
    units: usize,

    /// Threads [default: the machine's physical cores]
    #[arg(long)]
    threads: Option<usize>,

    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,

    /// First, check gradients and Hessian-vector products of the loss against differences of it, and time that
    #[arg(long)]
    audit: bool,

    /// Print only a line of JSON for each measurement
    #[arg(long)]
    json: bool,
}

fn share_of_batch(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("expected a share above 0 and at most 1: 0.25, say".into()),
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    program::start(cli.threads)?;
    let optimizers = list(&cli.optimizer).map_err(anyhow::Error::msg)?;
    optimizers
        .iter()
        .try_for_each(|name| optimizers::check(name))?;
    let apart = cli.curvature_fraction.iter().any(|share| *share < 1.0);
    ensure!(
        cli.model != "dlrm" || !apart,
        "--curvature-fraction: the clicks of --model dlrm are not divided; leave it out"
    );
    ensure!(
        cli.model != "dlrm" || cli.micro_batches == 1,
        "--micro-batches: the clicks of --model dlrm are not divided; leave it out"
    );
    let device = program::device(&cli.device)?;
    let bench = Bench::new(&cli, &device)?;
    if cli.audit {
        bench.audit()?;
    }
    // SGD comes last, and each peak is read before it: it does not count towards the others.
    let mut measured = Vec::new();
    for name in &optimizers {
        for curvature in Curvature::all(name, &cli.hessian_every, &cli.curvature_fraction) {
            let of = measure(&cli, &bench, name, curvature);
            let of = of.with_context(|| format!("{} with {name}", cli.model))?;
            measured.push((name, curvature, of));
        }
    }
    program::reset_peak_memory();
    let sgd = Sgd::default().lr(1e-5).build(&bench.vars)?;
    let mut sgd = bench.with_tables(Box::new(sgd))?;
    let sgd_seconds = (bench.measure(&mut *sgd, Curvature::WHOLE, cli.units)?).seconds;
    let sgd_peak = peak_memory_mib();
    for (name, Curvature { every, share }, (Measured { seconds, loss }, peak)) in measured {
        let ratio = seconds / sgd_seconds;
        if !cli.json {
            let cheap = match (every, share) {
                (1, 1.0) => String::new(),
                _ => format!(" (Hessian on every {every}. step, of {share} of the batch)"),
            };
            println!(
                "{:?} through {}: {seconds:.3} s a step with {name}{cheap}, {ratio:.2} x SGD's {sgd_seconds:.3} s",
                bench.inputs.dims(),
                cli.model,
            );
        }
        let result = json!({
            "model": cli.model, "optimizer": name, "hessian_every": every, "curvature_fraction": share, "input": bench.inputs.dims(),
            "batch": bench.inputs.dim(0)?, "micro_batches": bench.micro_batches, "device": bench.place(), "loss": loss,
            "threads": candle_core::utils::get_num_threads(),
            "parameters": bench.vars.elem_count(), "units": cli.units,
            "seconds_per_step": seconds, "sgd_seconds_per_step": sgd_seconds, "ratio_to_sgd": ratio,
            "peak_memory_mib": peak, "sgd_peak_memory_mib": sgd_peak,
        });
        println!("{result}");
    }
    Ok(())
}

/// What was measured, and peak memory.
fn measure(
    cli: &Cli,
    bench: &Bench,
    name: &str,
    curvature: Curvature,
) -> Result<(Measured, Option<f64>)> {
    // The cost does not depend on the rate, and with this one the weights stay where they are.
    let mut args = OptimizerArgs::new(name, 1e-5)?;
    optimizers::own_defaults(&mut args);
    args.weight_decay = optimizers::default_decay(name)?;
    args.hessian_every = curvature.every;
    program::reset_peak_memory();
    let place = Place {
        seed: 0,
        steps_per_epoch: 1,
        factors: 1.0,
        blocks: bench.blocks.clone(),
        rules: Rules::default(),
    };
    let optimizer = optimizers::build(&args, place, &bench.vars)?;
    let mut optimizer = bench.with_tables(optimizer)?;
    let measured = bench.measure(&mut *optimizer, curvature, cli.units)?;
    Ok((measured, peak_memory_mib()))
}
