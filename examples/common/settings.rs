//! Settings: flags over a file over the defaults of the task and the optimizer.

use crate::layers;
use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The common flags. All are optional: what is not given comes from `--config FILE.toml`, which has
/// the same names with underscores, and then from the task's and the optimizer's defaults.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A folder with config.json, model.safetensors and tokenizer.json, or a Hub id such as
    /// squeezebert/squeezebert-uncased [default: a mini SqueezeBERT from scratch]
    #[arg(long, value_name = "ID_OR_DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,

    /// A folder in the GLUE download layout or with the Hub's parquet files [default: the Hub if
    /// --model is given, else the shipped sample]
    #[arg(long, value_name = "DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,

    /// Tasks, separated by commas, or `all`: rte, mrpc, stsb, sst2, qnli, qqp, mnli, cola
    /// [default: sst2]
    #[arg(long, value_name = "LIST", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,

    /// Train on the first N examples only
    #[arg(long, value_name = "N", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,

    /// Longest sequence in tokens [default: 128]
    #[arg(long, value_name = "TOKENS", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,

    /// Replace the classifier that the checkpoint holds: MNLI's three labels before RTE, say
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_head: Option<bool>,

    /// Optimizers, separated by commas: adahessian, sophiah, adamw, adam, sgd, rmsprop, adagrad,
    /// lamb [default: adahessian; without --model adahessian,adamw]
    #[arg(long, value_name = "LIST", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<String>,

    /// Learning rate [default: the optimizer's for this model]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,

    /// Schedule of the learning rate: constant, linear, cosine, inverse_sqrt, step:0.1:AT...,
    /// polynomial:POWER, each also as warmup:STEPS_OR_SHARE+... [default: linear]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,

    /// Weight decay [default: 1e-4 for adahessian, 0.01 for adamw and lamb, else 0]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,

    /// Epochs [default: 5; 10 for rte and stsb; 8 from scratch]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,

    /// Steps at the most
    #[arg(long, value_name = "N", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,

    /// Examples a step [default: 16]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,

    /// Split each batch into so many parts to save memory; each has its own Hessian [default: 1]
    #[arg(long, value_name = "N", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batches: Option<usize>,

    /// Sort by length within windows of so many batches: less padding [default: off]
    #[arg(long, value_name = "BATCHES", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<usize>,

    /// Scale the gradient down to this norm [default: off]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,

    /// Stop after so many evaluations without a better one [default: off]
    #[arg(long, value_name = "N", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,

    /// Before training, check gradients and Hessian-vector products of the loss against differences of it
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<bool>,

    /// The seed of order, dropout, probes and fresh weights [default: 0]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,

    /// Compute the Hessian on every N-th step [default: 1]
    #[arg(long, value_name = "N", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hessian_every: Option<u64>,

    /// Compute it on each of the first N steps all the same [default: 0]
    #[arg(long, value_name = "N", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hessian_first: Option<u64>,

    /// Hessian power k, 0 to 1 [default: 1]
    #[arg(long, value_name = "K", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hessian_power: Option<f64>,

    /// Entries of a matrix that share one curvature: a number, rows or whole [default: 4]
    #[arg(long, value_name = "B", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<String>,

    /// What is averaged over a block: absolute (published code) or signed (paper) [default: absolute]
    #[arg(long, help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average: Option<String>,

    /// Probes a step [default: 1]
    #[arg(long, value_name = "N", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,

    /// Added to the denominator [default: 1e-4]
    #[arg(long, help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,

    /// Share of the batch that the Hessian is taken on [default: 1]
    #[arg(long, value_name = "SHARE", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curvature_fraction: Option<f64>,

    /// Evaluate every N steps [default: every epoch]
    #[arg(long, value_name = "N", help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<u64>,

    /// Save a checkpoint every N steps [default: every evaluation]
    #[arg(long, value_name = "N", help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<u64>,

    /// Log every N steps [default: 10]
    #[arg(long, value_name = "N", help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_every: Option<u64>,

    /// Threads [default: the machine's physical cores]
    #[arg(long, help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,

    /// cpu, cuda or cuda:N [default: cpu]
    #[arg(long, help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Settings {
    /// These settings, and from `below` what they leave open.
    ///
    /// # Errors
    /// If the settings cannot be written as a table.
    pub fn over(&self, below: &Settings) -> Result<Settings> {
        layers::over(self, below)
    }

    /// The settings in a TOML file.
    ///
    /// # Errors
    /// With file and line for what cannot be read, unknown names included.
    pub fn read(path: &Path) -> Result<Settings> {
        layers::read(path)
    }

    /// As the text of a TOML file.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn text(&self) -> Result<String> {
        layers::text(self)
    }
}

/// A list separated by commas.
pub fn list(text: &str) -> Vec<String> {
    let parts = text.split(',').map(|p| p.trim().to_lowercase());
    parts.filter(|p| !p.is_empty()).collect()
}
