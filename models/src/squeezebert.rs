//! SqueezeBERT (Iandola et al. 2020): BERT with grouped convolutions of kernel 1 as linear maps.

use crate::architecture::{Architecture, Body, Family, Groups, Names, Text, check_sizes};
use crate::config::{self, require};
use crate::error::Result;
use crate::heads::{ClassifierHead, MaskedHead, TokenHead};
use crate::layer::{Layer, Pass, Settings};
use crate::parts::{dense, normal, table, word_bias};
use crate::weights::{also_called, head, optional};
use adahessian::engine::Handle;
use adahessian::nn::{self, LayerNorm, Linear, LinearConfig, VarBuilder, init};
use adahessian::ops::{self, Activation, Dropout, EmbeddingTables};
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
        let expected = format!("{}, equal to hidden_size", self.hidden_size);
        let fits = self.embedding_size == self.hidden_size;
        require(fits, "embedding_size", expected, self.embedding_size)?;
        require(
            self.tie_word_embeddings,
            "tie_word_embeddings",
            "true",
            false,
        )?;
        let (vocabulary, width) = (self.vocab_size, self.hidden_size);
        let (layers, heads) = (self.num_hidden_layers, self.num_attention_heads);
        let wide = self.intermediate_size;
        let (positions, token_types) = (self.max_position_embeddings, self.type_vocab_size);
        check_sizes(
            [vocabulary, width, layers, heads, wide],
            [positions, token_types],
        )?;
        config::divides("q_groups", self.q_groups, &[width])?;
        config::divides("k_groups", self.k_groups, &[width])?;
        config::divides("v_groups", self.v_groups, &[width])?;
        config::divides(
            "post_attention_groups",
            self.post_attention_groups,
            &[width],
        )?;
        config::divides(
            "intermediate_groups",
            self.intermediate_groups,
            &[width, wide],
        )?;
        config::divides("output_groups", self.output_groups, &[width, wide])?;
        config::probabilities(&[
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            (
                "attention_probs_dropout_prob",
                self.attention_probs_dropout_prob,
            ),
        ])?;
        config::not_negative(&[
            ("initializer_range", self.initializer_range),
            ("layer_norm_eps", self.layer_norm_eps),
        ])?;
        self.activation()?;
        Ok(Architecture {
            family: Arc::new(self.clone()),
            names: NAMES,
            config: config::to_json(self, MODEL_TYPE)?,
            vocabulary,
            width,
            layers,
            heads,
            intermediate: wide,
            positions,
            token_types,
            groups: Groups {
                query: self.q_groups,
                key: self.k_groups,
                value: self.v_groups,
                post_attention: self.post_attention_groups,
                intermediate: self.intermediate_groups,
                output: self.output_groups,
            },
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
    words: Tensor,       // [V, D]
    positions: Tensor,   // [P, D]
    token_types: Tensor, // [K, D]
    norm: LayerNorm,     // [D]
    dropout: f64,
    layers: Vec<Layer>,
}

impl SqueezeBert {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (embeddings, layers) = (vb.pp("embeddings"), vb.pp("encoder.layers"));
        let (d, deviation) = (config.hidden_size, config.initializer_range);
        let table = |rows, name| table(rows, d, deviation, embeddings.pp(name));
        let layer = |i| layer(config, layers.pp(i));
        Ok(Self {
            words: table(config.vocab_size, "word_embeddings")?,
            positions: table(config.max_position_embeddings, "position_embeddings")?,
            token_types: table(config.type_vocab_size, "token_type_embeddings")?,
            norm: config.norm(config.layer_norm_eps, embeddings.pp("LayerNorm"))?,
            dropout: config.hidden_dropout_prob,
            layers: (0..config.num_hidden_layers)
                .map(layer)
                .collect::<Result<_>>()?,
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
        let tables = EmbeddingTables {
            words: &self.words,
            positions: &self.positions,
            token_types: &self.token_types,
        };
        let sum = ops::embedding_sum(&text.ids, &text.types, &tables)?; // [B, T, D]
        let hidden = self.norm.normalise(&sum)?;
        let dropout = Dropout::new(self.dropout, "embeddings", pass.mode);
        let hidden = ops::dropout(&hidden, &dropout)?;
        pass.through(&self.layers, hidden) // [B, T, D] or [B, 1, D]
    }

    fn words(&self) -> &Tensor {
        &self.words
    }
}

impl Family for Config {
    fn body(&self, vb: VarBuilder) -> Result<Arc<dyn Body>> {
        Ok(Arc::new(SqueezeBert::new(self, vb.pp(NAMES.prefix))?))
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
