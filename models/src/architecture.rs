//! What BERT and SqueezeBERT have in common: sizes, groups, and the names of the variables.
//!
//! The two are one architecture. Both are stacks of post-norm layers
//! ```text
//! a = LayerNorm(h + dropout(P attention(Q h, K h, V h)))
//! h' = LayerNorm(a + dropout(O gelu(I a)))
//! ```
//! where SqueezeBERT (Iandola et al. 2020) splits the matrices Q, K, V, P, I, O into groups (as
//! convolutions of kernel 1) and names them differently.

use crate::error::Result;
use crate::weights::{Fill, Parameter};
use adahessian::ops::Activation;
use serde_json::Value;

/// The names of one layer's parts below `PREFIX.encoder.LAYERS.N.`, and of the whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub model_type: &'static str,
    pub prefix: &'static str,
    pub layers: &'static str,
    pub classifier_class: &'static str,
    pub masked_class: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub post_attention: &'static str,
    pub post_attention_norm: &'static str,
    pub intermediate: &'static str,
    pub output: &'static str,
    pub output_norm: &'static str,
    /// Weights of the layers are [out, in/groups, 1].
    pub pointwise: bool,
}

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

/// A checked description of an encoder: made by [`crate::bert::Config::architecture`] and
/// [`crate::squeezebert::Config::architecture`].
#[derive(Clone, Debug)]
pub struct Architecture {
    pub(crate) names: Names,
    /// The configuration for config.json.
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
    /// The number of token types.
    pub token_types: usize,
    /// The activation in the wide part.
    pub activation: Activation,
    /// The groups of the linear maps.
    pub groups: Groups,
    /// ε of the embedding's layer norm and of the masked language model's.
    pub eps: f64,
    /// ε of the layers' layer norms.
    pub layer_eps: f64,
    /// The dropout probability of hidden states.
    pub dropout: f64,
    /// The dropout probability of attention weights.
    pub attention_dropout: f64,
    /// The dropout probability before the classifier.
    pub classifier_dropout: f64,
    /// The standard deviation of weights that no checkpoint gives.
    pub initializer_range: f64,
}

/// One linear map of a layer: its name below the layer, sizes and groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Map {
    pub name: &'static str,
    pub inputs: usize,
    pub outputs: usize,
    pub groups: usize,
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

    pub(crate) fn layer_prefix(&self, layer: usize) -> String {
        format!(
            "{}.encoder.{}.{layer}",
            self.names.prefix, self.names.layers
        )
    }

    /// The six linear maps of a layer: query, key, value, post-attention, intermediate, output.
    pub(crate) fn maps(&self) -> [Map; 6] {
        let (names, groups) = (&self.names, &self.groups);
        let (width, wide) = (self.width, self.intermediate);
        let map = |name, inputs, outputs, groups| Map {
            name,
            inputs,
            outputs,
            groups,
        };
        [
            map(names.query, width, width, groups.query),
            map(names.key, width, width, groups.key),
            map(names.value, width, width, groups.value),
            map(names.post_attention, width, width, groups.post_attention),
            map(names.intermediate, width, wide, groups.intermediate),
            map(names.output, wide, width, groups.output),
        ]
    }

    /// Everything up to the last hidden state.
    pub(crate) fn encoder_parameters(&self) -> Vec<Parameter> {
        let embeddings = format!("{}.embeddings", self.names.prefix);
        let table = |name: &str, rows| {
            Parameter::new(
                format!("{embeddings}.{name}.weight"),
                &[rows, self.width],
                Fill::Normal,
            )
        };
        let mut all = vec![
            table("word_embeddings", self.vocabulary),
            table("position_embeddings", self.positions),
            table("token_type_embeddings", self.token_types),
        ];
        all.extend(norm(&format!("{embeddings}.LayerNorm"), self.width));
        for layer in 0..self.layers {
            let layer = self.layer_prefix(layer);
            for map in self.maps() {
                let name = format!("{layer}.{}", map.name);
                let mut shape = vec![map.outputs, map.inputs / map.groups];
                if self.names.pointwise {
                    shape.push(1);
                }
                all.push(Parameter::new(
                    format!("{name}.weight"),
                    &shape,
                    Fill::Normal,
                ));
                all.push(Parameter::new(
                    format!("{name}.bias"),
                    &[map.outputs],
                    Fill::Zeros,
                ));
            }
            for name in [self.names.post_attention_norm, self.names.output_norm] {
                all.extend(norm(&format!("{layer}.{name}"), self.width));
            }
        }
        all
    }

    /// The pooler and the classifier; a checkpoint need not have them.
    pub(crate) fn classifier_parameters(&self, labels: usize) -> Vec<Parameter> {
        let pooler = format!("{}.pooler.dense", self.names.prefix);
        let mut all = dense(&pooler, self.width, self.width);
        all.extend(dense("classifier", self.width, labels));
        all.into_iter().map(Parameter::optional).collect()
    }

    /// The masked language model's head without the decoder, whose weight is the word embedding.
    pub(crate) fn masked_parameters(&self) -> Vec<Parameter> {
        let head = "cls.predictions";
        let mut all = dense(&format!("{head}.transform.dense"), self.width, self.width);
        all.extend(norm(&format!("{head}.transform.LayerNorm"), self.width));
        all.push(
            Parameter::new(format!("{head}.bias"), &[self.vocabulary], Fill::Zeros)
                .also_called(format!("{head}.decoder.bias")),
        );
        all.into_iter().map(Parameter::optional).collect()
    }

    /// The sizes that must fit together.
    pub(crate) fn check(self) -> Result<Self> {
        use crate::config::require;
        let (width, heads) = (self.width, self.heads);
        require(width > 0, "hidden_size", "at least 1", width)?;
        require(
            self.vocabulary > 0,
            "vocab_size",
            "at least 1",
            self.vocabulary,
        )?;
        require(
            self.token_types > 0,
            "type_vocab_size",
            "at least 1",
            self.token_types,
        )?;
        require(
            self.positions > 0,
            "max_position_embeddings",
            "at least 1",
            self.positions,
        )?;
        require(
            self.intermediate > 0,
            "intermediate_size",
            "at least 1",
            self.intermediate,
        )?;
        let fits = heads > 0 && width.is_multiple_of(heads);
        require(
            fits,
            "num_attention_heads",
            format!("a divisor of hidden_size = {width}"),
            heads,
        )?;
        let fields = [
            "q_groups",
            "k_groups",
            "v_groups",
            "post_attention_groups",
            "intermediate_groups",
            "output_groups",
        ];
        for (field, map) in fields.into_iter().zip(self.maps()) {
            let (i, o, g) = (map.inputs, map.outputs, map.groups);
            let fits = g > 0 && i.is_multiple_of(g) && o.is_multiple_of(g);
            require(fits, field, format!("a divisor of {i} and {o}"), g)?;
        }
        for (field, p) in [
            ("hidden_dropout_prob", self.dropout),
            ("attention_probs_dropout_prob", self.attention_dropout),
            ("classifier_dropout", self.classifier_dropout),
        ] {
            require((0.0..1.0).contains(&p), field, "at least 0 and below 1", p)?;
        }
        Ok(self)
    }
}

fn dense(name: &str, inputs: usize, outputs: usize) -> Vec<Parameter> {
    vec![
        Parameter::new(format!("{name}.weight"), &[outputs, inputs], Fill::Normal),
        Parameter::new(format!("{name}.bias"), &[outputs], Fill::Zeros),
    ]
}

/// `gamma` and `beta` are the names in checkpoints that came from TensorFlow.
fn norm(name: &str, width: usize) -> Vec<Parameter> {
    vec![
        Parameter::new(format!("{name}.weight"), &[width], Fill::Ones)
            .also_called(format!("{name}.gamma")),
        Parameter::new(format!("{name}.bias"), &[width], Fill::Zeros)
            .also_called(format!("{name}.beta")),
    ]
}
