//! A masked language model.

use crate::architecture::Architecture;
use crate::encoder::{Encoder, Inputs};
use crate::error::Result;
use crate::layer::Reach;
use crate::model::{Model, runs_of_four};
use crate::weights::{self, LoadReport, Start, Variables};
use adahessian::engine::Handle;
use adahessian::nn::{LayerNorm, Linear, VarBuilder};
use adahessian::ops::{self, Activation, Mode};
use adahessian::{Block, Kind};
use candle_core::Tensor;
use serde_json::Value;
use std::path::Path;

/// From the last state of a position to that of a word.
#[derive(Clone, Debug)]
pub(crate) struct MaskedHead {
    pub dense: Linear, // [D, D]
    pub activation: Activation,
    pub norm: LayerNorm, // [D]
    pub bias: Tensor,    // [V]
}

/// An encoder with the masked language model's head: logits_v = ⟨word_v, LayerNorm(act(W h + b))⟩
/// + c_v, where word_v is the word embedding itself (tied weights).
#[derive(Clone)]
pub struct MaskedLanguageModel {
    encoder: Encoder,
    head: MaskedHead,
    variables: Variables,
}

impl MaskedLanguageModel {
    /// A model with random weights, as [`SequenceClassifier::new`](crate::SequenceClassifier::new).
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for too many parameters; candle's errors.
    pub fn new(architecture: &Architecture, start: &Start) -> Result<Self> {
        let ((encoder, head), variables) = weights::draw(start, |vb| parts(architecture, vb))?;
        Ok(Self {
            encoder,
            head,
            variables,
        })
    }

    /// A model from a checkpoint; a head that it lacks is initialised and reported.
    ///
    /// # Errors
    /// As [`SequenceClassifier::load`](crate::SequenceClassifier::load).
    pub fn load(
        folder: &Path,
        architecture: &Architecture,
        start: &Start,
    ) -> Result<(Self, LoadReport)> {
        let make = |vb| parts(architecture, vb);
        let ((encoder, head), variables, report) =
            weights::load(folder, architecture.prefix(), start, make)?;
        let model = Self {
            encoder,
            head,
            variables,
        };
        Ok((model, report))
    }

    /// The logits [B, T, V] of the token at every position. Inputs as in
    /// [`SequenceClassifier::forward`](crate::SequenceClassifier::forward).
    ///
    /// # Errors
    /// As there.
    pub fn forward(
        &self,
        input_ids: &Tensor,
        token_type_ids: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
        mode: &Mode,
    ) -> Result<Tensor> {
        let last = self.last(input_ids, token_type_ids, attention_mask, mode)?; // [B, T, D]
        self.said(&last)
    }

    /// The logits [N, V] of the tokens at `positions` alone, `[N]` of u32 or i64, as they lie in `[B·T]`: a seventh of
    /// the head's arithmetic and memory where every seventh token is to be said.
    ///
    /// # Errors
    /// As [`MaskedLanguageModel::forward`]; for a position that is not there.
    pub fn forward_at(
        &self,
        input_ids: &Tensor,
        token_type_ids: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
        positions: &Tensor,
        mode: &Mode,
    ) -> Result<Tensor> {
        let last = self
            .last(input_ids, token_type_ids, attention_mask, mode)?
            .exit()?; // [B, T, D]
        let width = self.encoder.architecture().width;
        let rows = Handle::enter(&last.reshape(((), width))?)?; // [B·T, D]
        self.said(&ops::embedding(positions, &rows)?)
    }

    /// The last hidden state, [B, T, D].
    fn last(
        &self,
        ids: &Tensor,
        types: Option<&Tensor>,
        mask: Option<&Tensor>,
        mode: &Mode,
    ) -> Result<Handle> {
        let inputs = Inputs { ids, types, mask };
        self.encoder.run(inputs, Reach::All, mode, |_| Ok(()))
    }

    /// From hidden states [.., D] to logits [.., V].
    fn said(&self, states: &Handle) -> Result<Tensor> {
        let head = &self.head;
        let hidden = head.dense.forward_activation(states, head.activation)?; // [.., D]
        let hidden = head.norm.normalise(&hidden)?; // [.., D]
        let (words, bias) = (self.encoder.words(), Some(&head.bias));
        let logits = ops::linear(&hidden, words, bias, 1, Activation::Identity)?; // [.., V]
        Ok(logits.exit()?)
    }

    /// The part below the head.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}

fn parts(architecture: &Architecture, vb: VarBuilder) -> Result<(Encoder, MaskedHead)> {
    let encoder = Encoder::new(architecture, vb.clone())?;
    Ok((encoder, architecture.family.masked(vb)?))
}

impl Model for MaskedLanguageModel {
    fn variables(&self) -> &Variables {
        &self.variables
    }

    fn config(&self) -> Value {
        let architecture = self.encoder.architecture();
        architecture.config_of("ForMaskedLM", None)
    }

    fn block(&self, kind: Kind) -> Block {
        runs_of_four(kind)
    }
}
