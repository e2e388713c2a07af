//! BERT (Devlin et al. 2019), and the smaller models that have its architecture.

use crate::architecture::{Architecture, Groups, Names};
use crate::config;
use crate::error::Result;
use adahessian::ops::Activation;
use adahessian::{Block, Blocks};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What config.json calls it.
pub const MODEL_TYPE: &str = "bert";

const NAMES: Names = Names {
    model_type: MODEL_TYPE,
    prefix: "bert",
    layers: "layer",
    classifier_class: "BertForSequenceClassification",
    masked_class: "BertForMaskedLM",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    post_attention: "attention.output.dense",
    post_attention_norm: "attention.output.LayerNorm",
    intermediate: "intermediate.dense",
    output: "output.dense",
    output_norm: "output.LayerNorm",
    pointwise: false,
};

/// BERT's config.json. A field that is not there has the value that transformers gives it; fields
/// that do not change the model are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The vocabulary's size.
    pub vocab_size: usize,
    /// The width of the hidden states.
    pub hidden_size: usize,
    /// The number of layers.
    pub num_hidden_layers: usize,
    /// The number of attention heads.
    pub num_attention_heads: usize,
    /// The width of the wide part of a layer.
    pub intermediate_size: usize,
    /// The activation in the wide part: `gelu`, `relu` or `tanh`.
    pub hidden_act: String,
    /// The dropout probability of hidden states.
    pub hidden_dropout_prob: f64,
    /// The dropout probability of attention weights.
    pub attention_probs_dropout_prob: f64,
    /// The dropout probability before the classifier; `hidden_dropout_prob` where it is none.
    pub classifier_dropout: Option<f64>,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// The number of token types.
    pub type_vocab_size: usize,
    /// The standard deviation of initial weights.
    pub initializer_range: f64,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// Only `absolute` is supported.
    pub position_embedding_type: String,
    /// Only encoders are supported.
    pub is_decoder: bool,
    /// Whether the masked language model's decoder is the word embedding; only `true` is supported.
    pub tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            classifier_dropout: None,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            position_embedding_type: "absolute".into(),
            is_decoder: false,
            tie_word_embeddings: true,
        }
    }
}

impl Config {
    /// BERT base, uncased: 12 layers of width 768, 110 million parameters.
    pub fn base() -> Self {
        Self::default()
    }

    /// MiniLM: 6 layers of width 384, 23 million parameters.
    pub fn mini_lm() -> Self {
        Self {
            hidden_size: 384,
            num_hidden_layers: 6,
            intermediate_size: 1536,
            ..Self::default()
        }
    }

    /// BERT mini: 4 layers of width 256, 11 million parameters.
    pub fn mini() -> Self {
        Self {
            hidden_size: 256,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            intermediate_size: 1024,
            ..Self::default()
        }
    }

    /// 2 layers of width 32 and a vocabulary of 128: for tests.
    pub fn tiny() -> Self {
        Self {
            vocab_size: 128,
            hidden_size: 32,
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
            self.position_embedding_type == "absolute",
            "position_embedding_type",
            "absolute",
            &self.position_embedding_type,
        )?;
        config::require(
            !self.is_decoder,
            "is_decoder",
            "false: only encoders are supported",
            true,
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
            groups: Groups::DENSE,
            eps: self.layer_norm_eps,
            layer_eps: self.layer_norm_eps,
            dropout: self.hidden_dropout_prob,
            attention_dropout: self.attention_probs_dropout_prob,
            classifier_dropout: self.classifier_dropout.unwrap_or(self.hidden_dropout_prob),
            initializer_range: self.initializer_range,
        }
        .check()
    }
}

/// The blocks of the paper's GLUE experiments: matrices in runs of 4 entries, the rest single.
pub fn blocks() -> Blocks {
    Blocks::matrices(Block::Chunks(4))
}
