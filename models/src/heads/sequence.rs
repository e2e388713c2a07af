//! A classifier of sequences.

use crate::architecture::Architecture;
use crate::encoder::{Encoder, Inputs};
use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::layer::Reach;
use crate::model::{Model, runs_of_four};
use crate::weights::{self, LoadReport, Start, Variables, optional};
use adahessian::engine::Handle;
use adahessian::nn::{Linear, VarBuilder};
use adahessian::ops::{self, Activation, Dropout, Mode};
use adahessian::{Block, Kind};
use candle_core::Tensor;
use serde_json::Value;
use std::path::Path;

/// Two maps of the first position's last state.
#[derive(Clone, Debug)]
pub(crate) struct ClassifierHead {
    /// The dropout probability in front of the first map.
    pub first_dropout: f64,
    pub dense: Linear, // [D, D]
    pub activation: Activation,
    /// The dropout probability in front of the second map.
    pub dropout: f64,
    pub output: Linear, // [labels, D]
}

impl ClassifierHead {
    /// The head of BERT's pretraining that tells what two parts of a sequence are to each other: its pooler, which
    /// classifiers take over, and a map of its own below `vb`.
    pub(crate) fn of_pairs(
        width: usize,
        [pooler, vb]: [VarBuilder; 2],
        linear: impl Fn(usize, usize, VarBuilder) -> Result<Linear>,
    ) -> Result<Self> {
        Ok(Self {
            first_dropout: 0.0,
            dense: optional(|| linear(width, width, pooler))?,
            activation: Activation::Tanh,
            dropout: 0.0,
            output: optional(|| linear(width, 2, vb.pp("cls.seq_relationship")))?,
        })
    }

    /// The pooled state [B, D] and the logits [B, labels] from the last hidden state.
    pub(crate) fn forward(&self, last: &Handle, mode: &Mode) -> Result<(Handle, Handle)> {
        let &[batch, _, width] = last.dims() else {
            return Err(Error::Input {
                what: "last hidden state",
                expected: "[batch, positions, width]".into(),
                got: format!("{:?}", last.dims()),
            });
        };
        let first = ops::first_positions(last, 1)?; // [B, 1, D]
        let first = ops::reshape(&first, &[batch, width])?; // [B, D]
        let dropout = Dropout::new(self.first_dropout, "classifier.first", mode);
        let first = ops::dropout(&first, &dropout)?;
        let pooled = self.dense.forward_activation(&first, self.activation)?; // [B, D]
        let dropout = Dropout::new(self.dropout, "classifier", mode);
        let dropped = ops::dropout(&pooled, &dropout)?;
        let logits = (self.output).forward_activation(&dropped, Activation::Identity)?; // [B, labels]
        Ok((pooled, logits))
    }
}

/// Everything that a classifier computes on the way.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The embeddings' output and every layer's: [B, T, D] each.
    pub hidden_states: Vec<Tensor>,
    /// An activation of a linear map of the first position's last state: [B, D].
    pub pooled: Tensor,
    /// The classifier's output: [B, labels].
    pub logits: Tensor,
}

/// What a classifier of sequences is trained for: config.json's `problem_type`, by which transformers chooses a loss, and
/// its pipelines what they make of the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A number each: the mean squared error; outputs as they are.
    Regression,
    /// One of several classes: the cross entropy; a softmax.
    SingleLabel,
    /// Any of several classes: the binary cross entropy of each; sigmoids.
    MultiLabel,
}

impl Problem {
    /// The name in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Problem::Regression => "regression",
            Problem::SingleLabel => "single_label_classification",
            Problem::MultiLabel => "multi_label_classification",
        }
    }
}

/// An encoder with a linear map, an activation and a linear classifier of the first position: GLUE's tasks.
/// One label is regression, several are classes of which one is right, unless a checkpoint or
/// [`SequenceClassifier::with_problem`] says otherwise.
#[derive(Clone)]
pub struct SequenceClassifier {
    encoder: Encoder,
    head: ClassifierHead,
    labels: Labels,
    /// config.json's `problem_type`, where it is not the one that follows from the labels: null for none.
    problem: Option<Value>,
    variables: Variables,
}

impl SequenceClassifier {
    /// A classifier with random weights: normal with the configuration's `initializer_range`,
    /// biases 0, layer norms 1 and 0, each a function of the seed and the variable's name.
    ///
    /// # Errors
    /// [`Error::Input`] for no labels, or too many; [`Error::Config`] for too many parameters; candle's
    /// errors.
    pub fn new(architecture: &Architecture, labels: usize, start: &Start) -> Result<Self> {
        Labels::check(labels)?;
        let ((encoder, head), variables) =
            weights::draw(start, |vb| parts(architecture, labels, vb))?;
        Ok(Self {
            encoder,
            head,
            labels: Labels::nameless(labels),
            problem: None,
            variables,
        })
    }

    /// A classifier from the `model.safetensors` (or the shards) of a folder. A head, or a part of it, that
    /// the checkpoint lacks is initialised as in [`Self::new`] and reported; every other missing tensor is
    /// an error. What config.json says of the labels and the problem is not read: that does
    /// [`auto::sequence_classifier`](crate::auto::sequence_classifier).
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`], [`Error::TensorType`], [`Error::File`]; as
    /// [`Self::new`].
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
            problem: None,
            variables,
        };
        Ok((model, report))
    }

    /// The logits [B, labels].
    ///
    /// `input_ids` [B, T] u32; `token_type_ids` [B, T], zeros where none; `attention_mask` [B, T],
    /// 1 = text, ones where none.
    ///
    /// # Errors
    /// [`Error::Input`] for inputs that do not fit the model, see [`Encoder::hidden_states`].
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
        let last = self.encoder.run(inputs, Reach::First, mode, |_| Ok(()))?; // [B, 1, D]
        let (_, logits) = self.head.forward(&last, mode)?;
        Ok(logits.exit()?)
    }

    /// The logits and everything before them. In training the dropout of the last layer is drawn for
    /// all positions here, for the first alone in [`Self::forward`]; otherwise the logits are the same.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn outputs(
        &self,
        input_ids: &Tensor,
        token_type_ids: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
        mode: &Mode,
    ) -> Result<Outputs> {
        let inputs = Inputs {
            ids: input_ids,
            types: token_type_ids,
            mask: attention_mask,
        };
        let mut hidden_states = Vec::new();
        let last = self.encoder.run(inputs, Reach::All, mode, |state| {
            hidden_states.push(state.exit()?);
            Ok(())
        })?;
        let (pooled, logits) = self.head.forward(&last, mode)?;
        Ok(Outputs {
            hidden_states,
            pooled: pooled.exit()?,
            logits: logits.exit()?,
        })
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
    /// [`Error::Input`] if there are not as many names, or two are alike; [`Error::Labels`] if the checkpoint's labels have
    /// other names, or these in another order.
    pub fn with_label_names(mut self, names: &[String]) -> Result<Self> {
        self.labels = self.labels.renamed(names)?;
        Ok(self)
    }

    /// Says in config.json what the classifier is trained for, whatever a checkpoint's said. For its outputs it makes no
    /// difference.
    pub fn with_problem(mut self, problem: Problem) -> Self {
        self.problem = Some(problem.name().into());
        self
    }

    /// After a checkpoint was read, with its config.json's `id2label` and `problem_type`, and what it says beyond the
    /// configuration. A head that it has brought means what it meant; where it said nothing, nothing is said.
    pub(crate) fn after_reading(
        mut self,
        [id2label, problem, others]: [&Value; 3],
        report: &LoadReport,
    ) -> Self {
        let keeps_head = Labels::are_of(report);
        if keeps_head {
            self.problem = Some(problem.clone());
        }
        self.encoder = self.encoder.with_fields(others, keeps_head);
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
) -> Result<(Encoder, ClassifierHead)> {
    let encoder = Encoder::new(architecture, vb.clone())?;
    Ok((encoder, architecture.family.classifier(labels, vb)?))
}

impl Model for SequenceClassifier {
    fn variables(&self) -> &Variables {
        &self.variables
    }

    fn config(&self) -> Value {
        let architecture = self.encoder.architecture();
        let mut config = architecture.config_of("ForSequenceClassification", Some(&self.labels));
        // Without it a pipeline takes the sigmoid of a score.
        let usual = match self.labels.len() {
            1 => Problem::Regression,
            _ => Problem::SingleLabel,
        };
        match &self.problem {
            None => config["problem_type"] = usual.name().into(),
            Some(Value::Null) => {}
            Some(problem) => config["problem_type"] = problem.clone(),
        }
        config
    }

    fn block(&self, kind: Kind) -> Block {
        runs_of_four(kind)
    }
}
