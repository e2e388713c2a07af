//! Seconds and memory of one training step, beside plain SGD in the same program.

use adahessian::Rules;
use adahessian::ops::{self, Mode};
use adahessian::random::Stream;
use adahessian::sparse::{Precision, SparseOptimizer, SparseRule, SparseTable};
use adahessian::{Blocks, Composite, NamedVars, Optim, Rule, Sgd, check};
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, DeviceLocation, Tensor};
use clap::Parser;
use common::flags::OptimizerArgs;
use common::optimizers::{self, Place};
use common::program;
use common::values::list;
use models::dlrm::{self, Dlrm, Ids};
use models::resnet::{Config, Stem};
use models::{
    Architecture, LanguageModel, Model, ResNet, SequenceClassifier, Start, Transformer, bert,
    language_model, squeezebert, transformer,
};
use serde_json::json;
use std::time::Instant;
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

    /// The Hessian on every N-th step
    #[arg(long, default_value_t = 1, value_name = "N")]
    hessian_every: u64,

    /// Examples a batch [default: 16 sequences, 32 pairs of sentences, 20 windows of words, 128 images of CIFAR's size, 16 of
    /// ImageNet's, 128 clicks]
    #[arg(long, visible_alias = "batch", value_name = "N")]
    batch_size: Option<usize>,

    /// Tokens a sequence [default: 128, of a translator and a language model 32]
    #[arg(long)]
    seq: Option<usize>,

    /// Words of a translator or a language model
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    vocabulary: usize,

    /// Layers of a model of texts [default: the model's]
    #[arg(long, value_name = "N")]
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

    /// First, check gradients and Hessian-vector products of the loss against differences of it, and time that
    #[arg(long)]
    audit: bool,

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
        other => bail!(
            "--model {other}: expected squeezebert, squeezebert-mini, bert, bert-minilm, nmt, tensorlm, dlrm or resnetN"
        ),
    })
}

/// Examples of an audit.
const AUDITED: usize = 8;

/// From inputs and labels to a loss.
type Loss = Box<dyn Fn(&Tensor, &Tensor) -> Result<Tensor>>;

struct Bench {
    loss: Loss,
    inputs: Tensor,
    labels: Tensor,
    vars: NamedVars,
    tables: Vec<SparseTable>,
    /// What the tables are stepped with, whatever the optimizer of the variables.
    table_rule: SparseRule,
    blocks: Blocks,
    micro_batches: usize,
}

fn cross_entropy(logits: models::Result<Tensor>, labels: &Tensor) -> Result<Tensor> {
    Ok(ops::cross_entropy(&logits?, labels, 0.0, None)?)
}

/// `n` integers below `below`.
fn draw(name: &str, n: usize, below: usize) -> Vec<u32> {
    let uniform = Stream::new(0, name, 0, 0).uniform(n);
    uniform.iter().map(|u| (u * below as f64) as u32).collect()
}

impl Bench {
    fn new(cli: &Cli, device: &Device) -> Result<Self> {
        let start = Start {
            device: device.clone(),
            ..Start::default()
        };
        match cli.model.as_str() {
            "dlrm" => Self::clicks(cli, &start),
            "nmt" => Self::sentences(cli, &start),
            "tensorlm" => Self::words(cli, &start),
            name if name.starts_with("resnet") => Self::images(cli, &start),
            _ => Self::texts(cli, &start),
        }
    }

    fn texts(cli: &Cli, start: &Start) -> Result<Self> {
        let mut architecture = architecture(&cli.model)?;
        architecture.layers = cli.layers.unwrap_or(architecture.layers);
        let (batch, length) = (cli.batch_size.unwrap_or(16), cli.seq.unwrap_or(128));
        let model = SequenceClassifier::new(&architecture, 2, start)?;
        let ids = draw("ids", batch * length, architecture.vocabulary);
        let device = &start.device;
        Ok(Self {
            inputs: Tensor::from_vec(ids, (batch, length), device)?,
            labels: Tensor::from_vec(draw("labels", batch, 2), batch, device)?,
            vars: model.vars(),
            blocks: model.blocks(),
            tables: Vec::new(),
            table_rule: SparseRule::Sgd,
            loss: Box::new(move |ids, labels| {
                cross_entropy(model.forward(ids, None, None, &Mode::Eval), labels)
            }),
            micro_batches: cli.micro_batches.clamp(1, batch),
        })
    }

    /// Sources and what the decoder is given, side by side.
    fn sentences(cli: &Cli, start: &Start) -> Result<Self> {
        let mut config = transformer::Config {
            vocab_size: cli.vocabulary,
            ..transformer::Config::iwslt()
        };
        config.encoder_layers = cli.layers.unwrap_or(config.encoder_layers);
        config.decoder_layers = cli.layers.unwrap_or(config.decoder_layers);
        let (batch, length) = (cli.batch_size.unwrap_or(32), cli.seq.unwrap_or(32));
        let model = Transformer::new(&config, start)?;
        // Past the special ones: no padding.
        let draw = |name, width| -> Result<Tensor> {
            let ids = draw(name, batch * width, config.vocab_size - 4);
            let ids = ids.into_iter().map(|id| id + 4).collect();
            Ok(Tensor::from_vec::<_, u32>(
                ids,
                (batch, width),
                &Device::Cpu,
            )?)
        };
        Ok(Self {
            inputs: draw("ids", 2 * length)?,
            labels: draw("labels", length)?,
            vars: model.vars(),
            blocks: model.blocks(),
            tables: Vec::new(),
            table_rule: SparseRule::Sgd,
            loss: Box::new(move |ids, labels| {
                let (source, previous) =
                    (ids.narrow(1, 0, length)?, ids.narrow(1, length, length)?);
                let logits = model.forward(&source, &previous, &Mode::Eval)?;
                let rows = logits.flatten_to(1)?; // [B T, V]
                Ok(ops::cross_entropy(
                    &rows,
                    &labels.flatten_all()?,
                    0.1,
                    None,
                )?)
            }),
            micro_batches: cli.micro_batches.clamp(1, batch),
        })
    }

    fn words(cli: &Cli, start: &Start) -> Result<Self> {
        let (batch, length) = (cli.batch_size.unwrap_or(20), cli.seq.unwrap_or(32));
        let base = language_model::Config::penn_treebank();
        let config = language_model::Config {
            vocab_size: cli.vocabulary,
            num_layers: cli.layers.unwrap_or(base.num_layers),
            window: length,
            ..base
        };
        let model = LanguageModel::new(&config, start)?;
        let draw = |name| {
            let ids = draw(name, batch * length, config.vocab_size);
            Tensor::from_vec(ids, (batch, length), &Device::Cpu)
        };
        Ok(Self {
            inputs: draw("ids")?,
            labels: draw("labels")?,
            vars: model.vars(),
            blocks: model.blocks(),
            tables: Vec::new(),
            table_rule: SparseRule::Sgd,
            loss: Box::new(move |ids, labels| Ok(model.loss(ids, labels, 0.0, &Mode::Eval)?)),
            micro_batches: cli.micro_batches.clamp(1, batch),
        })
    }

    fn images(cli: &Cli, start: &Start) -> Result<Self> {
        let mut config = Config::named(&cli.model)?;
        let (size, batch, shortcut) = match config.stem {
            Stem::Cifar => (32, 128, "a"),
            Stem::ImageNet => (224, 16, "b"),
        };
        config.shortcut = cli.shortcut.as_deref().unwrap_or(shortcut).parse()?;
        let (size, batch) = (
            cli.image_size.unwrap_or(size),
            cli.batch_size.unwrap_or(batch),
        );
        let model = ResNet::new(&config, start)?;
        let device = &start.device;
        let pixels = Stream::new(0, "pixels", 0, 0);
        let mode = Mode::Train {
            seed: 0,
            step: 0,
            micro: 0,
        };
        Ok(Self {
            inputs: pixels.normal_tensor(&[batch, 3, size, size], DType::F32, device)?,
            labels: Tensor::from_vec(draw("labels", batch, config.classes), batch, device)?,
            vars: model.vars(),
            blocks: model.blocks(),
            tables: Vec::new(),
            table_rule: SparseRule::Sgd,
            loss: Box::new(move |pixels, labels| {
                cross_entropy(model.forward(pixels, &mode), labels)
            }),
            micro_batches: cli.micro_batches.clamp(1, batch),
        })
    }

    fn clicks(cli: &Cli, start: &Start) -> Result<Self> {
        let (batch, rows) = (cli.batch_size.unwrap_or(128), cli.table_rows);
        let config = dlrm::Config::kaggle(vec![rows; 26]);
        let model = Dlrm::new(&config, start, Precision::F32)?;
        let ids = Ids::Single(draw("ids", batch * 26, rows));
        let mode = Mode::Train {
            seed: 0,
            step: 0,
            micro: 0,
        };
        let dense = Stream::new(0, "dense", 0, 0);
        let labels = Stream::new(0, "labels", 0, 0).bernoulli(batch, 0.25);
        let device = &start.device;
        Ok(Self {
            inputs: dense.normal_tensor(&[batch, 13], DType::F32, device)?,
            labels: Tensor::from_vec(labels, batch, device)?,
            vars: model.vars(),
            tables: vec![model.tables().clone()],
            table_rule: optimizers::table_rule(&cli.table_optimizer)?,
            blocks: model.blocks(),
            loss: Box::new(move |dense, labels| {
                let logits = model.forward(dense, &ids, &mode)?;
                Ok(ops::binary_cross_entropy(&logits, labels)?)
            }),
            micro_batches: 1,
        })
    }

    /// The optimizer of the variables, and of the tables where there are some.
    fn with_tables(&self, optimizer: Box<dyn Optim>) -> Result<Box<dyn Optim>> {
        if self.tables.is_empty() {
            return Ok(optimizer);
        }
        let sparse = SparseOptimizer::new(&self.tables, self.table_rule, 1e-4)?;
        let both = Composite::new().with_boxed("variables", optimizer);
        Ok(Box::new(both.with("tables", sparse)))
    }

    /// On the first examples: an audit computes their loss a hundred times.
    fn audit(&self) -> Result<()> {
        let few = self.inputs.dim(0)?.min(AUDITED);
        let (inputs, labels) = (
            self.inputs.narrow(0, 0, few)?,
            self.labels.narrow(0, 0, few)?,
        );
        let began = Instant::now();
        let audit = check::audit(&self.vars, || {
            let loss = (self.loss)(&inputs, &labels);
            loss.map_err(|e| candle_core::Error::msg(format!("{e:#}")).into())
        })?;
        println!(
            "audit of {few} examples in {:.1} s: {audit}",
            began.elapsed().as_secs_f64()
        );
        // Lookups in tables, which wait for their gradients.
        let none = Sgd::default().lr(1e-5).build(NamedVars::new([])?)?;
        self.with_tables(Box::new(none))?.discard();
        Ok(())
    }

    /// A step, and its loss.
    fn step(&self, optimizer: &mut dyn Optim) -> Result<Option<f64>> {
        let parts = self.micro_batches;
        let inputs = self.inputs.chunk(parts, 0)?;
        for (inputs, labels) in inputs.iter().zip(self.labels.chunk(parts, 0)?) {
            let loss = (self.loss)(inputs, &labels)?;
            optimizer.accumulate_loss(&loss, 1.0 / parts as f64)?;
        }
        Ok(optimizer.apply()?.loss)
    }

    /// Over `units` cycles of `cycle` steps, after one cycle for warming up.
    fn measure(&self, optimizer: &mut dyn Optim, cycle: u64, units: usize) -> Result<Measured> {
        let mut seconds = Vec::new();
        let mut loss = None;
        for unit in 0..=units.max(1) {
            let began = Instant::now();
            for _ in 0..cycle {
                let this = self.step(optimizer)?;
                loss = loss.or(this);
            }
            // A GPU is told what to do and goes on alone: the unit ends when it has done it.
            self.inputs.device().synchronize()?;
            if unit > 0 {
                seconds.push(began.elapsed().as_secs_f64() / cycle as f64);
            }
        }
        seconds.sort_by(f64::total_cmp);
        Ok(Measured {
            seconds: seconds[seconds.len() / 2],
            loss,
        })
    }

    /// Where the variables are.
    fn place(&self) -> String {
        let first = self.vars.iter().next();
        let place = first.map(|(_, var)| var.device().location());
        match place {
            None | Some(DeviceLocation::Cpu) => "cpu".into(),
            Some(DeviceLocation::Cuda { gpu_id }) => format!("cuda:{gpu_id}"),
            Some(DeviceLocation::Metal { gpu_id }) => format!("metal:{gpu_id}"),
        }
    }
}

/// What was measured with one optimizer.
struct Measured {
    /// Median seconds a step.
    seconds: f64,
    /// The loss before the first step: the same on every device, but for rounding.
    loss: Option<f64>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    program::start(cli.threads)?;
    let optimizers = list(&cli.optimizer).map_err(anyhow::Error::msg)?;
    optimizers
        .iter()
        .try_for_each(|name| optimizers::check(name))?;
    let device = program::device(&cli.device)?;
    let bench = Bench::new(&cli, &device)?;
    if cli.audit {
        bench.audit()?;
    }
    // SGD comes last, and each peak is read before it: it does not count towards the others.
    let mut measured = Vec::new();
    for name in &optimizers {
        measured.push(
            measure(&cli, &bench, name).with_context(|| format!("{} with {name}", cli.model))?,
        );
    }
    program::reset_peak_memory();
    let sgd = Sgd::default().lr(1e-5).build(&bench.vars)?;
    let mut sgd = bench.with_tables(Box::new(sgd))?;
    let sgd_seconds = bench.measure(&mut *sgd, 1, cli.units)?.seconds;
    let sgd_peak = peak_memory_mib();
    for (name, (cycle, Measured { seconds, loss }, peak)) in optimizers.iter().zip(measured) {
        let ratio = seconds / sgd_seconds;
        if !cli.json {
            println!(
                "{:?} through {}: {seconds:.3} s a step with {name}, {ratio:.2} x SGD's {sgd_seconds:.3} s",
                bench.inputs.dims(),
                cli.model,
            );
        }
        let result = json!({
            "model": cli.model, "optimizer": name, "hessian_every": cycle, "input": bench.inputs.dims(),
            "batch": bench.labels.elem_count(), "micro_batches": bench.micro_batches, "device": bench.place(), "loss": loss,
            "threads": candle_core::utils::get_num_threads(),
            "parameters": bench.vars.elem_count(), "units": cli.units,
            "seconds_per_step": seconds, "sgd_seconds_per_step": sgd_seconds, "ratio_to_sgd": ratio,
            "peak_memory_mib": peak, "sgd_peak_memory_mib": sgd_peak,
        });
        println!("{result}");
    }
    Ok(())
}

/// The length of a cycle, what was measured and peak memory.
fn measure(cli: &Cli, bench: &Bench, name: &str) -> Result<(u64, Measured, Option<f64>)> {
    let args = OptimizerArgs {
        weight_decay: optimizers::default_decay(name)?,
        hessian_every: cli.hessian_every,
        // The cost does not depend on the rate, and with this one the weights stay where they are.
        ..OptimizerArgs::new(name, 1e-5)?
    };
    program::reset_peak_memory();
    let cycle = match name {
        "adahessian" | "sophiah" => cli.hessian_every.max(1),
        _ => 1,
    };
    let place = Place {
        seed: 0,
        steps_per_epoch: 1,
        blocks: bench.blocks.clone(),
        rules: Rules::default(),
    };
    let optimizer = optimizers::build(&args, place, &bench.vars)?;
    let mut optimizer = bench.with_tables(optimizer)?;
    let measured = bench.measure(&mut *optimizer, cycle, cli.units)?;
    Ok((cycle, measured, peak_memory_mib()))
}
