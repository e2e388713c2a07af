//! Trains residual networks on CIFAR-10, with AdaHessian or a first-order optimizer, and compares
//! optimizers over seeds. The defaults are the paper's settings.

use anyhow::{Result, bail};
use clap::Parser;
use common::vision::{Benchmark, Data, Options, VisionSettings, compare, data};
use datasets::{Augment, Split, cifar10};

/// Train residual networks on CIFAR-10 with AdaHessian or a first-order optimizer.
///
/// The defaults are the paper's: ResNet-20 with projection shortcuts, batches of 256, 160 epochs, the
/// rate x 0.1 after half and three quarters of them, weight decay 5e-4, AdaHessian with blocks of
/// one kernel window. With several optimizers or seeds it is a comparison: a folder each below
/// --out, and a table and a picture of their means.
#[derive(Parser)]
#[command(after_help = "Examples:\n  \
    cifar --data cifar-10-batches-bin\n  \
    cifar --data ./cifar10 --optimizer sgd,adam,adamw,adahessian --seed 0,1,2 --out runs/comparison\n  \
    cifar --resume runs/comparison\n  \
    cifar --synthetic\n\n\
    A run's folder holds config.toml, metrics.jsonl, TensorBoard events, curves.svg, summary.json, checkpoint/ and\n\
    model/, whose model.safetensors has torchvision's names. A comparison's has losses.svg and results.json.")]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let defaults = VisionSettings {
        model: Some("resnet20".into()),
        schedule: Some("step:0.1:0.5:0.75".into()),
        weight_decay: Some(5e-4),
        epochs: Some(160),
        batch_size: Some(256),
        ..VisionSettings::default()
    };
    let synthetic = VisionSettings {
        model: Some("resnet8".into()),
        epochs: Some(3),
        batch_size: Some(32),
        ..VisionSettings::default()
    };
    let benchmark = Benchmark {
        name: "cifar",
        defaults,
        synthetic,
        top: None,
        load,
    };
    compare(&benchmark, &cli.options)
}

fn load(settings: &VisionSettings) -> Result<Data> {
    let (train, test) = match (&settings.data, settings.synthetic, settings.hub) {
        (_, Some(true), _) => (
            data::generate(320, 32, 10, 0)?,
            data::generate(100, 32, 10, 1)?,
        ),
        (None, _, None | Some(false)) => bail!(
            "where is CIFAR-10? Give --data DIR with one of\n  \
             cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html, unpacked (data_batch_1.bin ... test_batch.bin)\n  \
             class folders of pictures: train/airplane/*.png ..., test/airplane/*.png ...\n  \
             the parquet files of uoft-cs/cifar10 (plain_text/train-00000-of-00001.parquet ...)\n\
             or --hub to take the last from the Hugging Face Hub, or --synthetic to try without data"
        ),
        (folder, _, _) => {
            let folder = folder.as_deref();
            (
                cifar10::load(folder, Split::Train)?,
                cifar10::load(folder, Split::Test)?,
            )
        }
    };
    Ok(Data {
        train,
        test,
        train_augment: Augment::cifar_train(),
        test_augment: Augment::cifar_test(),
    })
}
