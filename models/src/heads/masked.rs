//! A masked language model.

use super::ClassifierHead;
use crate::architecture::Architecture;
use crate::encoder::{Encoder, Inputs};
use crate::error::{Error, Result};
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

impl MaskedHead {
    /// From hidden states [.., D] to what is multiplied with the word embedding.
    fn hidden(&self, states: &Handle) -> Result<Handle> {
        let hidden = self.dense.forward_activation(states, self.activation)?; // [.., D]
        Ok(self.norm.normalise(&hidden)?) // [.., D]
    }

    /// From hidden states [.., D] to logits [.., V] with the word embedding [V, D].
    fn forward(&self, states: &Handle, words: &Tensor) -> Result<Tensor> {
        let hidden = self.hidden(states)?;
        let logits = ops::linear(&hidden, words, Some(&self.bias), 1, Activation::Identity)?; // [.., V]
        Ok(logits.exit()?)
    }
}

/// An encoder with the masked language model's head: logits_v = ⟨word_v, LayerNorm(act(W h + b))⟩
/// + c_v, where word_v is the word embedding itself (tied weights).
///
/// With [`MaskedLanguageModel::with_pairs`] it has a second head, which tells what the second part of a sequence is to the
/// first: BERT's next sentence, or the order of two (transformers' `BertForPreTraining`).
#[derive(Clone)]
pub struct MaskedLanguageModel {
    encoder: Encoder,
    head: MaskedHead,
    pairs: Option<ClassifierHead>,
    variables: Variables,
}

/// What stands on the encoder.
#[derive(Clone, Copy, PartialEq)]
enum Heads {
    Words,
    WordsAndPairs,
}

/// The logits of both heads.
#[derive(Clone, Debug)]
pub struct WordsAndPairs {
    /// Of the tokens at the positions that were asked for: [N, V].
    pub words: Tensor,
    /// Of what the second part of each sequence is to the first: [B, 2].
    pub pairs: Tensor,
}

impl MaskedLanguageModel {
    /// A model with random weights, as [`SequenceClassifier::new`](crate::SequenceClassifier::new).
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for too many parameters; candle's errors.
    pub fn new(architecture: &Architecture, start: &Start) -> Result<Self> {
        Self::drawn(architecture, Heads::Words, start)
    }

    /// With a head for pairs, too.
    ///
    /// # Errors
    /// As [`MaskedLanguageModel::new`]; [`Error::Config`] for a family that has no such head.
    pub fn with_pairs(architecture: &Architecture, start: &Start) -> Result<Self> {
        Self::drawn(architecture, Heads::WordsAndPairs, start)
    }

    fn drawn(architecture: &Architecture, heads: Heads, start: &Start) -> Result<Self> {
        let (made, variables) = weights::draw(start, |vb| parts(architecture, heads, vb))?;
        Ok(Self::of(made, variables))
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
        Self::read(folder, architecture, Heads::Words, start)
    }

    /// With a head for pairs, too.
    ///
    /// # Errors
    /// As [`MaskedLanguageModel::load`] and [`MaskedLanguageModel::with_pairs`].
    pub fn load_with_pairs(
        folder: &Path,
        architecture: &Architecture,
        start: &Start,
    ) -> Result<(Self, LoadReport)> {
        Self::read(folder, architecture, Heads::WordsAndPairs, start)
    }

    fn read(
        folder: &Path,
        architecture: &Architecture,
        heads: Heads,
        start: &Start,
    ) -> Result<(Self, LoadReport)> {
        let make = |vb| parts(architecture, heads, vb);
        let (made, variables, report) = weights::load(folder, architecture.prefix(), start, make)?;
        Ok((Self::of(made, variables), report))
    }

    fn of((encoder, head, pairs): Parts, variables: Variables) -> Self {
        Self {
            encoder,
            head,
            pairs,
            variables,
        }
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
        self.head.forward(&last, self.encoder.words())
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
        let last = self.last(input_ids, token_type_ids, attention_mask, mode)?;
        self.said(&last.exit()?, positions)
    }

    /// The logits of both heads: of the tokens at `positions`, as [`MaskedLanguageModel::forward_at`], and of what the
    /// parts of each sequence are to each other.
    ///
    /// # Errors
    /// As [`MaskedLanguageModel::forward_at`]; [`Error::Input`] if the model has no head for pairs.
    pub fn forward_pairs(
        &self,
        input_ids: &Tensor,
        token_type_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        positions: &Tensor,
        mode: &Mode,
    ) -> Result<WordsAndPairs> {
        let (last, pairs) = self.related(input_ids, token_type_ids, attention_mask, mode)?;
        let words = self.said(&last, positions)?;
        Ok(WordsAndPairs { words, pairs })
    }

    /// The mean of -log p of `labels` `[N]`, the tokens at `positions`, in nats, without an array of all logits
    /// ([`ops::linear_cross_entropy`]).
    ///
    /// # Errors
    /// As [`MaskedLanguageModel::forward_at`]; for another number of labels than positions, and one beyond the vocabulary.
    pub fn loss_at(
        &self,
        input_ids: &Tensor,
        token_type_ids: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
        (positions, labels): (&Tensor, &Tensor),
        mode: &Mode,
    ) -> Result<Tensor> {
        let last = self.last(input_ids, token_type_ids, attention_mask, mode)?;
        self.loss_of(&last.exit()?, positions, labels)
    }

    /// The same beside the logits [B, 2] of what the parts of each sequence are to each other.
    ///
    /// # Errors
    /// As [`MaskedLanguageModel::loss_at`] and [`MaskedLanguageModel::forward_pairs`].
    pub fn loss_and_pairs(
        &self,
        input_ids: &Tensor,
        token_type_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        (positions, labels): (&Tensor, &Tensor),
        mode: &Mode,
    ) -> Result<(Tensor, Tensor)> {
        let (last, pairs) = self.related(input_ids, token_type_ids, attention_mask, mode)?;
        Ok((self.loss_of(&last, positions, labels)?, pairs))
    }

    /// The last state [B, T, D], and the logits [B, 2] of pairs.
    fn related(
        &self,
        ids: &Tensor,
        types: &Tensor,
        mask: Option<&Tensor>,
        mode: &Mode,
    ) -> Result<(Tensor, Tensor)> {
        let Some(head) = &self.pairs else {
            return Err(Error::Input {
                what: "model",
                expected: "one with a head for pairs: with_pairs or load_with_pairs".into(),
                got: "one without".into(),
            });
        };
        let last = self.last(ids, Some(types), mask, mode)?.exit()?; // read twice
        let (_, pairs) = head.forward(&Handle::enter(&last)?, mode)?;
        Ok((last, pairs.exit()?))
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

    /// From the last state [B, T, D] to the logits [N, V] at `positions`.
    fn said(&self, last: &Tensor, positions: &Tensor) -> Result<Tensor> {
        let states = self.states(last, positions)?;
        self.head.forward(&states, self.encoder.words())
    }

    fn loss_of(&self, last: &Tensor, positions: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let hidden = self.head.hidden(&self.states(last, positions)?)?;
        let (words, bias) = (self.encoder.words(), Some(&self.head.bias));
        let loss = ops::linear_cross_entropy(&hidden, words, bias, labels, 0.0, None)?;
        Ok(loss.exit()?)
    }

    /// Of the last state [B, T, D] the rows [N, D] at `positions`.
    fn states(&self, last: &Tensor, positions: &Tensor) -> Result<Handle> {
        let width = self.encoder.architecture().width;
        let rows = Handle::enter(&last.reshape(((), width))?)?; // [B·T, D]
        Ok(ops::embedding(positions, &rows)?)
    }

    /// After a checkpoint was read, with what its config.json says beyond the configuration.
    pub(crate) fn after_reading(mut self, others: &Value) -> Self {
        self.encoder = self.encoder.with_fields(others, false);
        self
    }

    /// The part below the head.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}

type Parts = (Encoder, MaskedHead, Option<ClassifierHead>);

fn parts(architecture: &Architecture, heads: Heads, vb: VarBuilder) -> Result<Parts> {
    let encoder = Encoder::new(architecture, vb.clone())?;
    let words = architecture.family.masked(vb.clone())?;
    let pairs = match heads {
        Heads::Words => None,
        Heads::WordsAndPairs => Some(architecture.family.pairs(vb)?),
    };
    Ok((encoder, words, pairs))
}

impl Model for MaskedLanguageModel {
    fn variables(&self) -> &Variables {
        &self.variables
    }

    fn config(&self) -> Value {
        let architecture = self.encoder.architecture();
        let both = self
            .pairs
            .is_some()
            .then_some(architecture.names.pretraining);
        architecture.config_of(both.flatten().unwrap_or("ForMaskedLM"), None)
    }

    fn block(&self, kind: Kind) -> Block {
        runs_of_four(kind)
    }
}
