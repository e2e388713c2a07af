//! SqueezeBERT (Iandola et al. 2020): BERT with grouped convolutions of kernel 1 as linear maps.

use crate::architecture::{Architecture, Groups, Names};
use crate::config;
use crate::error::Result;
use adahessian::ops::Activation;
use adahessian::{Block, Blocks};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What config.json calls it.
pub const MODEL_TYPE: &str = "squeezebert";

/// The layers' norms have this ε whatever `layer_norm_eps` says, which is the embedding's: so does
/// transformers, and so were the published checkpoints trained.
const LAYER_EPS: f64 = 1e-12;

const NAMES: Names = Names {
    model_type: MODEL_TYPE,
    prefix: "transformer",
    layers: "layers",
    classifier_class: "SqueezeBertForSequenceClassification",
    masked_class: "SqueezeBertForMaskedLM",
    query: "attention.query",
    key: "attention.key",
    value: "attention.value",
    post_attention: "post_attention.conv1d",
    post_attention_norm: "post_attention.layernorm",
    intermediate: "intermediate.conv1d",
    output: "output.conv1d",
    output_norm: "output.layernorm",
    pointwise: true,
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
    /// [`crate::Error::Config`] for a value that is not supported or does not fit the others.
    pub fn architecture(&self) -> Result<Architecture> {
        config::require(
            self.embedding_size == self.hidden_size,
            "embedding_size",
            format!("{}, equal to hidden_size", self.hidden_size),
            self.embedding_size,
        )?;
        config::require(
            self.tie_word_embeddings,
            "tie_word_embeddings",
            "true",
            false,
        )?;
        let activation: Activation = self.hidden_act.parse()?;
        Architecture {
            names: NAMES,
            config: config::to_json(self, MODEL_TYPE, NAMES.classifier_class, None)?,
            vocabulary: self.vocab_size,
            width: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            intermediate: self.intermediate_size,
            positions: self.max_position_embeddings,
            token_types: self.type_vocab_size,
            activation,
            groups: Groups {
                query: self.q_groups,
                key: self.k_groups,
                value: self.v_groups,
                post_attention: self.post_attention_groups,
                intermediate: self.intermediate_groups,
                output: self.output_groups,
            },
            eps: self.layer_norm_eps,
            layer_eps: LAYER_EPS,
            dropout: self.hidden_dropout_prob,
            attention_dropout: self.attention_probs_dropout_prob,
            classifier_dropout: self.hidden_dropout_prob,
            initializer_range: self.initializer_range,
        }
        .check()
    }
}

/// The blocks of the paper's GLUE experiments: matrices and convolution kernels in runs of 4
/// entries, the rest single.
pub fn blocks() -> Blocks {
    Blocks::matrices(Block::Chunks(4))
}
