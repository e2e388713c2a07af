//! The flags that all programs share.

use crate::values::{
    above_zero, ahead, count, epochs, list_text, not_negative, seeds, share, steps, threads,
};
use adahessian::Block;
use clap::{Args, FromArgMatches};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that decides what a run does: a program's own flags `A` and those of all programs. In a
/// `config.toml` they have the same names with underscores.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings<A: Args> {
    /// The program's own.
    #[command(flatten)]
    #[serde(flatten)]
    pub own: A,
    /// The optimizer's.
    #[command(flatten)]
    #[serde(flatten)]
    pub optimizer: OptimizerArgs,
    /// The loop's.
    #[command(flatten)]
    #[serde(flatten)]
    pub training: LoopArgs,
    /// The run's.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunArgs,
}

/// Which optimizer, and how it is set.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerArgs {
    /// Optimizers, separated by commas: adahessian, sophiah, adamw, adam, sgd, rmsprop, adagrad, lamb [default:
    /// by program]
    #[arg(long, value_name = "LIST", default_value = "adahessian", hide_default_value = true, value_parser = list_text, help_heading = "How to train")]
    pub optimizer: String,

    /// Learning rate [default: by optimizer and model]
    #[arg(long, default_value_t = 1e-3, hide_default_value = true, value_parser = above_zero, help_heading = "How to train")]
    pub lr: f64,

    /// Times the learning rate: one sweep of it serves optimizers with different rates
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = above_zero, help_heading = "How to train")]
    pub lr_scale: f64,

    /// Weight decay [default: by optimizer and model]
    #[arg(long, default_value_t = 0.0, hide_default_value = true, value_parser = not_negative, help_heading = "How to train")]
    pub weight_decay: f64,

    /// Scale the gradient down to this norm [default: off]
    #[arg(long, value_parser = above_zero, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,

    /// Largest change of a variable in a step, relative to it, at the full learning rate; 0 for none
    /// [default: by model]
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true, value_parser = not_negative, help_heading = "How to train")]
    pub bound: f64,

    /// How far the steps of the whole run together may move a variable, relative to it: a bound of each step of this
    /// over the sum of the schedule's factors; 0 for none [default: 0]
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true, value_parser = not_negative, help_heading = "How to train")]
    #[serde(default)]
    pub travel: f64,

    /// Compute the Hessian on every N-th step [default: 1, of sophiah 10]
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true, value_parser = steps, help_heading = "AdaHessian")]
    pub hessian_every: u64,

    /// Compute it on each of the first steps all the same: a number of steps, or of epochs as in 5epochs
    /// [default: by model]
    #[arg(long, value_name = "STEPS", default_value = "0", hide_default_value = true, value_parser = first, help_heading = "AdaHessian")]
    pub hessian_first: String,

    /// Least curvature of an entry, as a share of its variable's mean; 0 for none
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = not_negative, help_heading = "AdaHessian")]
    pub hessian_floor: f64,

    /// What becomes of entries that no Hessian has seen, rare words' rows, say: wait for one, divide by eps, or auto,
    /// which waits where not every step has the Hessian of its whole batch
    #[arg(long, default_value = "auto", value_parser = ["auto", "wait", "divide"], help_heading = "AdaHessian")]
    #[serde(default = "auto", skip_serializing_if = "is_auto")]
    pub unseen: String,

    /// Hessian power k, 0 to 1 [default: by model]
    #[arg(long, value_name = "K", default_value_t = 1.0, hide_default_value = true, value_parser = share, help_heading = "AdaHessian")]
    pub hessian_power: f64,

    /// Decay of the averages of gradient and curvature, or of gradient and its square (adamw, adam, lamb) [default:
    /// by model]
    #[arg(long, value_name = "B1,B2", default_value = "0.9,0.999", hide_default_value = true, value_parser = betas, help_heading = "AdaHessian")]
    pub betas: String,

    /// Entries that share one curvature: own (each layer's own: a kernel's window, say), a number of neighbours,
    /// rows, whole or single [default: by model]
    #[arg(long, value_name = "B", default_value = "own", hide_default_value = true, value_parser = block, help_heading = "AdaHessian")]
    pub block_size: String,

    /// What is averaged over a block: absolute (published code) or signed (paper) [default: absolute, of sophiah signed]
    #[arg(long, default_value = "absolute", hide_default_value = true, value_parser = ["absolute", "signed"], help_heading = "AdaHessian")]
    pub average: String,

    /// Probes a step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count, help_heading = "AdaHessian")]
    pub samples: usize,

    /// Added to AdaHessian's denominator [default: 1e-4, of translate 2.5e-8]
    #[arg(long, default_value_t = 1e-4, hide_default_value = true, value_parser = above_zero, help_heading = "AdaHessian")]
    pub eps: f64,

    /// Share of the batch that the Hessian is taken on, above 0: examples in a row, from a place that is drawn
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share, help_heading = "AdaHessian")]
    pub curvature_fraction: f64,
}

impl OptimizerArgs {
    /// The learning rate.
    pub fn rate(&self) -> f64 {
        self.lr * self.lr_scale
    }

    /// The same to twelve digits, for people: 0.047 · 6 is 0.282, and not 0.28200000000000003.
    pub fn rate_said(&self) -> String {
        let digits = format!("{:.11e}", self.rate());
        digits.parse::<f64>().unwrap_or(self.rate()).to_string()
    }

    /// The flags' own defaults, for this optimizer and rate.
    ///
    /// # Errors
    /// If a flag's default is none of its values.
    pub fn new(optimizer: &str, lr: f64) -> anyhow::Result<Self> {
        let command = Self::augment_args(clap::Command::new("optimizer").no_binary_name(true));
        let matches = command.try_get_matches_from(Vec::<&str>::new())?;
        Ok(Self {
            optimizer: optimizer.into(),
            lr,
            ..Self::from_arg_matches(&matches)?
        })
    }
}

/// How long, on what, in which order.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoopArgs {
    /// Seeds, separated by commas, of order, dropout, probes and fresh weights: everything runs with each
    #[arg(long, value_name = "LIST", default_value = "0", value_parser = seeds, help_heading = "How to train")]
    pub seed: String,

    /// Schedule of the learning rate: constant, linear, cosine, inverse_sqrt, polynomial:POWER, step:0.1:AT...,
    /// step (the program's own), plateau:FACTOR:PATIENCE (0.1 and 5 where the score stays), each also as
    /// warmup:STEPS_OR_SHARE+... [default: by program]
    #[arg(
        long,
        default_value = "constant",
        hide_default_value = true,
        help_heading = "How to train"
    )]
    pub schedule: String,

    /// Epochs [default: by program]
    #[arg(long, default_value_t = 1, hide_default_value = true, value_parser = epochs, help_heading = "How to train")]
    pub epochs: usize,

    /// Steps at the most
    #[arg(long, value_name = "N", value_parser = steps, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,

    /// Examples a step [default: by program]
    #[arg(long, default_value_t = 16, hide_default_value = true, value_parser = count, help_heading = "How to train")]
    pub batch_size: usize,

    /// Split each batch into so many parts to save memory; each has its own Hessian, and its own batch
    /// statistics
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count, help_heading = "How to train")]
    pub micro_batches: usize,

    /// Stop after so many evaluations without a better one [default: off]
    #[arg(long, value_name = "N", value_parser = count, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,

    /// Train on N examples only
    #[arg(long, value_name = "N", value_parser = count, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,

    /// Evaluate on N examples only
    #[arg(long, value_name = "N", alias = "limit-test", value_parser = count, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_eval: Option<usize>,
}

/// What does not change the steps, so that it may be another at every resumption.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunArgs {
    /// Before training, check gradients and Hessian-vector products of the loss against differences of it
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "The run")]
    pub audit: bool,

    /// Evaluate every N steps [default: every epoch]
    #[arg(long, value_name = "N", value_parser = steps, help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<u64>,

    /// Save a checkpoint every N steps [default: every evaluation]
    #[arg(long, value_name = "N", value_parser = steps, help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<u64>,

    /// What stays of a complete run beside its figures: all, models (no checkpoints, without which it cannot be made longer)
    /// or figures (neither); a comparison of large models fills a disk
    #[arg(long, value_name = "WHAT", default_value = "all", value_parser = ["all", "models", "figures"], help_heading = "The run")]
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub keep: String,

    /// Log every N steps [default: about 50 times an epoch, at least every 10 steps; by program]
    #[arg(long, value_name = "N", value_parser = steps, help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_every: Option<u64>,

    /// Batches made ahead of the step [default: by program]
    #[arg(long, value_name = "N", default_value_t = 3, hide_default_value = true, value_parser = ahead, help_heading = "The run")]
    pub prefetch: usize,

    /// Threads [default: the machine's physical cores]
    #[arg(long, value_parser = threads, help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,

    /// What a run was begun on, as a checksum; programs write it
    #[arg(long, hide = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_mark: Option<String>,

    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", help_heading = "The run")]
    pub device: String,
}

/// Where, and what of it: no settings of a run.
#[derive(Args, Clone, Debug)]
pub struct Invocation {
    /// A run for each value of a flag, as in --sweep lr=1e-3,3e-3,1e-2; several make every combination
    #[arg(long, value_name = "FLAG=LIST", help_heading = "How to train")]
    pub sweep: Vec<String>,

    /// A table of the paper as a comparison, with three seeds: optimizers (Table 2), rates (6), blocks (7), delays (8); or
    /// curvature, of parts of the batch on some of the steps
    #[arg(long, value_name = "TABLE", value_parser = crate::study::NAMES, help_heading = "How to train")]
    pub study: Option<String>,

    /// Of a sweep, make all runs with a quarter of the epochs, the better half anew with half of them, and the best
    /// quarter with all; every optimizer and task has the same budget
    #[arg(long, help_heading = "How to train")]
    pub halving: bool,

    /// Find a learning rate to begin a search at: N steps of each optimizer while the rate rises over five decades, and
    /// with it those that a program has beside it
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "150", value_parser = clap::value_parser!(u64).range(20..=1_000_000), conflicts_with_all = ["resume", "halving", "study"], help_heading = "How to train")]
    pub find_lr: Option<u64>,

    /// Settings from a TOML file; flags go before it
    #[arg(long, value_name = "FILE.toml", help_heading = "The run")]
    pub config: Option<PathBuf>,

    /// The folder of the run, or of the comparison with a folder each below it [default: runs/NAME,
    /// runs/NAME-2, ...]
    #[arg(long, value_name = "DIR", help_heading = "The run")]
    pub out: Option<PathBuf>,

    /// Go on where a run or a comparison stopped: its folder, or one of a run's checkpoints [default: --out]
    #[arg(long, value_name = "DIR", num_args = 0..=1, help_heading = "The run")]
    pub resume: Option<Option<PathBuf>>,

    /// Print the runs with all their settings, and make none
    #[arg(long, help_heading = "The run")]
    pub dry_run: bool,
}

/// The settings that a resumed run may have otherwise than it began: those of [`RunArgs`], where tables are, and how
/// long it goes on. Everything else would make it another run from there on.
pub const FREE: [&str; 13] = [
    "tables_on",
    "audit",
    "keep",
    "half",
    "eval_every",
    "checkpoint_every",
    "log_every",
    "prefetch",
    "threads",
    "device",
    "epochs",
    "max_steps",
    "patience",
];

/// Those of [`FREE`] that say how long a run goes on.
pub const LENGTH: [&str; 3] = ["epochs", "max_steps", "patience"];

/// Those of [`FREE`] that say what a complete run leaves behind.
pub const EXPORT: [&str; 1] = ["half"];

/// Runs that were begun before there was such a flag go on.
fn auto() -> String {
    "auto".into()
}

fn is_auto(unseen: &str) -> bool {
    unseen == "auto"
}

fn all() -> String {
    "all".into()
}

fn is_all(keep: &str) -> bool {
    keep == "all"
}

/// Steps or epochs.
fn first(text: &str) -> Result<String, String> {
    first_steps(text, 1).map(|_| text.to_string())
}

/// How many steps `100` or `5epochs` are.
///
/// # Errors
/// For anything else.
pub fn first_steps(text: &str, steps_per_epoch: u64) -> Result<u64, String> {
    let error = |_| format!("`{text}`: expected steps, as in 100, or epochs, as in 5epochs");
    match text.strip_suffix("epochs") {
        None => text.parse().map_err(error),
        Some(epochs) => {
            let epochs: u64 = epochs.trim().parse().map_err(error)?;
            Ok(epochs.saturating_mul(steps_per_epoch))
        }
    }
}

/// Blocks of curvature: the layers' own, or the same for all matrices.
fn block(text: &str) -> Result<String, String> {
    match text {
        "own" | "spatial" => Ok(text.into()),
        other => match other.parse::<Block>() {
            Ok(Block::Chunks(0)) => Err("expected at least 1 entry".into()),
            Ok(_) => Ok(text.into()),
            Err(error) => Err(format!("{error}; or own")),
        },
    }
}

fn betas(text: &str) -> Result<String, String> {
    two_betas(text).map(|_| text.to_string())
}

/// The two numbers of `0.9,0.98`.
///
/// # Errors
/// For anything but two numbers from 0 to 1, 1 excluded.
pub fn two_betas(text: &str) -> Result<(f64, f64), String> {
    let betas = text.split(',').map(|part| part.trim().parse::<f64>());
    match betas.collect::<Result<Vec<_>, _>>().as_deref() {
        Ok([a, b]) if (0.0..1.0).contains(a) && (0.0..1.0).contains(b) => Ok((*a, *b)),
        _ => Err("expected two numbers of at least 0 and below 1, separated by a comma".into()),
    }
}
