//! RoBERTa (Liu et al. 2019): BERT trained longer, with positions that count from behind the padding's id,
//! and heads of its own.
//!
//! ```text
//! h₀   = dropout(LayerNorm(word + type + position))      [B, T, D]
//! hᵢ₊₁ = layerᵢ(hᵢ)                                       [B, T, D], see `layer`
//! ```
//! The text's tokens have the positions p + 1, p + 2, … for the padding's id p (1 as a rule), and padding
//! has the position p, wherever it is: a sequence may be as long as the table less p + 1.

use crate::architecture::{Architecture, Body, Family, Groups, Names, Text};
use crate::config::{self, require, within};
use crate::embeddings::{self, Embeddings};
use crate::error::Result;
use crate::heads::{ClassifierHead, MaskedHead, TokenHead};
use crate::layer::{Layer, Pass, Settings};
use crate::limits;
use crate::parts::{dense, word_bias};
use crate::weights::{also_called, head, optional};
use adahessian::engine::Handle;
use adahessian::nn::{self, LayerNorm, Linear, VarBuilder};
use adahessian::ops::Activation;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// What config.json calls it.
pub const MODEL_TYPE: &str = "roberta";

const NAMES: Names = Names {
    model_type: MODEL_TYPE,
    prefix: "roberta",
    class: "Roberta",
    pretraining: None,
};

/// RoBERTa's config.json. A field that is not there has the value that transformers gives it; fields
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
    /// The dropout probability in the heads of classifiers; `hidden_dropout_prob` where it is none.
    pub classifier_dropout: Option<f64>,
    /// Rows of the table of positions, `pad_token_id` + 1 more than the longest sequence has.
    pub max_position_embeddings: usize,
    /// The number of token types.
    pub type_vocab_size: usize,
    /// The standard deviation of initial weights.
    pub initializer_range: f64,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// The id of padding.
    pub pad_token_id: usize,
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
            vocab_size: 50265,
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
            pad_token_id: 1,
            position_embedding_type: "absolute".into(),
            is_decoder: false,
            tie_word_embeddings: true,
        }
    }
}

impl Config {
    /// RoBERTa base: 12 layers of width 768, 125 million parameters.
    pub fn base() -> Self {
        Self {
            max_position_embeddings: 514,
            type_vocab_size: 1,
            layer_norm_eps: 1e-5,
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
            max_position_embeddings: 34,
            ..Self::base()
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
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        config::divides("num_attention_heads", heads, &[width])?;
        within("pad_token_id", self.pad_token_id, 0..=self.vocab_size - 1)?;
        let (table, least) = (self.max_position_embeddings, self.pad_token_id + 2);
        let expected = format!("at least pad_token_id + 2 = {least}");
        require(table >= least, "max_position_embeddings", expected, table)?;
        self.activation()?;
        let share = self.head_dropout();
        let expected = "at least 0 and below 1";
        require(
            (0.0..1.0).contains(&share),
            "classifier_dropout",
            expected,
            share,
        )?;
        Ok(Architecture {
            family: Arc::new(self.clone()),
            names: NAMES,
            config,
            vocabulary: self.vocab_size,
            width: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            intermediate: self.intermediate_size,
            positions: table - least + 1, // the rows behind the padding's
            // The published ones have one type, and are never given any, whatever their tokenizer says.
            token_types: match self.type_vocab_size {
                1 => 0,
                several => several,
            },
            groups: Groups::DENSE,
        })
    }

    fn activation(&self) -> Result<Activation> {
        Ok(self.hidden_act.parse()?)
    }

    fn head_dropout(&self) -> f64 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    /// Normal weights, biases of 0.
    fn linear(&self, inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Linear> {
        dense(inputs, outputs, self.initializer_range, vb)
    }

    fn norm(&self, vb: VarBuilder) -> Result<LayerNorm> {
        Ok(nn::layer_norm(self.hidden_size, self.layer_norm_eps, vb)?)
    }
}

/// The encoder.
#[derive(Clone, Debug)]
struct Roberta {
    embeddings: Embeddings,
    padding: usize,
    layers: Vec<Layer>,
}

impl Roberta {
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
        let layers = vb.pp("encoder.layer");
        let layers = (0..count).map(|i| layer(config, layers.pp(i)));
        Ok(Self {
            embeddings: Embeddings::new(&tables, vb.pp("embeddings"))?,
            padding: config.pad_token_id,
            layers: layers.collect::<Result<_>>()?,
        })
    }
}

/// The positions of ids [B, T]: `padding` where there is padding, and counted from `padding` + 1 on
/// over everything else, [B, T].
fn positions(ids: &Tensor, padding: usize) -> Result<Tensor> {
    let padding = padding as i64;
    let rows = ids.to_dtype(DType::I64)?.to_vec2::<i64>()?;
    let of_row = |row: &Vec<i64>| {
        let mut count = 0;
        let of_id = |id: &i64| match *id == padding {
            true => padding,
            false => {
                count += 1;
                padding + count
            }
        };
        row.iter().map(of_id).collect::<Vec<_>>()
    };
    let all = rows.iter().flat_map(of_row).collect();
    Ok(Tensor::from_vec::<_, i64>(all, ids.shape(), &Device::Cpu)?)
}

fn layer(config: &Config, vb: VarBuilder) -> Result<Layer> {
    let (d, wide) = (config.hidden_size, config.intermediate_size);
    let attention = vb.pp("attention");
    Ok(Layer {
        query: config.linear(d, d, attention.pp("self.query"))?,
        key: config.linear(d, d, attention.pp("self.key"))?,
        value: config.linear(d, d, attention.pp("self.value"))?,
        post_attention: config.linear(d, d, attention.pp("output.dense"))?,
        attention_norm: config.norm(attention.pp("output.LayerNorm"))?,
        wide: config.linear(d, wide, vb.pp("intermediate.dense"))?,
        narrow: config.linear(wide, d, vb.pp("output.dense"))?,
        output_norm: config.norm(vb.pp("output.LayerNorm"))?,
        settings: Settings {
            heads: config.num_attention_heads,
            activation: config.activation()?,
            dropout: config.hidden_dropout_prob,
            post_attention_dropout: config.hidden_dropout_prob,
            attention_dropout: config.attention_probs_dropout_prob,
        },
    })
}

impl Body for Roberta {
    fn forward(&self, text: &Text, pass: &mut Pass) -> Result<Handle> {
        let positions = positions(&text.ids, self.padding)?; // [B, T]
        let hidden = (self.embeddings).forward(text, Some(positions), pass.mode)?; // [B, T, D]
        pass.through(&self.layers, hidden) // [B, T, D], or [B, 1, D]
    }

    fn words(&self) -> &Tensor {
        &self.embeddings.words
    }
}

impl Family for Config {
    fn body(&self, layers: usize, vb: VarBuilder) -> Result<Arc<dyn Body>> {
        Ok(Arc::new(Roberta::new(self, layers, vb.pp(NAMES.prefix))?))
    }

    fn classifier(&self, labels: usize, vb: VarBuilder) -> Result<ClassifierHead> {
        let (d, vb) = (self.hidden_size, vb.pp("classifier"));
        head(|| {
            Ok(ClassifierHead {
                first_dropout: self.head_dropout(),
                dense: self.linear(d, d, vb.pp("dense"))?,
                activation: Activation::Tanh,
                dropout: self.head_dropout(),
                output: self.linear(d, labels, vb.pp("out_proj"))?,
            })
        })
    }

    fn token_classifier(&self, labels: usize, vb: VarBuilder) -> Result<TokenHead> {
        let d = self.hidden_size;
        Ok(TokenHead {
            dropout: self.head_dropout(),
            output: head(|| self.linear(d, labels, vb.pp("classifier")))?,
        })
    }

    fn masked(&self, vb: VarBuilder) -> Result<MaskedHead> {
        let (d, vb) = (self.hidden_size, vb.pp("lm_head"));
        optional(|| {
            Ok(MaskedHead {
                dense: self.linear(d, d, vb.pp("dense"))?,
                // Whatever `hidden_act` says: so does transformers.
                activation: Activation::Gelu,
                norm: self.norm(vb.pp("layer_norm"))?,
                bias: also_called("decoder.bias", || word_bias(self.vocab_size, vb))?,
            })
        })
    }
}
