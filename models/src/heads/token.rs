//! A classifier of tokens.

use crate::architecture::Architecture;
use crate::encoder::{Encoder, Inputs};
use crate::error::Result;
use crate::labels::Labels;
use crate::layer::Reach;
use crate::model::{Model, runs_of_four};
use crate::weights::{self, LoadReport, Start, Variables};
use adahessian::nn::{Linear, VarBuilder};
use adahessian::ops::{self, Activation, Dropout, Mode};
use adahessian::{Block, Kind};
use candle_core::Tensor;
use serde_json::Value;
use std::path::Path;

/// A map of every position's last state.
#[derive(Clone, Debug)]
pub(crate) struct TokenHead {
    /// The dropout probability in front of it.
    pub dropout: f64,
    pub output: Linear, // [labels, D]
}

/// An encoder with a linear classifier of every position: named entities, parts of speech.
#[derive(Clone)]
pub struct TokenClassifier {
    encoder: Encoder,
    head: TokenHead,
    labels: Labels,
    variables: Variables,
}

impl TokenClassifier {
    /// A classifier with random weights, as [`SequenceClassifier::new`](crate::SequenceClassifier::new).
    ///
    /// # Errors
    /// As there.
    pub fn new(architecture: &Architecture, labels: usize, start: &Start) -> Result<Self> {
        Labels::check(labels)?;
        let ((encoder, head), variables) =
            weights::draw(start, |vb| parts(architecture, labels, vb))?;
        Ok(Self {
            encoder,
            head,
            labels: Labels::nameless(labels),
            variables,
        })
    }

    /// A classifier from a checkpoint; a head that it lacks is initialised and reported.
    ///
    /// # Errors
    /// As [`SequenceClassifier::load`](crate::SequenceClassifier::load).
    pub fn load(
        folder: &Path,
        architecture: &Architecture,
        labels: usize,
        start: &Start,
    ) -> Result<(Self, LoadReport)> {
        Labels::check(labels)?;
        let make = |vb| parts(architecture, labels, vb);
        let ((encoder, head), variables, report) =
            weights::load(folder, architecture.prefix(), start, make)?;
        let model = Self {
            encoder,
            head,
            labels: Labels::nameless(labels),
            variables,
        };
        Ok((model, report))
    }

    /// The logits [B, T, labels] of every position. Inputs as in
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
        let inputs = Inputs {
            ids: input_ids,
            types: token_type_ids,
            mask: attention_mask,
        };
        let last = self.encoder.run(inputs, Reach::All, mode, |_| Ok(()))?; // [B, T, D]
        let dropout = Dropout::new(self.head.dropout, "classifier", mode);
        let dropped = ops::dropout(&last, &dropout)?;
        let output = &self.head.output;
        let logits = output.forward_activation(&dropped, Activation::Identity)?; // [B, T, labels]
        Ok(logits.exit()?)
    }

    /// The number of labels.
    pub fn labels(&self) -> usize {
        self.labels.len()
    }

    /// What the labels are called, by number: `LABEL_0` and so on unless the checkpoint or [`Self::with_label_names`]
    /// said otherwise.
    pub fn label_names(&self) -> &[String] {
        self.labels.names()
    }

    /// Calls the labels so, in config.json, too: what transformers' pipelines answer with.
    ///
    /// A classifier that a checkpoint brought keeps what its labels mean: with a fresh head any names do.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) if there are not as many names, or two are alike; [`Error::Labels`](crate::Error::Labels) if the checkpoint's labels have
    /// other names, or these in another order.
    pub fn with_label_names(mut self, names: &[String]) -> Result<Self> {
        self.labels = self.labels.renamed(names)?;
        Ok(self)
    }

    /// After a checkpoint was read, with its config.json's `id2label`.
    pub(crate) fn after_reading(
        mut self,
        [id2label, others]: [&Value; 2],
        report: &LoadReport,
    ) -> Self {
        self.encoder = self.encoder.with_fields(others, Labels::are_of(report));
        self.labels = self.labels.after_reading(id2label, report);
        self
    }

    /// The part below the head.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}

fn parts(
    architecture: &Architecture,
    labels: usize,
    vb: VarBuilder,
) -> Result<(Encoder, TokenHead)> {
    let encoder = Encoder::new(architecture, vb.clone())?;
    Ok((encoder, architecture.family.token_classifier(labels, vb)?))
}

impl Model for TokenClassifier {
    fn variables(&self) -> &Variables {
        &self.variables
    }

    fn config(&self) -> Value {
        let architecture = self.encoder.architecture();
        architecture.config_of("ForTokenClassification", Some(&self.labels))
    }

    fn block(&self, kind: Kind) -> Block {
        runs_of_four(kind)
    }
}
