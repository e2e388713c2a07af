//! What stands on an encoder: a classifier of sequences, a masked language model.

use crate::architecture::Architecture;
use crate::encoder::{Encoder, Inputs, Reach};
use crate::error::{Error, Result};
use crate::parts::{Linear, Norm, tensor};
use crate::weights::{self, LoadReport, Parameter, Start};
use crate::{bert, config};
use adahessian::engine::Handle;
use adahessian::ops::{self, Activation, Dropout, Mode};
use adahessian::{Blocks, NamedVars};
use candle_core::Tensor;
use candle_nn::VarMap;
use std::path::Path;

/// Everything that a classifier computes on the way.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The embeddings' output and every layer's: [B, T, D] each.
    pub hidden_states: Vec<Tensor>,
    /// tanh of a linear map of the first position's last state: [B, D].
    pub pooled: Tensor,
    /// The classifier's output: [B, labels].
    pub logits: Tensor,
}

/// An encoder with a pooler and a linear classifier: GLUE's tasks. One label is regression.
#[derive(Clone)]
pub struct SequenceClassifier {
    encoder: Encoder,
    pooler: Linear,
    classifier: Linear,
    labels: usize,
    map: VarMap,
}

impl SequenceClassifier {
    /// A classifier with random weights: normal with the configuration's `initializer_range`,
    /// biases 0, layer norms 1 and 0, each a function of the seed and the variable's name.
    ///
    /// # Errors
    /// [`Error::Input`] for no labels; candle's errors.
    pub fn new(architecture: &Architecture, labels: usize, start: &Start) -> Result<Self> {
        let parameters = Self::parameters(architecture, labels)?;
        let map = weights::initialise(&parameters, architecture.initializer_range, start)?;
        Self::from_map(map, architecture, labels)
    }

    /// A classifier from the `model.safetensors` (or the shards) of a folder. A pooler or
    /// classifier that the checkpoint lacks is initialised as in [`Self::new`] and reported; every
    /// other missing tensor is an error.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`], [`Error::TensorType`], [`Error::File`].
    pub fn load(
        folder: &Path,
        architecture: &Architecture,
        labels: usize,
        start: &Start,
    ) -> Result<(Self, LoadReport)> {
        let parameters = Self::parameters(architecture, labels)?;
        let (map, report) = load(folder, architecture, &parameters, start)?;
        Ok((Self::from_map(map, architecture, labels)?, report))
    }

    fn parameters(architecture: &Architecture, labels: usize) -> Result<Vec<Parameter>> {
        if labels == 0 {
            return Err(Error::Input {
                what: "number of labels",
                expected: "at least 1 (1 is regression)".into(),
                got: "0".into(),
            });
        }
        let mut parameters = architecture.encoder_parameters();
        parameters.extend(architecture.classifier_parameters(labels));
        Ok(parameters)
    }

    fn from_map(map: VarMap, architecture: &Architecture, labels: usize) -> Result<Self> {
        let vars = NamedVars::from(&map);
        let pooler = format!("{}.pooler.dense", architecture.prefix());
        Ok(Self {
            encoder: Encoder::new(&vars, architecture)?,
            pooler: Linear::new(&vars, &pooler, 1)?,
            classifier: Linear::new(&vars, "classifier", 1)?,
            labels,
            map,
        })
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
        let last = self.encoder.run(&inputs, Reach::First, mode, |_| Ok(()))?; // [B, 1, D]
        let (_, logits) = self.classify(&last, mode)?;
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
        let mut hidden_states = Vec::new();
        let inputs = Inputs {
            ids: input_ids,
            types: token_type_ids,
            mask: attention_mask,
        };
        let last = self.encoder.run(&inputs, Reach::All, mode, |state| {
            hidden_states.push(state.exit()?);
            Ok(())
        })?;
        let (pooled, logits) = self.classify(&last, mode)?;
        Ok(Outputs {
            hidden_states,
            pooled: pooled.exit()?,
            logits: logits.exit()?,
        })
    }

    /// The pooled state and the logits from the last hidden state.
    fn classify(&self, last: &Handle, mode: &Mode) -> Result<(Handle, Handle)> {
        let &[batch, _, width] = last.dims() else {
            return Err(Error::Input {
                what: "last hidden state",
                expected: "[batch, positions, width]".into(),
                got: format!("{:?}", last.dims()),
            });
        };
        let first = ops::first_positions(last, 1)?; // [B, 1, D]
        let first = ops::reshape(&first, &[batch, width])?; // [B, D]
        let pooled = self.pooler.forward(&first, Activation::Tanh)?; // [B, D]
        let p = self.encoder.architecture().classifier_dropout;
        let dropped = ops::dropout(&pooled, &Dropout::new(p, "classifier", mode))?;
        let logits = self.classifier.forward(&dropped, Activation::Identity)?; // [B, labels]
        Ok((pooled, logits))
    }

    /// The number of labels.
    pub fn labels(&self) -> usize {
        self.labels
    }

    /// The part below the pooler.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// All variables under their names on the Hub.
    pub fn vars(&self) -> NamedVars {
        NamedVars::from(&self.map)
    }

    /// The same variables as a `VarMap`, for code that wants one.
    pub fn var_map(&self) -> &VarMap {
        &self.map
    }

    /// The blocks of the paper's GLUE experiments.
    pub fn blocks(&self) -> Blocks {
        bert::blocks()
    }

    /// Writes `model.safetensors` and `config.json`, which transformers and [`crate::auto`] read.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be written to.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let architecture = self.encoder.architecture();
        save(
            &self.map,
            architecture,
            architecture.names.classifier_class,
            Some(self.labels),
            folder,
        )
    }
}

/// An encoder with the masked language model's head: logits_v = ⟨word_v, LayerNorm(act(W h + b))⟩
/// + c_v, where word_v is the word embedding itself (tied weights).
#[derive(Clone)]
pub struct MaskedLanguageModel {
    encoder: Encoder,
    dense: Linear,
    norm: Norm,
    bias: Tensor,
    map: VarMap,
}

impl MaskedLanguageModel {
    /// A model with random weights, as [`SequenceClassifier::new`].
    ///
    /// # Errors
    /// candle's errors.
    pub fn new(architecture: &Architecture, start: &Start) -> Result<Self> {
        let parameters = Self::parameters(architecture);
        let map = weights::initialise(&parameters, architecture.initializer_range, start)?;
        Self::from_map(map, architecture)
    }

    /// A model from a checkpoint; a head that it lacks is initialised and reported.
    ///
    /// # Errors
    /// As [`SequenceClassifier::load`].
    pub fn load(
        folder: &Path,
        architecture: &Architecture,
        start: &Start,
    ) -> Result<(Self, LoadReport)> {
        let parameters = Self::parameters(architecture);
        let (map, report) = load(folder, architecture, &parameters, start)?;
        Ok((Self::from_map(map, architecture)?, report))
    }

    fn parameters(architecture: &Architecture) -> Vec<Parameter> {
        let mut parameters = architecture.encoder_parameters();
        parameters.extend(architecture.masked_parameters());
        parameters
    }

    fn from_map(map: VarMap, architecture: &Architecture) -> Result<Self> {
        let vars = NamedVars::from(&map);
        let transform = "cls.predictions.transform";
        Ok(Self {
            encoder: Encoder::new(&vars, architecture)?,
            dense: Linear::new(&vars, &format!("{transform}.dense"), 1)?,
            norm: Norm::new(&vars, &format!("{transform}.LayerNorm"), architecture.eps)?,
            bias: tensor(&vars, "cls.predictions.bias")?,
            map,
        })
    }

    /// The logits [B, T, V] of the token at every position. Inputs as in
    /// [`SequenceClassifier::forward`].
    ///
    /// # Errors
    /// As [`SequenceClassifier::forward`].
    pub fn forward(
        &self,
        input_ids: &Tensor,
        token_type_ids: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
        mode: &Mode,
    ) -> Result<Tensor> {
        let encoder = &self.encoder;
        let inputs = Inputs {
            ids: input_ids,
            types: token_type_ids,
            mask: attention_mask,
        };
        let last = encoder.run(&inputs, Reach::All, mode, |_| Ok(()))?;
        let activation = encoder.architecture().activation;
        let hidden = self.dense.forward(&last, activation)?; // [B, T, D]
        let hidden = self.norm.forward(&hidden, None, &Dropout::none())?;
        let (words, bias) = (encoder.words(), Some(&self.bias));
        Ok(ops::linear(&hidden, words, bias, 1, Activation::Identity)?.exit()?) // [B, T, V]
    }

    /// The part below the head.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// All variables under their names on the Hub.
    pub fn vars(&self) -> NamedVars {
        NamedVars::from(&self.map)
    }

    /// The same variables as a `VarMap`, for code that wants one.
    pub fn var_map(&self) -> &VarMap {
        &self.map
    }

    /// The blocks of the paper's GLUE experiments.
    pub fn blocks(&self) -> Blocks {
        bert::blocks()
    }

    /// Writes `model.safetensors` and `config.json`.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be written to.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let architecture = self.encoder.architecture();
        save(
            &self.map,
            architecture,
            architecture.names.masked_class,
            None,
            folder,
        )
    }
}

fn load(
    folder: &Path,
    architecture: &Architecture,
    parameters: &[Parameter],
    start: &Start,
) -> Result<(VarMap, LoadReport)> {
    // The masked language model's decoder is the word embedding.
    let tied = [
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
    ];
    let range = architecture.initializer_range;
    weights::load(
        folder,
        parameters,
        architecture.prefix(),
        &tied,
        range,
        start,
    )
}

fn save(
    map: &VarMap,
    architecture: &Architecture,
    class: &str,
    labels: Option<usize>,
    folder: &Path,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let value = config::to_json(
        &architecture.config,
        architecture.model_type(),
        class,
        labels,
    )?;
    config::write(folder, &value)?;
    weights::save(map, folder)
}
