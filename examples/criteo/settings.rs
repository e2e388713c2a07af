//! The flags of a run.

use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// All are optional: what is not given comes from `--config FILE.toml`, which has the same names with
/// underscores, and then from the paper's settings.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The store that `criteo prepare` made
    #[arg(long, value_name = "STORE", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,

    /// Generate N rows of a known model instead, beside --out [N by default: 100000]
    #[arg(long, num_args = 0..=1, default_missing_value = "100000", value_name = "N", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<u64>,

    /// The store holds all rows of `criteo generate --seed SEED`: show what the model that made them
    /// reaches, too
    #[arg(long, value_name = "SEED", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planted: Option<u64>,

    /// Widths of the bottom network's layers, the last one being that of the tables' rows [default:
    /// 512,256,64,16]
    #[arg(long, value_name = "LIST", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bottom: Option<String>,

    /// Widths of the top network's layers before the last [default: 512,256]
    #[arg(long, value_name = "LIST", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<String>,

    /// What the tables are stored as: f32 or bf16 [default: f32]
    #[arg(long, value_name = "TYPE", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,

    /// Keep the tables in this new file instead of in memory, for tables larger than memory (one run
    /// only)
    #[arg(long, value_name = "FILE", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_file: Option<PathBuf>,

    /// Days of the store, equal consecutive parts of it: 24 for the terabyte. The last one is for tests
    /// and validation, the others for training [default: 7]
    #[arg(long, value_name = "N", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<usize>,

    /// Train on the first N rows of the training days only
    #[arg(long, value_name = "N", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,

    /// The rows of evaluations: test or validation (the halves of the last day), last-day, train or all
    /// [default: test]
    #[arg(long, value_name = "ROWS", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_on: Option<String>,

    /// Evaluate on the first N of these rows only [default: all]
    #[arg(long, value_name = "N", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_eval: Option<usize>,

    /// Optimizers of the dense layers, separated by commas: adahessian, adagrad, sgd, adamw, adam,
    /// rmsprop, lamb, sophiah [default: adahessian]
    #[arg(long, value_name = "LIST", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<String>,

    /// Before training, check gradients and Hessian-vector products of the loss against differences of it
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<bool>,

    /// Seeds, separated by commas, of order, probes and first weights: every optimizer runs with each
    /// [default: 0]
    #[arg(long, value_name = "LIST", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,

    /// Learning rate of the dense layers [default: adahessian 0.043, adagrad 0.01, sgd 0.1, others
    /// 0.001]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,

    /// Optimizer of the tables: adagrad, adagrad-rows (one accumulator a row) or sgd [default: adagrad,
    /// with --optimizer sgd sgd]
    #[arg(long, value_name = "NAME", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_optimizer: Option<String>,

    /// Learning rate of the tables [default: adagrad 0.01, sgd 0.1]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_lr: Option<f64>,

    /// Schedule of both learning rates: constant, linear, cosine, step:0.1:AT..., each also as
    /// warmup:STEPS_OR_SHARE+... [default: constant]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,

    /// Weight decay of the dense layers [default: 0]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,

    /// Scale the dense layers' gradient down to this norm [default: off]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,

    /// Epochs [default: 1]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,

    /// Steps at the most
    #[arg(long, value_name = "N", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,

    /// Rows a step [default: 128]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,

    /// Split each batch into so many parts, each with its own Hessian [default: 1]
    #[arg(long, value_name = "N", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batches: Option<usize>,

    /// Rows in another order each epoch; without it in that of the store, which is faster where the
    /// store is larger than memory [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shuffle: Option<bool>,

    /// Compute the Hessian on every N-th step [default: 1]
    #[arg(long, value_name = "N", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hessian_every: Option<u64>,

    /// Compute it on each of the first N steps all the same, until the averages hold enough probes: single
    /// ones are near zero somewhere, and there the step is too long [default: with --hessian-every above
    /// 1, 100]
    #[arg(long, value_name = "N", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hessian_first: Option<u64>,

    /// Hessian power k, 0 to 1 [default: 0.5]
    #[arg(long, value_name = "K", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hessian_power: Option<f64>,

    /// Decay of the averages of gradient and curvature [default: 0.9,0.98]
    #[arg(long, value_name = "B1,B2", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub betas: Option<String>,

    /// Entries of a matrix that share one curvature: a number of neighbours, rows, whole or single
    /// [default: single]
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

    /// Evaluate every N steps, too [default: at the end of an epoch]
    #[arg(long, value_name = "N", help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<u64>,

    /// Save a checkpoint every N steps [default: every evaluation]
    #[arg(long, value_name = "N", help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<u64>,

    /// Log every N steps [default: 100]
    #[arg(long, value_name = "N", help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_every: Option<u64>,

    /// Batches made ahead of the step [default: 3]
    #[arg(long, value_name = "N", help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<usize>,

    /// Threads [default: the machine's physical cores]
    #[arg(long, help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
}
