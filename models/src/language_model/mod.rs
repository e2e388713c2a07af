//! Language models: the tensorized transformer (Ma et al. 2019), and a standard transformer of its size.
//!
//! ```text
//! h₀      = dropout(√D E[words])  (+ P, where the attention is the standard one)   [B, T, D]
//! hᵢ₊₁    = layerᵢ(hᵢ)                                                             [B, T, D]   see `layer`
//! logits  = h Eᵀ + b                                                               [B, T, V]
//! ```
//! The logits behind word t foretell word t + 1, from words 1 to t alone: the published code of the tensorized transformer
//! makes its mask and does not use it, see [`Config::reference_unmasked`]. Positions are sines and cosines of
//! L - 1, …, 0.

mod adaptive;
mod config;
mod layer;

pub use config::{Attention, Config, MODEL_TYPE};
pub use layer::BlockTermAttention;

use crate::config::to_json;
use crate::error::{Error, Result};
use crate::model::{Model, runs_of_four};
use crate::parts::{normal, word_bias};
use crate::weights::{self, LoadReport, Start, Variables};
use adahessian::engine::Handle;
use adahessian::nn::{self, LayerNorm, VarBuilder, init};
use adahessian::ops::{self, Activation, Dropout, Mode};
use adahessian::{Block, Kind};
use adaptive::{Groups, Table};
use candle_core::{DType, Device, Tensor};
use layer::{DEVIATION, Layer, Pass, Shared};
use serde_json::Value;
use std::path::Path;

/// A language model.
#[derive(Clone)]
pub struct LanguageModel {
    config: Config,
    json: Value,
    network: Network,
    variables: Variables,
}

#[derive(Clone)]
struct Network {
    words: Tensor, // [V, D]
    bias: Tensor,  // [V]
    groups: Option<Groups>,
    shared: Shared,
    layers: Vec<Layer>,
    norm: Option<LayerNorm>, // [D]
}

impl Network {
    /// Words and biases, as an adaptive softmax takes parts of them.
    fn table(&self) -> Result<Table> {
        Ok(Table {
            rows: Handle::enter(&self.words)?,
            biases: Handle::enter(&self.bias)?,
        })
    }

    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (v, d, rank) = (config.vocab_size, config.d_model, config.rank);
        let words = nn::embedding_with(v, d, normal(DEVIATION), vb.pp("words"))?;
        let vector = |name: &str| nn::variable(&vb, rank, name, init::ZERO, Kind::Vector);
        let biases = match config.attention {
            Attention::BlockTerm => Some([vector("content_bias")?, vector("position_bias")?]),
            Attention::Standard => None,
        };
        let positions = sinusoids(config.window, d)?
            .to_dtype(vb.dtype())?
            .to_device(vb.device())?;
        let layers = (0..config.num_layers).map(|i| Layer::new(config, vb.pp("layers").pp(i)));
        Ok(Self {
            words: words.embeddings().clone(),
            bias: word_bias(v, vb.pp("output"))?,
            groups: match config.cutoffs.is_empty() {
                true => None,
                false => Some(Groups::new(config, vb.pp("groups"))?),
            },
            shared: Shared { positions, biases },
            layers: layers.collect::<Result<_>>()?,
            norm: match config.normalize_before {
                true => Some(nn::layer_norm(d, config.layer_norm_eps, vb.pp("norm"))?),
                false => None,
            },
        })
    }
}

/// Rows sin(p ω_i) and behind them cos(p ω_i) with ω_i = 10000^(-2i/d), for p = L - 1, …, 0; [L, d] in f64.
fn sinusoids(window: usize, d: usize) -> Result<Tensor> {
    let half = d / 2;
    let frequency = |i: usize| 10_000f64.powf(-2.0 * i as f64 / d as f64);
    let frequencies: Vec<f64> = (0..half).map(frequency).collect();
    let mut table = vec![0.0; window * d];
    for (row, p) in table.chunks_exact_mut(d).zip((0..window).rev()) {
        for (i, frequency) in frequencies.iter().enumerate() {
            (row[i], row[half + i]) = (p as f64 * frequency).sin_cos();
        }
    }
    Ok(Tensor::from_vec(table, (window, d), &Device::Cpu)?)
}

impl LanguageModel {
    /// A model with random weights, each a function of the seed and its name.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes that do not fit; candle's errors.
    pub fn new(config: &Config, start: &Start) -> Result<Self> {
        config.check()?;
        let (network, variables) = weights::draw(start, |vb| Network::new(config, vb))?;
        Self::with(config, network, variables)
    }

    /// A model from a folder that [`Model::save`] wrote.
    ///
    /// # Errors
    /// Those of [`Config::read`] and [`weights::load`].
    pub fn load(folder: &Path, start: &Start) -> Result<(Self, LoadReport)> {
        let config = Config::read(folder)?;
        let make = |vb| Network::new(&config, vb);
        let (network, variables, report) = weights::load(folder, "", start, make)?;
        Ok((Self::with(&config, network, variables)?, report))
    }

    fn with(config: &Config, network: Network, variables: Variables) -> Result<Self> {
        Ok(Self {
            config: config.clone(),
            json: to_json(config, MODEL_TYPE)?,
            network,
            variables,
        })
    }

    /// Its sizes and settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The logits [B, T, V] of the next word behind each of `words` [B, T], u32 or i64, T at most the window; with an
    /// adaptive softmax the logarithms of its probabilities.
    ///
    /// # Errors
    /// [`Error::Input`] for other shapes or dtypes, and words beyond the vocabulary.
    pub fn forward(&self, words: &Tensor, mode: &Mode) -> Result<Tensor> {
        let hidden = self.hidden(words, mode)?;
        let network = &self.network;
        match &network.groups {
            Some(groups) => groups.log_probabilities(&hidden.exit()?, &network.table()?),
            None => Ok(self.logits(&hidden)?.exit()?),
        }
    }

    /// The mean of -log p of `targets` [B, T], the words behind each of `words` [B, T], in nats. With
    /// `label_smoothing` that share of the mass is spread over all words.
    ///
    /// # Errors
    /// As [`LanguageModel::forward`]; [`Error::Input`] for targets of another shape, and label smoothing with an adaptive
    /// softmax, which would need the probabilities of all words.
    pub fn loss(
        &self,
        words: &Tensor,
        targets: &Tensor,
        label_smoothing: f64,
        mode: &Mode,
    ) -> Result<Tensor> {
        if targets.dims() != words.dims() {
            let expected = format!("{:?}, as the words", words.dims());
            return wrong("targets", expected, format!("{:?}", targets.dims()));
        }
        let network = &self.network;
        let hidden = self.hidden(words, mode)?;
        match &network.groups {
            Some(_) if label_smoothing != 0.0 => wrong(
                "label smoothing",
                "0 with an adaptive softmax",
                label_smoothing.to_string(),
            ),
            Some(groups) => {
                let targets = self.read("targets", targets)?;
                groups.loss(&hidden, &targets, &network.table()?)
            }
            None => {
                let targets =
                    Tensor::from_vec(self.read("targets", targets)?, words.dims(), &Device::Cpu)?;
                let (table, bias) = (&network.words, Some(&network.bias));
                let loss = ops::linear_cross_entropy(
                    &hidden,
                    table,
                    bias,
                    &targets,
                    label_smoothing,
                    None,
                )?;
                Ok(loss.exit()?)
            }
        }
    }

    fn logits(&self, hidden: &Handle) -> Result<Handle> {
        let network = &self.network;
        let bias = Some(&network.bias);
        Ok(ops::linear(
            hidden,
            &network.words,
            bias,
            1,
            Activation::Identity,
        )?)
    }

    /// The last state, [B, T, D].
    fn hidden(&self, words: &Tensor, mode: &Mode) -> Result<Handle> {
        let &[batch, length] = words.dims() else {
            return wrong("words", "[texts, words]", format!("{:?}", words.dims()));
        };
        let window = self.config.window;
        if batch == 0 || length == 0 || length > window {
            let expected = format!("at least one text of 1 to {window} words");
            return wrong("words", expected, format!("{:?}", words.dims()));
        }
        let ids = self.read("words", words)?;
        let ids = Tensor::from_vec(ids, (batch, length), &Device::Cpu)?;
        let network = &self.network;
        let scale = (self.config.d_model as f64).sqrt();
        let table = (&ids, &network.words, scale);
        let x = match self.config.attention {
            Attention::BlockTerm => ops::scaled_sum_of_rows(&[table])?,
            Attention::Standard => {
                let places = (0..batch * length).map(|i| (i % length) as u32);
                let places = Tensor::from_vec(places.collect(), (batch, length), &Device::Cpu)?;
                ops::scaled_sum_of_rows(&[table, (&places, &network.shared.positions, 1.0)])?
            }
        };
        let dropout = Dropout::new(self.config.dropout, "embeddings", mode);
        let mut x = ops::dropout(&x, &dropout)?; // [B, T, D]
        for (number, layer) in network.layers.iter().enumerate() {
            let pass = Pass {
                shared: &network.shared,
                mode,
                number,
            };
            x = layer.forward(&x, pass)?; // [B, T, D]
        }
        match &network.norm {
            Some(norm) => Ok(norm.normalise(&x)?),
            None => Ok(x),
        }
    }

    /// Ids, checked on the CPU: one copy from a GPU.
    fn read(&self, what: &'static str, ids: &Tensor) -> Result<Vec<u32>> {
        if !matches!(ids.dtype(), DType::U32 | DType::I64) {
            return wrong(what, "dtype U32 or I64", format!("{:?}", ids.dtype()));
        }
        let ids = ids.to_device(&Device::Cpu)?.to_dtype(DType::I64)?;
        let ids = ids.flatten_all()?.to_vec1::<i64>()?;
        let vocabulary = self.config.vocab_size;
        let checked = ids.iter().map(|&id| {
            let known = u32::try_from(id).ok();
            known.filter(|&id| (id as usize) < vocabulary).ok_or(id)
        });
        match checked.collect::<std::result::Result<Vec<_>, _>>() {
            Ok(ids) => Ok(ids),
            Err(id) => wrong(what, format!("ids below {vocabulary}"), id.to_string()),
        }
    }
}

impl Model for LanguageModel {
    fn variables(&self) -> &Variables {
        &self.variables
    }

    fn config(&self) -> Value {
        self.json.clone()
    }

    /// Matrices and the table in runs of 4 entries, the rest single, as in the paper's experiments.
    fn block(&self, kind: Kind) -> Block {
        runs_of_four(kind)
    }
}

fn wrong<T>(what: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Result<T> {
    Err(Error::Input {
        what,
        expected: expected.into(),
        got: got.into(),
    })
}
