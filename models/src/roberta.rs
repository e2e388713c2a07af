//! RoBERTa (Liu et al. 2019): BERT trained longer, with positions that count from behind the padding's id,
//! and heads of its own.
//!
//! ```text
//! h₀   = dropout(LayerNorm(word + type + position))      [B, T, D]
//! hᵢ₊₁ = layerᵢ(hᵢ)                                       [B, T, D], see `layer`
//! ```
//! The text's tokens have the positions p + 1, p + 2, … for the padding's id p (1 as a rule), and padding
//! has the position p, wherever it is: a sequence may be as long as the table less p + 1.

use crate::architecture::{Architecture, Body, Family, Groups, Names, Text, check_sizes};
use crate::config::{self, require, within};
use crate::error::Result;
use crate::heads::{ClassifierHead, MaskedHead, TokenHead};
use crate::layer::{Layer, Pass, Settings};
use crate::parts::{dense, table, word_bias};
use crate::weights::{also_called, head, optional};
use adahessian::engine::Handle;
use adahessian::nn::{self, LayerNorm, Linear, VarBuilder};
use adahessian::ops::{self, Activation, Dropout};
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
        let position_kind = &self.position_embedding_type;
        let absolute = position_kind == "absolute";
        require(
            absolute,
            "position_embedding_type",
            "absolute",
            position_kind,
        )?;
        let expected = "false: only encoders are supported";
        require(!self.is_decoder, "is_decoder", expected, true)?;
        require(
            self.tie_word_embeddings,
            "tie_word_embeddings",
            "true",
            false,
        )?;
        let (vocabulary, width) = (self.vocab_size, self.hidden_size);
        let (layers, heads) = (self.num_hidden_layers, self.num_attention_heads);
        let wide = self.intermediate_size;
        let (table, token_types) = (self.max_position_embeddings, self.type_vocab_size);
        check_sizes(
            [vocabulary, width, layers, heads, wide],
            [table, token_types],
        )?;
        within("pad_token_id", self.pad_token_id, 0..=vocabulary - 1)?;
        // The rows of the table that a text's tokens can have.
        let positions = table.saturating_sub(self.pad_token_id + 1);
        let expected = format!("at least pad_token_id + 2 = {}", self.pad_token_id + 2);
        require(positions > 0, "max_position_embeddings", expected, table)?;
        config::probabilities(&[
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            (
                "attention_probs_dropout_prob",
                self.attention_probs_dropout_prob,
            ),
            ("classifier_dropout", self.head_dropout()),
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
    words: Tensor,       // [V, D]
    positions: Tensor,   // [P, D]
    token_types: Tensor, // [K, D]
    norm: LayerNorm,     // [D]
    padding: i64,
    dropout: f64,
    layers: Vec<Layer>,
}

impl Roberta {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (embeddings, layers) = (vb.pp("embeddings"), vb.pp("encoder.layer"));
        let (d, deviation) = (config.hidden_size, config.initializer_range);
        let table = |rows, name| table(rows, d, deviation, embeddings.pp(name));
        let layer = |i| layer(config, layers.pp(i));
        Ok(Self {
            words: table(config.vocab_size, "word_embeddings")?,
            positions: table(config.max_position_embeddings, "position_embeddings")?,
            token_types: table(config.type_vocab_size, "token_type_embeddings")?,
            norm: config.norm(embeddings.pp("LayerNorm"))?,
            padding: config.pad_token_id as i64,
            dropout: config.hidden_dropout_prob,
            layers: (0..config.num_hidden_layers)
                .map(layer)
                .collect::<Result<_>>()?,
        })
    }
}

/// The positions of ids [B, T]: `padding` where there is padding, and counted from `padding` + 1 on
/// over everything else, [B, T].
fn positions(ids: &Tensor, padding: i64) -> Result<Tensor> {
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
        let sum = ops::sum_of_rows(&[
            (&text.ids, &self.words),
            (&text.types, &self.token_types),
            (&positions, &self.positions),
        ])?; // [B, T, D]
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
        Ok(Arc::new(Roberta::new(self, vb.pp(NAMES.prefix))?))
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
