//! SqueezeBERT (Iandola et al. 2020): BERT with grouped convolutions of kernel 1 as linear maps.

use crate::architecture::{Architecture, Body, Family, Groups, Names, Text};
use crate::config::{self, require};
use crate::embeddings::{self, Embeddings};
use crate::error::Result;
use crate::heads::{ClassifierHead, MaskedHead, TokenHead};
use crate::layer::{Layer, Pass, Settings};
use crate::limits;
use crate::parts::{dense, normal, word_bias};
use crate::weights::{also_called, head, optional};
use adahessian::engine::Handle;
use adahessian::nn::{self, LayerNorm, Linear, LinearConfig, VarBuilder, init};
use adahessian::ops::Activation;
use adahessian::{Block, Blocks};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// What config.json calls it.
pub const MODEL_TYPE: &str = "squeezebert";

/// The layers' norms have this ε whatever `layer_norm_eps` says, which is the embedding's: so does
/// transformers, and so were the published checkpoints trained.
const LAYER_EPS: f64 = 1e-12;

const NAMES: Names = Names {
    model_type: MODEL_TYPE,
    prefix: "transformer",
    class: "SqueezeBert",
    pretraining: None,
};

/// SqueezeBERT's config.json. A field that is not there has the value that transformers gives it;
/// fields that do not change the model are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The vocabulary's size.
    pub vocab_size: usize,
    /// The width of the hidden states.
    pub hidden_size: usize,
    /// The width of the embeddings, which must be `hidden_size`.
    pub embedding_size: usize,
    /// The number of layers.
    pub num_hidden_layers: usize,
    /// The number of attention heads.
    pub num_attention_heads: usize,
    /// The width of the wide part of a layer.
    pub intermediate_size: usize,
    /// The activation in the wide part: `gelu`, `relu` or `tanh`.
    pub hidden_act: String,
    /// The dropout probability of hidden states and before the classifier.
    pub hidden_dropout_prob: f64,
    /// The dropout probability of attention weights.
    pub attention_probs_dropout_prob: f64,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// The number of token types.
    pub type_vocab_size: usize,
    /// The standard deviation of initial weights.
    pub initializer_range: f64,
    /// ε of the embedding's layer norm.
    pub layer_norm_eps: f64,
    /// Groups of the queries' map.
    pub q_groups: usize,
    /// Groups of the keys' map.
    pub k_groups: usize,
    /// Groups of the values' map.
    pub v_groups: usize,
    /// Groups of the map after the attention.
    pub post_attention_groups: usize,
    /// Groups of the map into the wide part.
    pub intermediate_groups: usize,
    /// Groups of the map out of the wide part.
    pub output_groups: usize,
    /// Whether the masked language model's decoder is the word embedding; only `true` is supported.
    pub tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            embedding_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            q_groups: 4,
            k_groups: 4,
            v_groups: 4,
            post_attention_groups: 1,
            intermediate_groups: 4,
            output_groups: 4,
            tie_word_embeddings: true,
        }
    }
}

impl Config {
    /// The published model: 12 layers of width 768, groups of 4 but for the map after the
    /// attention, a vocabulary of 30528; 51 million parameters.
    pub fn base() -> Self {
        Self {
            vocab_size: 30528,
            ..Self::default()
        }
    }

    /// 4 layers of width 256.
    pub fn mini() -> Self {
        Self {
            hidden_size: 256,
            embedding_size: 256,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            intermediate_size: 1024,
            ..Self::base()
        }
    }

    /// 2 layers of width 32 and a vocabulary of 128: for tests.
    pub fn tiny() -> Self {
        Self {
            vocab_size: 128,
            hidden_size: 32,
            embedding_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 64,
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
        config::read_as(&config::path_in(folder), MODEL_TYPE)
    }

    /// The checked description that models are made of.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a value that is not supported, is out of its range or does not fit the
    /// others.
    pub fn architecture(&self) -> Result<Architecture> {
        let config = config::to_json(self, MODEL_TYPE)?;
        limits::check(&config)?;
        let (width, wide) = (self.hidden_size, self.intermediate_size);
        let (embedding, expected) = (self.embedding_size, format!("{width}, the hidden_size"));
        require(embedding == width, "embedding_size", expected, embedding)?;
        config::divides("num_attention_heads", self.num_attention_heads, &[width])?;
        let groups = Groups {
            query: self.q_groups,
            key: self.k_groups,
            value: self.v_groups,
            post_attention: self.post_attention_groups,
            intermediate: self.intermediate_groups,
            output: self.output_groups,
        };
        config::divides("q_groups", groups.query, &[width])?;
        config::divides("k_groups", groups.key, &[width])?;
        config::divides("v_groups", groups.value, &[width])?;
        config::divides("post_attention_groups", groups.post_attention, &[width])?;
        config::divides("intermediate_groups", groups.intermediate, &[width, wide])?;
        config::divides("output_groups", groups.output, &[width, wide])?;
        self.activation()?;
        Ok(Architecture {
            family: Arc::new(self.clone()),
            names: NAMES,
            config,
            vocabulary: self.vocab_size,
            width: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            intermediate: self.intermediate_size,
            positions: self.max_position_embeddings,
            token_types: self.type_vocab_size,
            groups,
        })
    }

    fn activation(&self) -> Result<Activation> {
        Ok(self.hidden_act.parse()?)
    }

    /// A dense map: normal weights, biases of 0.
    fn linear(&self, inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Linear> {
        dense(inputs, outputs, self.initializer_range, vb)
    }

    /// A convolution of kernel 1 in groups, which is a linear map on channels that come last.
    fn conv1d(
        &self,
        inputs: usize,
        outputs: usize,
        groups: usize,
        vb: VarBuilder,
    ) -> Result<Linear> {
        let config = LinearConfig {
            groups,
            pointwise: true,
            ..LinearConfig::new(normal(self.initializer_range), init::ZERO)
        };
        Ok(nn::linear_with(inputs, outputs, config, vb)?)
    }

    fn norm(&self, eps: f64, vb: VarBuilder) -> Result<LayerNorm> {
        Ok(nn::layer_norm(self.hidden_size, eps, vb)?)
    }
}

/// The encoder.
#[derive(Clone, Debug)]
struct SqueezeBert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
}

impl SqueezeBert {
    fn new(config: &Config, count: usize, vb: VarBuilder) -> Result<Self> {
        let tables = embeddings::Settings {
            words: config.vocab_size,
            token_types: config.type_vocab_size,
            positions: config.max_position_embeddings,
            width: config.hidden_size,
            deviation: config.initializer_range,
            eps: config.layer_norm_eps,
            dropout: config.hidden_dropout_prob,
        };
        let layers = vb.pp("encoder.layers");
        let layers = (0..count).map(|i| layer(config, layers.pp(i)));
        Ok(Self {
            embeddings: Embeddings::new(&tables, vb.pp("embeddings"))?,
            layers: layers.collect::<Result<_>>()?,
        })
    }
}

fn layer(config: &Config, vb: VarBuilder) -> Result<Layer> {
    let (d, wide, c) = (config.hidden_size, config.intermediate_size, config);
    let attention = vb.pp("attention");
    Ok(Layer {
        query: c.conv1d(d, d, c.q_groups, attention.pp("query"))?,
        key: c.conv1d(d, d, c.k_groups, attention.pp("key"))?,
        value: c.conv1d(d, d, c.v_groups, attention.pp("value"))?,
        post_attention: c.conv1d(
            d,
            d,
            c.post_attention_groups,
            vb.pp("post_attention.conv1d"),
        )?,
        attention_norm: c.norm(LAYER_EPS, vb.pp("post_attention.layernorm"))?,
        wide: c.conv1d(d, wide, c.intermediate_groups, vb.pp("intermediate.conv1d"))?,
        narrow: c.conv1d(wide, d, c.output_groups, vb.pp("output.conv1d"))?,
        output_norm: c.norm(LAYER_EPS, vb.pp("output.layernorm"))?,
        settings: Settings {
            heads: c.num_attention_heads,
            activation: c.activation()?,
            dropout: c.hidden_dropout_prob,
            post_attention_dropout: c.hidden_dropout_prob,
            attention_dropout: c.attention_probs_dropout_prob,
        },
    })
}

impl Body for SqueezeBert {
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
        Ok(Arc::new(SqueezeBert::new(
            self,
            layers,
            vb.pp(NAMES.prefix),
        )?))
    }

    fn classifier(&self, labels: usize, vb: VarBuilder) -> Result<ClassifierHead> {
        let (d, pooler) = (self.hidden_size, vb.pp(NAMES.prefix).pp("pooler.dense"));
        Ok(ClassifierHead {
            first_dropout: 0.0,
            dense: optional(|| self.linear(d, d, pooler))?,
            activation: Activation::Tanh,
            dropout: self.hidden_dropout_prob,
            output: head(|| self.linear(d, labels, vb.pp("classifier")))?,
        })
    }

    fn token_classifier(&self, labels: usize, vb: VarBuilder) -> Result<TokenHead> {
        let d = self.hidden_size;
        Ok(TokenHead {
            dropout: self.hidden_dropout_prob,
            output: head(|| self.linear(d, labels, vb.pp("classifier")))?,
        })
    }

    fn pairs(&self, vb: VarBuilder) -> Result<ClassifierHead> {
        let pooler = vb.pp(NAMES.prefix).pp("pooler.dense");
        ClassifierHead::of_pairs(self.hidden_size, [pooler, vb], |inputs, outputs, vb| {
            self.linear(inputs, outputs, vb)
        })
    }

    fn masked(&self, vb: VarBuilder) -> Result<MaskedHead> {
        let (d, vb) = (self.hidden_size, vb.pp("cls.predictions"));
        optional(|| {
            Ok(MaskedHead {
                dense: self.linear(d, d, vb.pp("transform.dense"))?,
                activation: self.activation()?,
                norm: self.norm(self.layer_norm_eps, vb.pp("transform.LayerNorm"))?,
                bias: also_called("decoder.bias", || word_bias(self.vocab_size, vb))?,
            })
        })
    }
}

/// The blocks of the paper's GLUE experiments: matrices and convolution kernels in runs of 4
/// entries, the rest single.
pub fn blocks() -> Blocks {
    Blocks::matrices(Block::Chunks(4))
}
