//! Seconds and memory of one training step, beside plain SGD in the same program.

use adahessian::ops::{self, Mode};
use adahessian::random::Stream;
use adahessian::{Common, FirstOrder, NamedVars, Optim, Sgd};
use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use clap::Parser;
use common::settings::Settings;
use common::{choose, program};
use models::{Architecture, SequenceClassifier, Start, bert, squeezebert};
use serde_json::json;
use std::time::Instant;
use trainers::callbacks::peak_memory_mib;

/// Median seconds of a training step (forward, backward passes, optimizer) on random inputs with
/// dropout 0, the ratio to SGD with momentum, and the peak memory. With --hessian-every f a unit is
/// a cycle of f steps, divided by f.
#[derive(Parser)]
struct Cli {
    /// squeezebert (base), squeezebert-mini, bert (base), bert-minilm
    #[arg(long, default_value = "squeezebert")]
    model: String,

    /// adahessian, adamw, adam, sgd, rmsprop, adagrad, lamb
    #[arg(long, default_value = "adahessian")]
    optimizer: String,

    /// The Hessian on every N-th step
    #[arg(long, default_value_t = 1, value_name = "N")]
    hessian_every: u64,

    /// Sequences a batch
    #[arg(long, default_value_t = 16)]
    batch: usize,

    /// Tokens a sequence
    #[arg(long, default_value_t = 128)]
    seq: usize,

    /// Split the batch into so many parts, each with its own graph, where one graph does not fit
    #[arg(long, default_value_t = 1, value_name = "N")]
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

    /// Print only the last line
    #[arg(long)]
    json: bool,
}

fn architecture(model: &str) -> Result<Architecture> {
    Ok(match model {
        "squeezebert" => squeezebert::Config::base().architecture()?,
        "squeezebert-mini" => squeezebert::Config::mini().architecture()?,
        "bert" => bert::Config::base().architecture()?,
        "bert-minilm" => bert::Config::mini_lm().architecture()?,
        other => {
            bail!("--model {other}: expected squeezebert, squeezebert-mini, bert or bert-minilm")
        }
    })
}

struct Bench {
    model: SequenceClassifier,
    ids: Tensor,
    labels: Tensor,
    micro_batches: usize,
}

impl Bench {
    fn new(cli: &Cli, device: &Device) -> Result<Self> {
        let architecture = architecture(&cli.model)?;
        let (vocabulary, count) = (architecture.vocabulary, cli.batch * cli.seq);
        let start = Start {
            device: device.clone(),
            ..Start::default()
        };
        let draw = |name: &str, n: usize, below: usize| -> Vec<u32> {
            let uniform = Stream::new(0, name, 0, 0).uniform(n);
            uniform.iter().map(|u| (u * below as f64) as u32).collect()
        };
        Ok(Self {
            model: SequenceClassifier::new(&architecture, 2, &start)?,
            ids: Tensor::from_vec(draw("ids", count, vocabulary), (cli.batch, cli.seq), device)?,
            labels: Tensor::from_vec(draw("labels", cli.batch, 2), cli.batch, device)?,
            micro_batches: cli.micro_batches.clamp(1, cli.batch),
        })
    }

    fn step(&self, optimizer: &mut dyn Optim) -> Result<()> {
        let parts = self.micro_batches;
        for (ids, labels) in self
            .ids
            .chunk(parts, 0)?
            .iter()
            .zip(self.labels.chunk(parts, 0)?)
        {
            let logits = self.model.forward(ids, None, None, &Mode::Eval)?;
            let loss = ops::cross_entropy(&logits, &labels, 0.0, None)?;
            optimizer.accumulate_loss(&loss, 1.0 / parts as f64)?;
        }
        optimizer.apply()?;
        Ok(())
    }

    /// Median seconds a step over `units` cycles of `cycle` steps, after one cycle for warming up.
    fn measure(&self, optimizer: &mut dyn Optim, cycle: u64, units: usize) -> Result<f64> {
        let mut seconds = Vec::new();
        for unit in 0..=units.max(1) {
            let began = Instant::now();
            for _ in 0..cycle {
                self.step(optimizer)?;
            }
            if unit > 0 {
                seconds.push(began.elapsed().as_secs_f64() / cycle as f64);
            }
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    program::start(cli.threads)?;
    choose::check(&cli.optimizer)?;
    let device = program::device(&cli.device)?;
    let bench = Bench::new(&cli, &device)?;
    let vars: NamedVars = bench.model.vars();
    let settings = Settings {
        lr: Some(1e-5), // the cost does not depend on it, and the weights stay where they are
        hessian_every: Some(cli.hessian_every),
        ..Settings::default()
    };
    program::reset_peak_memory();
    let cycle = match cli.optimizer.as_str() {
        "adahessian" => cli.hessian_every.max(1),
        _ => 1,
    };
    // SGD comes last, and the peak is read before it: it does not count towards it.
    let mut optimizer = choose::optimizer(&cli.optimizer, &settings, &vars)?;
    let seconds = bench.measure(&mut *optimizer, cycle, cli.units)?;
    let peak = peak_memory_mib();
    drop(optimizer);
    program::reset_peak_memory();
    let mut sgd = FirstOrder::new(&vars, Sgd::default(), Common::new(1e-5))?;
    let sgd_seconds = bench.measure(&mut sgd, 1, cli.units)?;
    let result = json!({
        "model": cli.model, "optimizer": cli.optimizer, "hessian_every": cycle,
        "batch": cli.batch, "micro_batches": bench.micro_batches, "seq": cli.seq, "device": cli.device,
        "threads": candle_core::utils::get_num_threads(),
        "parameters": vars.elem_count(), "units": cli.units,
        "seconds_per_step": seconds, "sgd_seconds_per_step": sgd_seconds, "ratio_to_sgd": seconds / sgd_seconds,
        "peak_memory_mib": peak, "sgd_peak_memory_mib": peak_memory_mib(),
    });
    if !cli.json {
        println!(
            "{} x {} tokens through {}: {seconds:.3} s a step with {}, {:.2} x SGD's {sgd_seconds:.3} s",
            cli.batch,
            cli.seq,
            cli.model,
            cli.optimizer,
            seconds / sgd_seconds
        );
    }
    println!("{result}");
    Ok(())
}
