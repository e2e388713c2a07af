//! Opening a folder by what its config.json says it is.

use crate::architecture::Architecture;
use crate::config;
use crate::error::{Error, Result};
use crate::heads::{MaskedLanguageModel, SequenceClassifier, TokenClassifier};
use crate::weights::{LoadReport, Start};
use crate::{bert, distilbert, roberta, squeezebert};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The configuration of one of the families.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Config {
    /// BERT.
    Bert(bert::Config),
    /// DistilBERT.
    DistilBert(distilbert::Config),
    /// RoBERTa.
    Roberta(roberta::Config),
    /// SqueezeBERT.
    SqueezeBert(squeezebert::Config),
}

impl Config {
    /// Reads config.json from a folder.
    ///
    /// # Errors
    /// [`Error::Architecture`] for a `model_type` that this crate does not have;
    /// [`Error::File`] and [`Error::Config`] for malformed files.
    pub fn read(folder: &Path) -> Result<Self> {
        Ok(read(folder)?.config)
    }

    /// The checked description that models are made of.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is not supported or does not fit the others.
    pub fn architecture(&self) -> Result<Architecture> {
        match self {
            Config::Bert(config) => config.architecture(),
            Config::DistilBert(config) => config.architecture(),
            Config::Roberta(config) => config.architecture(),
            Config::SqueezeBert(config) => config.architecture(),
        }
    }

    /// The same with this probability wherever the model drops something out: in its embeddings, attention weights,
    /// layers and heads. Fine-tuning searches it per task; [`Config::architecture`] says if it is none.
    #[must_use]
    pub fn with_dropout(self, probability: f64) -> Self {
        let p = probability;
        match self {
            Config::Bert(config) => Config::Bert(bert::Config {
                hidden_dropout_prob: p,
                attention_probs_dropout_prob: p,
                classifier_dropout: None, // as in hidden states
                ..config
            }),
            Config::DistilBert(config) => Config::DistilBert(distilbert::Config {
                dropout: p,
                attention_dropout: p,
                seq_classif_dropout: p,
                ..config
            }),
            Config::Roberta(config) => Config::Roberta(roberta::Config {
                hidden_dropout_prob: p,
                attention_probs_dropout_prob: p,
                classifier_dropout: None,
                ..config
            }),
            Config::SqueezeBert(config) => Config::SqueezeBert(squeezebert::Config {
                hidden_dropout_prob: p,
                attention_probs_dropout_prob: p,
                ..config
            }),
        }
    }
}

/// A checkpoint folder whose config.json was read: what it holds is a model of one of the families, and what is to
/// differ in training is said before one is made. What its config.json says that no [`Config`] has (the tokenizer's class,
/// what another library does with the outputs) is in what its models save, too.
///
/// A DistilBERT whose positions began as sines (`sinusoidal_pos_embds`) is loaded with the table that the checkpoint has of
/// them. It is trained like any other, so that `false` is saved; fresh weights of such a configuration are refused.
///
/// ```no_run
/// use models::{Start, auto};
/// let checkpoint = auto::Checkpoint::open("checkpoint".as_ref())?.with_dropout(0.2);
/// let (model, report) = checkpoint.sequence_classifier(Some(2), &Start::default())?;
/// # Ok::<(), models::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: Config,
    /// The number of labels it names.
    labels: usize,
    /// Their names, if there are some.
    names: Value,
    /// What a classifier of sequences is trained for, if it says so.
    problem: Value,
    /// What else it says, for whoever reads what is saved.
    others: Value,
}

impl Checkpoint {
    /// Reads a folder's config.json, and nothing else yet.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn open(folder: &Path) -> Result<Self> {
        read(folder)
    }

    /// What config.json says of the encoder.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// With this probability wherever the model drops something out ([`Config::with_dropout`]). What is saved later
    /// has it in its config.json.
    #[must_use]
    pub fn with_dropout(mut self, probability: f64) -> Self {
        self.config = self.config.with_dropout(probability);
        self
    }

    /// The architecture of weights that are all in the checkpoint: sines of positions are a table there.
    fn architecture(&self) -> Result<Architecture> {
        match &self.config {
            Config::DistilBert(config) => {
                let config = distilbert::Config {
                    sinusoidal_pos_embds: false,
                    ..config.clone()
                };
                config.architecture()
            }
            config => config.architecture(),
        }
    }

    /// As [`sequence_classifier`].
    ///
    /// # Errors
    /// As [`Config::architecture`] and [`SequenceClassifier::load`].
    pub fn sequence_classifier(
        &self,
        labels: Option<usize>,
        start: &Start,
    ) -> Result<(SequenceClassifier, LoadReport)> {
        let (architecture, labels) = (self.architecture()?, labels.unwrap_or(self.labels));
        let (model, report) = SequenceClassifier::load(&self.folder, &architecture, labels, start)?;
        let said = [&self.names, &self.problem, &self.others];
        Ok((model.after_reading(said, &report), report))
    }

    /// As [`token_classifier`].
    ///
    /// # Errors
    /// As [`Config::architecture`] and [`TokenClassifier::load`].
    pub fn token_classifier(
        &self,
        labels: Option<usize>,
        start: &Start,
    ) -> Result<(TokenClassifier, LoadReport)> {
        let (architecture, labels) = (self.architecture()?, labels.unwrap_or(self.labels));
        let (model, report) = TokenClassifier::load(&self.folder, &architecture, labels, start)?;
        let said = [&self.names, &self.others];
        Ok((model.after_reading(said, &report), report))
    }

    /// A masked language model.
    ///
    /// # Errors
    /// As [`Config::architecture`] and [`MaskedLanguageModel::load`].
    pub fn masked_language_model(
        &self,
        start: &Start,
    ) -> Result<(MaskedLanguageModel, LoadReport)> {
        let architecture = self.architecture()?;
        let (model, report) = MaskedLanguageModel::load(&self.folder, &architecture, start)?;
        Ok((model.after_reading(&self.others), report))
    }

    /// A masked language model with a head for pairs.
    ///
    /// # Errors
    /// As [`Checkpoint::masked_language_model`]; [`Error::Config`] for a family that has no such head.
    pub fn masked_language_model_with_pairs(
        &self,
        start: &Start,
    ) -> Result<(MaskedLanguageModel, LoadReport)> {
        let architecture = self.architecture()?;
        let (model, report) =
            MaskedLanguageModel::load_with_pairs(&self.folder, &architecture, start)?;
        Ok((model.after_reading(&self.others), report))
    }
}

fn read(folder: &Path) -> Result<Checkpoint> {
    let path = config::path_in(folder);
    let (value, model_type) = config::read(&path)?;
    let labels = config::labels(&value)?;
    let names = value.get("id2label").cloned().unwrap_or_default();
    let problem = value.get("problem_type").cloned().unwrap_or_default();
    let others = config::others(value.clone());
    let config = match model_type.as_str() {
        bert::MODEL_TYPE => Config::Bert(config::parse(value, &path)?),
        distilbert::MODEL_TYPE => {
            Config::DistilBert(config::parse(distilbert::renamed(value)?, &path)?)
        }
        roberta::MODEL_TYPE => Config::Roberta(config::parse(value, &path)?),
        squeezebert::MODEL_TYPE => Config::SqueezeBert(config::parse(value, &path)?),
        _ => {
            return Err(Error::Architecture {
                path,
                expected: "`bert`, `distilbert`, `roberta` or `squeezebert`".into(),
                got: model_type,
            });
        }
    };
    Ok(Checkpoint {
        folder: folder.into(),
        config,
        labels,
        names,
        problem,
        others,
    })
}

/// A classifier of sequences from a checkpoint folder, with as many labels as its config.json names if
/// `labels` is none, and with the names that it has for them. A head that the checkpoint brings keeps its
/// `problem_type`, which says whether several labels may be right at once.
///
/// # Errors
/// As [`Config::read`] and [`SequenceClassifier::load`].
pub fn sequence_classifier(
    folder: &Path,
    labels: Option<usize>,
    start: &Start,
) -> Result<(SequenceClassifier, LoadReport)> {
    Checkpoint::open(folder)?.sequence_classifier(labels, start)
}

/// A classifier of tokens from a checkpoint folder, with as many labels as its config.json names if
/// `labels` is none, and with the names that it has for them.
///
/// # Errors
/// As [`Config::read`] and [`TokenClassifier::load`].
pub fn token_classifier(
    folder: &Path,
    labels: Option<usize>,
    start: &Start,
) -> Result<(TokenClassifier, LoadReport)> {
    Checkpoint::open(folder)?.token_classifier(labels, start)
}

/// A masked language model from a checkpoint folder.
///
/// # Errors
/// As [`Config::read`] and [`MaskedLanguageModel::load`].
pub fn masked_language_model(
    folder: &Path,
    start: &Start,
) -> Result<(MaskedLanguageModel, LoadReport)> {
    Checkpoint::open(folder)?.masked_language_model(start)
}

/// A masked language model with a head for pairs from a checkpoint folder.
///
/// # Errors
/// As [`masked_language_model`]; [`Error::Config`] for a family that has no such head.
pub fn masked_language_model_with_pairs(
    folder: &Path,
    start: &Start,
) -> Result<(MaskedLanguageModel, LoadReport)> {
    Checkpoint::open(folder)?.masked_language_model_with_pairs(start)
}
