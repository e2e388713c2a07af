//! What a transformer is like.

use super::FIRST;
use crate::config::{self, divides, require, within};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What config.json calls it.
pub const MODEL_TYPE: &str = "transformer";

const WIDTH: usize = 1 << 16;
const WIDE: usize = 1 << 18;
const LAYERS: usize = 1 << 12;

/// A transformer's config.json. A field that is not there has the value of [`Config::base`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The joint vocabulary's size: source, target and output share one table.
    pub vocab_size: usize,
    /// The width of the hidden states, even.
    pub d_model: usize,
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Heads of every attention.
    pub attention_heads: usize,
    /// The width of the wide part of a layer.
    pub ffn_dim: usize,
    /// Whether a layer normalises what goes in (and the last one what comes out, too), or the sum that
    /// comes out.
    pub normalize_before: bool,
    /// The dropout probability of embeddings and of what each part of a layer adds to the hidden state.
    pub dropout: f64,
    /// Of attention weights.
    pub attention_dropout: f64,
    /// Behind the ReLU of the wide part.
    pub activation_dropout: f64,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// The longest sequence in tokens.
    pub max_position_embeddings: usize,
    /// The token that fills up a batch.
    pub pad_token_id: u32,
    /// The token that ends a sentence, and begins what the decoder is given.
    pub eos_token_id: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self::base()
    }
}

impl Config {
    /// The paper's model for WMT14 (Vaswani et al. 2017, base): 6 and 6 layers of width 512 and 2048 with 8
    /// heads, a joint vocabulary of 37,000.
    pub fn base() -> Self {
        Self {
            vocab_size: 37_000,
            d_model: 512,
            encoder_layers: 6,
            decoder_layers: 6,
            attention_heads: 8,
            ffn_dim: 2048,
            normalize_before: true,
            dropout: 0.1,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
            layer_norm_eps: 1e-5,
            max_position_embeddings: 1024,
            pad_token_id: 1,
            eos_token_id: 2,
        }
    }

    /// The paper's model for IWSLT14: 6 and 6 layers of width 512 and 1024 with 4 heads, a joint
    /// vocabulary of 10,000; dropout as in the published code.
    pub fn iwslt() -> Self {
        Self {
            vocab_size: 10_000,
            attention_heads: 4,
            ffn_dim: 1024,
            dropout: 0.3,
            attention_dropout: 0.1,
            activation_dropout: 0.1,
            ..Self::base()
        }
    }

    /// 3 and 3 layers of width 256 and 512 with 4 heads: for data like Multi30k's 29,000 sentences.
    pub fn small() -> Self {
        Self {
            d_model: 256,
            encoder_layers: 3,
            decoder_layers: 3,
            ffn_dim: 512,
            ..Self::iwslt()
        }
    }

    /// 2 and 2 layers of width 32, and 40 words: for tests.
    pub fn tiny() -> Self {
        Self {
            vocab_size: 40,
            d_model: 32,
            encoder_layers: 2,
            decoder_layers: 2,
            attention_heads: 4,
            ffn_dim: 64,
            dropout: 0.0,
            max_position_embeddings: 64,
            ..Self::base()
        }
    }

    /// The configuration of this name: `base`, `iwslt` or `small`.
    ///
    /// # Errors
    /// [`Error::Config`] with the names for another one.
    pub fn preset(name: &str) -> Result<Self> {
        match name {
            "base" => Ok(Self::base()),
            "iwslt" => Ok(Self::iwslt()),
            "small" => Ok(Self::small()),
            _ => Err(Error::Config {
                field: "preset",
                expected: "base, iwslt or small".into(),
                got: format!("`{name}`"),
            }),
        }
    }

    /// Reads config.json from a folder.
    ///
    /// # Errors
    /// [`Error::Architecture`] naming both for another `model_type`; [`Error::File`] and [`Error::Config`]
    /// for malformed ones.
    pub fn read(folder: &Path) -> Result<Self> {
        let config: Self = config::read_as(&config::path_in(folder), MODEL_TYPE)?;
        config.check()?;
        Ok(config)
    }

    /// Checks every field, before memory is asked for.
    ///
    /// # Errors
    /// [`Error::Config`] for the first that is out of its range or does not fit the others.
    pub fn check(&self) -> Result<()> {
        within("vocab_size", self.vocab_size, 4..=1 << 24)?;
        within("d_model", self.d_model, 4..=WIDTH)?;
        let pairs = self.d_model.is_multiple_of(2);
        let expected = "an even number: positions are pairs of a sine and a cosine";
        require(pairs, "d_model", expected, self.d_model)?;
        within("encoder_layers", self.encoder_layers, 0..=LAYERS)?;
        within("decoder_layers", self.decoder_layers, 0..=LAYERS)?;
        divides("attention_heads", self.attention_heads, &[self.d_model])?;
        within("ffn_dim", self.ffn_dim, 1..=WIDE)?;
        let positions = self.max_position_embeddings;
        // Their sines are a table: 2 GiB at most while it is made.
        let most = (1 << 28) / self.d_model - FIRST as usize;
        within("max_position_embeddings", positions, 1..=most.min(1 << 16))?;
        for (field, id) in [
            ("pad_token_id", self.pad_token_id),
            ("eos_token_id", self.eos_token_id),
        ] {
            within(field, id as usize, 0..=self.vocab_size - 1)?;
        }
        let different = self.pad_token_id != self.eos_token_id;
        // Its mask would hide every sentence's end, and the decoder's first token.
        let expected = "another id than pad_token_id";
        require(different, "eos_token_id", expected, self.eos_token_id)?;
        for (field, p) in [
            ("dropout", self.dropout),
            ("attention_dropout", self.attention_dropout),
            ("activation_dropout", self.activation_dropout),
        ] {
            require((0.0..1.0).contains(&p), field, "at least 0 and below 1", p)?;
        }
        let eps = self.layer_norm_eps;
        require(
            eps > 0.0 && eps.is_finite(),
            "layer_norm_eps",
            "above 0",
            eps,
        )
    }
}
