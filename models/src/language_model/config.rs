//! What a language model is like.

use crate::config::{self, divides, require, within};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What config.json calls it.
pub const MODEL_TYPE: &str = "tensorized_transformer";

const WIDTH: usize = 1 << 16;
const LAYERS: usize = 1 << 12;

/// What the layers attend with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// Multi-linear attention with one or several cores (Ma et al. 2019).
    BlockTerm,
    /// The usual one, with a softmax: the yardstick.
    Standard,
}

/// A language model's config.json. A field that is not there has the value of [`Config::penn_treebank`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Words, with the one that ends a line and the one for all others.
    pub vocab_size: usize,
    /// The width of the hidden states, even.
    pub d_model: usize,
    /// Layers.
    pub num_layers: usize,
    /// What they attend with.
    pub attention: Attention,
    /// Cores of a block-term attention, which are averaged.
    pub cores: usize,
    /// R, the rank of a block-term attention.
    pub rank: usize,
    /// Heads of a standard attention.
    pub attention_heads: usize,
    /// The width of the wide part of a layer.
    pub ffn_dim: usize,
    /// The longest text that is looked at at once, in words.
    pub window: usize,
    /// Block-term attention as in the published code, which lets every word see the whole window: the words to be
    /// foretold among it. For comparisons with that code only; what such a model says is no probability of a text.
    pub reference_unmasked: bool,
    /// Whether a layer normalises what goes in, or the sum that comes out.
    pub normalize_before: bool,
    /// The dropout probability of embeddings, of attention weights, behind the ReLU, and of what each part of a layer
    /// adds.
    pub dropout: f64,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// An adaptive softmax: words from each of these numbers on, up to the next, are foretold in two steps, first the
    /// group and then the word. Empty for a softmax over all words.
    pub cutoffs: Vec<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self::penn_treebank()
    }
}

impl Config {
    /// The paper's for Penn Treebank: 3 layers of width 256 and 2100 with windows of 32 words, one core of rank 40.
    pub fn penn_treebank() -> Self {
        Self {
            vocab_size: 10_000,
            d_model: 256,
            num_layers: 3,
            attention: Attention::BlockTerm,
            cores: 1,
            rank: 40,
            attention_heads: 4,
            ffn_dim: 2100,
            window: 32,
            reference_unmasked: false,
            normalize_before: false,
            dropout: 0.3,
            layer_norm_eps: 1e-5,
            cutoffs: Vec::new(),
        }
    }

    /// The paper's for WikiText-103: 6 layers, windows of 80 words, an adaptive softmax.
    pub fn wikitext_103() -> Self {
        Self {
            vocab_size: 267_735,
            num_layers: 6,
            window: 80,
            cutoffs: vec![20_000, 40_000, 200_000],
            ..Self::penn_treebank()
        }
    }

    /// 2 layers of width 16 with windows of 6 words, and 20 words: for tests.
    pub fn tiny() -> Self {
        Self {
            vocab_size: 20,
            d_model: 16,
            num_layers: 2,
            rank: 5,
            attention_heads: 2,
            ffn_dim: 24,
            window: 6,
            dropout: 0.0,
            ..Self::penn_treebank()
        }
    }

    /// The configuration of this name: `ptb` or `wikitext-103`.
    ///
    /// # Errors
    /// [`Error::Config`] with the names for another one.
    pub fn preset(name: &str) -> Result<Self> {
        match name {
            "ptb" => Ok(Self::penn_treebank()),
            "wikitext-103" => Ok(Self::wikitext_103()),
            _ => Err(Error::Config {
                field: "preset",
                expected: "ptb or wikitext-103".into(),
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
        within("vocab_size", self.vocab_size, 2..=1 << 24)?;
        within("d_model", self.d_model, 2..=WIDTH)?;
        let pairs = self.d_model.is_multiple_of(2);
        let expected = "an even number: positions are pairs of a sine and a cosine";
        require(pairs, "d_model", expected, self.d_model)?;
        within("num_layers", self.num_layers, 1..=LAYERS)?;
        within("cores", self.cores, 1..=1 << 10)?;
        within("rank", self.rank, 1..=1 << 12)?;
        divides("attention_heads", self.attention_heads, &[self.d_model])?;
        within("ffn_dim", self.ffn_dim, 1..=1 << 18)?;
        // A block-term attention's output has a column for each pair of positions.
        let most = match self.attention {
            Attention::BlockTerm => 1 << 10,
            Attention::Standard => 1 << 14,
        };
        // The positions' sines are a table: 2 GiB at most while it is made.
        let most = most.min((1 << 28) / self.d_model);
        within("window", self.window, 1..=most)?;
        let unmasked = self.reference_unmasked && self.attention == Attention::Standard;
        let expected = "false: that is the block-term attention's";
        require(!unmasked, "reference_unmasked", expected, true)?;
        let p = self.dropout;
        require(
            (0.0..1.0).contains(&p),
            "dropout",
            "at least 0 and below 1",
            p,
        )?;
        let eps = self.layer_norm_eps;
        let positive = eps > 0.0 && eps.is_finite();
        require(positive, "layer_norm_eps", "above 0", eps)?;
        let ends = self.cutoffs.iter().chain([&self.vocab_size]);
        let rise = self.cutoffs.iter().zip(ends.skip(1)).all(|(a, b)| a < b);
        let rise = rise && self.cutoffs.first() != Some(&0);
        let expected = "numbers of words that rise, above 0 and below vocab_size";
        require(rise, "cutoffs", expected, format!("{:?}", self.cutoffs))
    }
}
