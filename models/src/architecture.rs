//! A checked configuration of an encoder, and what a family of encoders gives to make models of.

use crate::config;
use crate::error::{Error, Result};
use crate::heads::{ClassifierHead, MaskedHead, TokenHead};
use crate::labels::Labels;
use crate::layer::Pass;
use adahessian::engine::Handle;
use adahessian::nn::VarBuilder;
use candle_core::Tensor;
use serde_json::Value;
use std::fmt::Debug;
use std::sync::Arc;

/// The number of groups of each linear map of a layer; 1 is a dense matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Of the queries' map.
    pub query: usize,
    /// Of the keys' map.
    pub key: usize,
    /// Of the values' map.
    pub value: usize,
    /// Of the map after the attention.
    pub post_attention: usize,
    /// Of the map into the wide part.
    pub intermediate: usize,
    /// Of the map out of the wide part.
    pub output: usize,
}

impl Groups {
    /// No groups anywhere.
    pub const DENSE: Self = Self {
        query: 1,
        key: 1,
        value: 1,
        post_attention: 1,
        intermediate: 1,
        output: 1,
    };
}

/// A checked description of an encoder: made by [`crate::bert::Config::architecture`] and the other
/// families'.
#[derive(Clone, Debug)]
pub struct Architecture {
    pub(crate) family: Arc<dyn Family>,
    pub(crate) names: Names,
    /// The configuration for config.json, without what a task adds.
    pub(crate) config: Value,
    /// The vocabulary's size V.
    pub vocabulary: usize,
    /// The width D of the hidden states.
    pub width: usize,
    /// The number of layers.
    pub layers: usize,
    /// The number of attention heads.
    pub heads: usize,
    /// The width of the wide part of a layer.
    pub intermediate: usize,
    /// The longest sequence.
    pub positions: usize,
    /// The number of token types; 0 where there are none, and those that are given are not looked at.
    pub token_types: usize,
    /// The groups of the linear maps.
    pub groups: Groups,
}

/// What a family is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// In config.json.
    pub model_type: &'static str,
    /// The encoder's variables begin with it.
    pub prefix: &'static str,
    /// What transformers' classes begin with.
    pub class: &'static str,
    /// And what the one ends with that has both heads of a pretraining, where there is one.
    pub pretraining: Option<&'static str>,
}

/// A family of encoders, by its configuration: what is made of it, and under which names.
pub(crate) trait Family: Debug + Send + Sync {
    /// From ids to hidden states, with this many layers.
    fn body(&self, layers: usize, vb: VarBuilder) -> Result<Arc<dyn Body>>;
    /// The head of sequence classification.
    fn classifier(&self, labels: usize, vb: VarBuilder) -> Result<ClassifierHead>;
    /// The head of token classification.
    fn token_classifier(&self, labels: usize, vb: VarBuilder) -> Result<TokenHead>;
    /// The masked language model's head.
    fn masked(&self, vb: VarBuilder) -> Result<MaskedHead>;
    /// The head that tells what the second part of a sequence is to the first.
    fn pairs(&self, _: VarBuilder) -> Result<ClassifierHead> {
        Err(Error::Config {
            field: "model_type",
            expected: "`bert` or `squeezebert`, which have a head for pairs of sentences".into(),
            got: "a family that has none".into(),
        })
    }
}

/// What heads stand on.
pub(crate) trait Body: Debug + Send + Sync {
    /// The last hidden state, [B, T, D], or [B, 1, D] where the pass asks for no more.
    fn forward(&self, text: &Text, pass: &mut Pass) -> Result<Handle>;
    /// The word embedding, [V, D].
    fn words(&self) -> &Tensor;
}

/// What an encoder reads, checked and on the CPU: both [B, T].
pub(crate) struct Text {
    pub ids: Tensor,
    /// Token types.
    pub types: Tensor,
}

impl Architecture {
    /// The architecture's name in config.json.
    pub fn model_type(&self) -> &'static str {
        self.names.model_type
    }

    /// What the encoder's variables are called below: `bert`, `transformer`.
    pub fn prefix(&self) -> &'static str {
        self.names.prefix
    }

    /// config.json of transformers' class for this task.
    pub(crate) fn config_of(&self, task: &str, labels: Option<&Labels>) -> Value {
        let class = format!("{}{task}", self.names.class);
        let mut config = self.config.clone();
        // The field may have been changed since; DistilBERT's files may have both names of it.
        for name in ["num_hidden_layers", "n_layers"] {
            if let Some(layers) = config.get_mut(name) {
                *layers = self.layers.into();
            }
        }
        config::for_class(&config, class, labels)
    }
}
