//! A transformer's layer that normalises after each half, and a pass through several.
//!
//! ```text
//! a  = LayerNorm(h + dropout(P attention(Q h, K h, V h)))
//! h' = LayerNorm(a + dropout(N act(W a)))
//! ```
//! BERT, SqueezeBERT, DistilBERT and RoBERTa are stacks of it; they differ in names, and SqueezeBERT in the
//! groups of the six matrices.

use crate::error::Result;
use adahessian::engine::Handle;
use adahessian::nn::{LayerNorm, Linear};
use adahessian::ops::{self, Activation, Dropout, Mode};
use candle_core::Tensor;

/// One layer of width D, with a wide part of width I.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub query: Linear,             // [D, D]
    pub key: Linear,               // [D, D]
    pub value: Linear,             // [D, D]
    pub post_attention: Linear,    // [D, D]
    pub attention_norm: LayerNorm, // [D]
    pub wide: Linear,              // [I, D]
    pub narrow: Linear,            // [D, I]
    pub output_norm: LayerNorm,    // [D]
    pub settings: Settings,
}

/// What the layers of a model have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub heads: usize,
    pub activation: Activation,
    /// The dropout probability of what the wide part adds to the hidden state.
    pub dropout: f64,
    /// Of what the attention adds.
    pub post_attention_dropout: f64,
    /// Of attention weights.
    pub attention_dropout: f64,
}

impl Layer {
    /// Its output for `positions`, which are all or the first of `hidden`; every position of `hidden` that
    /// `mask` shows is attended to. Dropout goes by the layer's number.
    fn forward(
        &self,
        hidden: &Handle,    // [B, T, D]
        positions: &Handle, // [B, Q, D]
        number: usize,
        mask: Option<&Tensor>, // [B, T]
        mode: &Mode,
    ) -> Result<Handle> {
        let settings = &self.settings;
        let place = |part: &str| format!("layer.{number}.{part}");
        let places = ["attention.weights", "attention", "output"].map(place);
        let weights = Dropout::new(settings.attention_dropout, &places[0], mode);
        let attention = Dropout::new(settings.post_attention_dropout, &places[1], mode);
        let output = Dropout::new(settings.dropout, &places[2], mode);
        let plain = Activation::Identity;

        let q = self.query.forward_activation(positions, plain)?; // [B, Q, D]
        let k = self.key.forward_activation(hidden, plain)?; // [B, T, D]
        let v = self.value.forward_activation(hidden, plain)?; // [B, T, D]
        let context = ops::attention([&q, &k, &v], settings.heads, mask, false, &weights)?; // [B, Q, D]
        let attended = self.post_attention.forward_activation(&context, plain)?; // [B, Q, D]
        let norm = &self.attention_norm;
        let attended = norm.forward_residual(&attended, positions, &attention)?; // [B, Q, D]

        let wide = (self.wide).forward_activation(&attended, settings.activation)?; // [B, Q, I]
        let narrow = self.narrow.forward_activation(&wide, plain)?; // [B, Q, D]
        let norm = &self.output_norm;
        Ok(norm.forward_residual(&narrow, &attended, &output)?) // [B, Q, D]
    }
}

/// The positions of which the last hidden state is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    All,
    /// The first alone, [B, 1, D]: the last layer is computed for no other, which saves all of its
    /// products but those of keys and values.
    First,
}

/// One pass through a stack of layers.
pub(crate) struct Pass<'a> {
    pub mode: &'a Mode,
    pub reach: Reach,
    /// The positions to attend to, [B, T]; all where none.
    pub mask: Option<&'a Tensor>,
    /// Sees the embeddings and the output of every layer.
    pub each: &'a mut dyn FnMut(&Handle) -> Result<()>,
}

impl Pass<'_> {
    /// From the embeddings [B, T, D] to the last hidden state at the positions that `reach` asks for.
    pub fn through(&mut self, layers: &[Layer], embedded: Handle) -> Result<Handle> {
        let mut hidden = embedded; // [B, T, D]
        (self.each)(&hidden)?;
        let last = layers.len().saturating_sub(1);
        for (number, layer) in layers.iter().enumerate() {
            let positions = match self.reach {
                Reach::First if number == last => ops::first_positions(&hidden, 1)?,
                _ => hidden.clone(),
            };
            hidden = layer.forward(&hidden, &positions, number, self.mask, self.mode)?;
            (self.each)(&hidden)?;
        }
        Ok(hidden)
    }
}
