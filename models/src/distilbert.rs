//! DistilBERT (Sanh et al. 2019): half of BERT's layers, no token types, no pooler.
//!
//! ```text
//! h₀   = dropout(LayerNorm(word + position))             [B, T, D]
//! hᵢ₊₁ = layerᵢ(hᵢ)                                       [B, T, D], see `layer`
//! ```

use crate::architecture::{Architecture, Body, Family, Groups, Names, Text};
use crate::config;
use crate::embeddings::{self, Embeddings};
use crate::error::Result;
use crate::heads::{ClassifierHead, MaskedHead, TokenHead};
use crate::layer::{Layer, Pass, Settings};
use crate::limits;
use crate::parts::{dense, word_bias};
use crate::weights::{head, optional};
use adahessian::engine::Handle;
use adahessian::nn::{self, LayerNorm, Linear, VarBuilder};
use adahessian::ops::Activation;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// What config.json calls it.
pub const MODEL_TYPE: &str = "distilbert";

/// Of all norms; no configuration names it.
const EPS: f64 = 1e-12;

const NAMES: Names = Names {
    model_type: MODEL_TYPE,
    prefix: "distilbert",
    class: "DistilBert",
    pretraining: None,
};

/// DistilBERT's config.json. A field that is not there has the value that transformers gives it; fields
/// that do not change the model are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The vocabulary's size.
    pub vocab_size: usize,
    /// The width of the hidden states.
    pub dim: usize,
    /// The number of layers.
    pub n_layers: usize,
    /// The number of attention heads.
    pub n_heads: usize,
    /// The width of the wide part of a layer.
    pub hidden_dim: usize,
    /// The activation in the wide part: `gelu`, `relu` or `tanh`.
    pub activation: String,
    /// The dropout probability of hidden states, and before a classifier of tokens.
    pub dropout: f64,
    /// The dropout probability of attention weights.
    pub attention_dropout: f64,
    /// The dropout probability before a classifier of sequences.
    pub seq_classif_dropout: f64,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// The standard deviation of initial weights.
    pub initializer_range: f64,
    /// Whether positions begin as sines that are not trained; only `false` is supported. A checkpoint with `true` has
    /// them in its table: [`auto::Checkpoint`](crate::auto::Checkpoint) takes it as it is, to be trained like any other, and
    /// `false` is saved.
    pub sinusoidal_pos_embds: bool,
    /// Whether the masked language model's decoder is the word embedding; only `true` is supported.
    pub tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            dim: 768,
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            activation: "gelu".into(),
            dropout: 0.1,
            attention_dropout: 0.1,
            seq_classif_dropout: 0.2,
            max_position_embeddings: 512,
            initializer_range: 0.02,
            sinusoidal_pos_embds: false,
            tie_word_embeddings: true,
        }
    }
}

/// The names that other families have for the sizes, which transformers takes, too, under DistilBERT's own.
pub(crate) fn renamed(mut value: Value) -> Result<Value> {
    for (other, own) in [
        ("hidden_size", "dim"),
        ("num_attention_heads", "n_heads"),
        ("num_hidden_layers", "n_layers"),
    ] {
        let Some(size) = value.get(other).cloned() else {
            continue;
        };
        match value.get(own) {
            None => value[own] = size,
            Some(same) => {
                config::require(*same == size, own, format!("{size}, as `{other}`"), same)?
            }
        }
    }
    Ok(value)
}

impl Config {
    /// DistilBERT base, uncased: 6 layers of width 768, 66 million parameters.
    pub fn base() -> Self {
        Self::default()
    }

    /// 2 layers of width 32 and a vocabulary of 128: for tests.
    pub fn tiny() -> Self {
        Self {
            vocab_size: 128,
            dim: 32,
            n_layers: 2,
            n_heads: 2,
            hidden_dim: 64,
            max_position_embeddings: 32,
            ..Self::default()
        }
    }

    /// Reads config.json from a folder.
    ///
    /// # Errors
    /// [`crate::Error::Architecture`] naming both for another `model_type`;
    /// [`crate::Error::File`] and [`crate::Error::Config`] for malformed ones.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = config::path_in(folder);
        config::parse(renamed(config::read_as(&path, MODEL_TYPE)?)?, &path)
    }

    /// The checked description that models are made of.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a value that is not supported, is out of its range or does not fit the
    /// others.
    pub fn architecture(&self) -> Result<Architecture> {
        let config = config::to_json(self, MODEL_TYPE)?;
        limits::check(&config)?;
        config::divides("n_heads", self.n_heads, &[self.dim])?;
        self.activation()?;
        Ok(Architecture {
            family: Arc::new(self.clone()),
            names: NAMES,
            config,
            vocabulary: self.vocab_size,
            width: self.dim,
            layers: self.n_layers,
            heads: self.n_heads,
            intermediate: self.hidden_dim,
            positions: self.max_position_embeddings,
            token_types: 0,
            groups: Groups::DENSE,
        })
    }

    fn activation(&self) -> Result<Activation> {
        Ok(self.activation.parse()?)
    }

    /// Normal weights, biases of 0.
    fn linear(&self, inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Linear> {
        dense(inputs, outputs, self.initializer_range, vb)
    }

    fn norm(&self, vb: VarBuilder) -> Result<LayerNorm> {
        Ok(nn::layer_norm(self.dim, EPS, vb)?)
    }
}

/// The encoder.
#[derive(Clone, Debug)]
struct DistilBert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
}

impl DistilBert {
    fn new(config: &Config, count: usize, vb: VarBuilder) -> Result<Self> {
        let tables = embeddings::Settings {
            words: config.vocab_size,
            token_types: 0,
            positions: config.max_position_embeddings,
            width: config.dim,
            deviation: config.initializer_range,
            eps: EPS,
            dropout: config.dropout,
        };
        let layers = vb.pp("transformer.layer");
        let layers = (0..count).map(|i| layer(config, layers.pp(i)));
        Ok(Self {
            embeddings: Embeddings::new(&tables, vb.pp("embeddings"))?,
            layers: layers.collect::<Result<_>>()?,
        })
    }
}

fn layer(config: &Config, vb: VarBuilder) -> Result<Layer> {
    let (d, wide) = (config.dim, config.hidden_dim);
    let attention = vb.pp("attention");
    Ok(Layer {
        query: config.linear(d, d, attention.pp("q_lin"))?,
        key: config.linear(d, d, attention.pp("k_lin"))?,
        value: config.linear(d, d, attention.pp("v_lin"))?,
        post_attention: config.linear(d, d, attention.pp("out_lin"))?,
        attention_norm: config.norm(vb.pp("sa_layer_norm"))?,
        wide: config.linear(d, wide, vb.pp("ffn.lin1"))?,
        narrow: config.linear(wide, d, vb.pp("ffn.lin2"))?,
        output_norm: config.norm(vb.pp("output_layer_norm"))?,
        settings: Settings {
            heads: config.n_heads,
            activation: config.activation()?,
            dropout: config.dropout,
            post_attention_dropout: 0.0,
            attention_dropout: config.attention_dropout,
        },
    })
}

impl Body for DistilBert {
    fn forward(&self, text: &Text, pass: &mut Pass) -> Result<Handle> {
        let hidden = self.embeddings.forward(text, None, pass.mode)?; // [B, T, D]
        pass.through(&self.layers, hidden) // [B, T, D], or [B, 1, D]
    }

    fn words(&self) -> &Tensor {
        &self.embeddings.words
    }
}

impl Family for Config {
    fn body(&self, layers: usize, vb: VarBuilder) -> Result<Arc<dyn Body>> {
        Ok(Arc::new(DistilBert::new(
            self,
            layers,
            vb.pp(NAMES.prefix),
        )?))
    }

    fn classifier(&self, labels: usize, vb: VarBuilder) -> Result<ClassifierHead> {
        let d = self.dim;
        Ok(ClassifierHead {
            first_dropout: 0.0,
            dense: optional(|| self.linear(d, d, vb.pp("pre_classifier")))?,
            activation: Activation::Relu,
            dropout: self.seq_classif_dropout,
            output: head(|| self.linear(d, labels, vb.pp("classifier")))?,
        })
    }

    fn token_classifier(&self, labels: usize, vb: VarBuilder) -> Result<TokenHead> {
        Ok(TokenHead {
            dropout: self.dropout,
            output: head(|| self.linear(self.dim, labels, vb.pp("classifier")))?,
        })
    }

    fn masked(&self, vb: VarBuilder) -> Result<MaskedHead> {
        optional(|| {
            Ok(MaskedHead {
                dense: self.linear(self.dim, self.dim, vb.pp("vocab_transform"))?,
                activation: self.activation()?,
                norm: self.norm(vb.pp("vocab_layer_norm"))?,
                bias: word_bias(self.vocab_size, vb.pp("vocab_projector"))?,
            })
        })
    }
}
