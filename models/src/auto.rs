//! Opening a folder by what its config.json says it is.

use crate::architecture::Architecture;
use crate::config;
use crate::error::{Error, Result};
use crate::heads::{MaskedLanguageModel, SequenceClassifier, TokenClassifier};
use crate::weights::{LoadReport, Start};
use crate::{bert, distilbert, roberta, squeezebert};
use serde_json::Value;
use std::path::Path;

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
}

/// What a config.json says.
struct Read {
    config: Config,
    /// The number of labels it names.
    labels: usize,
    /// Their names, if there are some.
    names: Value,
    /// What a classifier of sequences is trained for, if it says so.
    problem: Value,
}

fn read(folder: &Path) -> Result<Read> {
    let path = config::path_in(folder);
    let (value, model_type) = config::read(&path)?;
    let labels = config::labels(&value)?;
    let names = value.get("id2label").cloned().unwrap_or_default();
    let problem = value.get("problem_type").cloned().unwrap_or_default();
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
    Ok(Read {
        config,
        labels,
        names,
        problem,
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
    let read = read(folder)?;
    let (architecture, labels) = (read.config.architecture()?, labels.unwrap_or(read.labels));
    let (model, report) = SequenceClassifier::load(folder, &architecture, labels, start)?;
    let model = model.after_reading(&read.names, &read.problem, &report);
    Ok((model, report))
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
    let read = read(folder)?;
    let (architecture, labels) = (read.config.architecture()?, labels.unwrap_or(read.labels));
    let (model, report) = TokenClassifier::load(folder, &architecture, labels, start)?;
    Ok((model.after_reading(&read.names, &report), report))
}

/// A masked language model from a checkpoint folder.
///
/// # Errors
/// As [`Config::read`] and [`MaskedLanguageModel::load`].
pub fn masked_language_model(
    folder: &Path,
    start: &Start,
) -> Result<(MaskedLanguageModel, LoadReport)> {
    MaskedLanguageModel::load(folder, &Config::read(folder)?.architecture()?, start)
}

/// A masked language model with a head for pairs from a checkpoint folder.
///
/// # Errors
/// As [`masked_language_model`]; [`Error::Config`] for a family that has no such head.
pub fn masked_language_model_with_pairs(
    folder: &Path,
    start: &Start,
) -> Result<(MaskedLanguageModel, LoadReport)> {
    let architecture = Config::read(folder)?.architecture()?;
    MaskedLanguageModel::load_with_pairs(folder, &architecture, start)
}
