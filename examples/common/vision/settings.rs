//! The flags of the image examples.

use crate::layers;
use crate::settings::Settings;
use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What to do, and where.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What to train and how.
    #[command(flatten)]
    pub settings: VisionSettings,

    /// Settings from a TOML file; flags go before it
    #[arg(long, value_name = "FILE.toml", help_heading = "The run")]
    pub config: Option<PathBuf>,

    /// The folder of the run or of the comparison [default: runs/NAME, runs/NAME-2, ...]
    #[arg(long, value_name = "DIR", help_heading = "The run")]
    pub out: Option<PathBuf>,

    /// Go on where an interrupted run or comparison stopped: its folder [default: --out]
    #[arg(long, value_name = "DIR", num_args = 0..=1, help_heading = "The run")]
    pub resume: Option<Option<PathBuf>>,
}

/// The flags. All are optional: what is not given comes from `--config FILE.toml`, which has the
/// same names with underscores, and then from the example's and the optimizer's defaults.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VisionSettings {
    /// resnet20, resnet32, resnet44, resnet56, resnet110 (CIFAR's), resnet18, resnet34, resnet50
    /// (ImageNet's)
    #[arg(long, value_name = "NAME", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,

    /// Start from these weights with torchvision's names; the classifier is fresh [default: random]
    #[arg(long, value_name = "FILE.safetensors", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,

    /// Where the shape changes: a (parameter-free) or b (projection) [default: b]
    #[arg(long, value_name = "A_OR_B", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortcut: Option<String>,

    /// Channels of the first stage [default: the model's]
    #[arg(long, value_name = "CHANNELS", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,

    /// The folder with the pictures
    #[arg(long, value_name = "DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,

    /// Take the pictures from the Hugging Face Hub
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<bool>,

    /// Small generated pictures and a small model: no data, a minute, and nothing learned about
    /// optimizers
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<bool>,

    /// Train on N pictures only, of all classes alike
    #[arg(long, value_name = "N", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,

    /// Evaluate on N pictures only, of all classes alike
    #[arg(long, value_name = "N", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_test: Option<usize>,

    /// Height and width of what the model sees (ImageNet) [default: 224]
    #[arg(long, value_name = "PIXELS", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,

    /// Optimizers, separated by commas: adahessian, sophiah, adamw, adam, sgd, rmsprop, adagrad,
    /// lamb [default: adahessian]
    #[arg(long, value_name = "LIST", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<String>,

    /// Before training, check gradients and Hessian-vector products of the loss against differences of it
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<bool>,

    /// Seeds, separated by commas, of order, augmentation, probes and weights: every optimizer runs
    /// with each [default: 0]
    #[arg(long, value_name = "LIST", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,

    /// Learning rate [default: sgd 0.1, adam 0.001, adamw 0.01, adahessian 0.15]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,

    /// step (x 0.1 at the paper's epochs, in proportion), plateau (x 0.1 where the accuracy stays),
    /// constant, linear, cosine, step:0.1:AT..., each also as warmup:STEPS_OR_SHARE+... [default:
    /// step]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,

    /// Weight decay; for adahessian and adamw the share that one step at the initial rate takes off
    /// (decay / rate is what the optimizer gets, as in the published code)
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,

    /// Epochs
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,

    /// Steps at the most
    #[arg(long, value_name = "N", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,

    /// Pictures a step [default: 256]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,

    /// Split each batch into so many parts to save memory; each has its own Hessian and its own
    /// batch statistics [default: 1]
    #[arg(long, value_name = "N", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batches: Option<usize>,

    /// Scale the gradient down to this norm [default: off]
    #[arg(long, help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,

    /// Probability mass spread over all classes [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = "How to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<f64>,

    /// Compute the Hessian on every N-th step [default: 1]
    #[arg(long, value_name = "N", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hessian_every: Option<u64>,

    /// Compute it on all steps of the first N epochs all the same [default: with --hessian-every
    /// above 1, 5 of 160 in proportion]
    #[arg(long, value_name = "N", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hessian_first_epochs: Option<usize>,

    /// Hessian power k, 0 to 1 [default: 1]
    #[arg(long, value_name = "K", help_heading = "AdaHessian")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hessian_power: Option<f64>,

    /// Entries that share one curvature: spatial (each kernel window), a number of neighbours, rows,
    /// whole or single [default: spatial]
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

    /// Log every N steps [default: about 50 times an epoch, at least every 10 steps]
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

    /// cpu, cuda or cuda:N [default: cpu]
    #[arg(long, help_heading = "The run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl VisionSettings {
    /// These settings, and from `below` what they leave open.
    ///
    /// # Errors
    /// If the settings cannot be written as a table.
    pub fn over(&self, below: &Self) -> Result<Self> {
        layers::over(self, below)
    }

    /// The settings in a TOML file.
    ///
    /// # Errors
    /// With file and line for what cannot be read, unknown names included.
    pub fn read(path: &Path) -> Result<Self> {
        layers::read(path)
    }

    /// As the text of a TOML file.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn text(&self) -> Result<String> {
        layers::text(self)
    }

    /// What the optimizer called `name` is made of, with `steps_per_epoch` steps an epoch.
    pub fn for_optimizer(&self, name: &str, seed: u64, steps_per_epoch: u64) -> Settings {
        let decay = self.weight_decay.unwrap_or_default();
        let first = self.hessian_first_epochs.unwrap_or_default() as u64;
        Settings {
            lr: self.lr,
            weight_decay: Some(match (name, self.lr) {
                ("adahessian" | "adamw", Some(lr)) => decay / lr,
                _ => decay,
            }),
            clip_norm: self.clip_norm,
            hessian_every: self.hessian_every,
            hessian_first: Some(first * steps_per_epoch),
            hessian_power: self.hessian_power,
            average: self.average.clone(),
            samples: self.samples,
            eps: self.eps,
            seed: Some(seed),
            ..Settings::default()
        }
    }
}
