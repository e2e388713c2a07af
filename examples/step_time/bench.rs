//! What is stepped: a model of each kind on random inputs.

use crate::Cli;
use adahessian::ops::{self, Mode};
use adahessian::random::Stream;
use adahessian::sparse::{Precision, SparseRule, SparseTable};
use adahessian::{Blocks, NamedVars};
use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use common::optimizers;
use models::dlrm::{self, Dlrm, Ids};
use models::resnet::{Config, Stem};
use models::{
    Architecture, LanguageModel, Model, ResNet, SequenceClassifier, Start, Transformer, bert,
    language_model, squeezebert, transformer,
};

/// From inputs and labels to a loss.
type Loss = Box<dyn Fn(&Tensor, &Tensor) -> Result<Tensor>>;

pub struct Bench {
    pub loss: Loss,
    pub inputs: Tensor,
    pub labels: Tensor,
    pub vars: NamedVars,
    pub tables: Vec<SparseTable>,
    /// What the tables are stepped with, whatever the optimizer of the variables.
    pub table_rule: SparseRule,
    pub blocks: Blocks,
    pub micro_batches: usize,
}

fn cross_entropy(logits: models::Result<Tensor>, labels: &Tensor) -> Result<Tensor> {
    Ok(ops::cross_entropy(&logits?, labels, 0.0, None)?)
}

/// `n` integers below `below`.
fn draw(name: &str, n: usize, below: usize) -> Vec<u32> {
    let uniform = Stream::new(0, name, 0, 0).uniform(n);
    uniform.iter().map(|u| (u * below as f64) as u32).collect()
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

impl Bench {
    pub fn new(cli: &Cli, device: &Device) -> Result<Self> {
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
                let sides = (&source, &previous, labels);
                Ok(model.loss(sides, 0.1, None, &Mode::Eval)?)
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
        let model = Dlrm::new(&config, start, Precision::F32)?.with_tables_on(&start.device)?;
        let ids = draw("ids", batch * 26, rows);
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
                // Of the first rows alone, where an audit takes those.
                let ids = Ids::Single(ids[..dense.dim(0)? * 26].to_vec());
                let logits = model.forward(dense, &ids, &mode)?;
                Ok(ops::binary_cross_entropy(&logits, labels)?)
            }),
            micro_batches: 1,
        })
    }
}
