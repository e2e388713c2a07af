//! Trains residual networks on ImageNet or pictures in its layout, with AdaHessian or a first-order
//! optimizer, and compares optimizers over seeds.

use anyhow::{Result, bail};
use clap::Parser;
use common::vision::{Benchmark, Data, Options, VisionSettings, compare, data};
use datasets::{Augment, OnCorrupt, Split, imagenet};

/// Train ResNet-18, 34 or 50 on ImageNet, or pictures in its layout, with AdaHessian or a first-order
/// optimizer.
///
/// The defaults are the paper's: ResNet-18, batches of 256, 90 epochs, the rate x 0.1 every 30 of
/// them (--schedule plateau: where the accuracy stays the same for 5 epochs), random crops of 224
/// pixels. With several optimizers or seeds it is a comparison: a folder each below --out, and a
/// table and a picture of their means.
#[derive(Parser)]
#[command(after_help = "Examples:\n  \
    imagenet --data ./imagenet --out runs/resnet18\n  \
    imagenet --data ./tiny-imagenet-200 --image-size 64 --optimizer sgd,adahessian --seed 0,1,2\n  \
    imagenet --model resnet50 --weights resnet50.safetensors --data ./pictures --epochs 5\n  \
    imagenet --synthetic\n\n\
    A run's folder holds config.toml, metrics.jsonl, TensorBoard events, curves.svg, summary.json, checkpoint/ and\n\
    model/, whose model.safetensors has torchvision's names. A comparison's has losses.svg and results.json.")]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let defaults = VisionSettings {
        model: Some("resnet18".into()),
        schedule: Some(format!("step:0.1:{}:{}", 1.0 / 3.0, 2.0 / 3.0)),
        weight_decay: Some(1e-4),
        epochs: Some(90),
        batch_size: Some(256),
        image_size: Some(224),
        ..VisionSettings::default()
    };
    let synthetic = VisionSettings {
        width: Some(8),
        epochs: Some(2),
        batch_size: Some(16),
        image_size: Some(32),
        ..VisionSettings::default()
    };
    let benchmark = Benchmark {
        name: "imagenet",
        defaults,
        synthetic,
        top: Some(5),
        load,
    };
    compare(&benchmark, &cli.options)
}

fn load(settings: &VisionSettings) -> Result<Data> {
    let size = settings.image_size.unwrap_or(224);
    let (train, test) = match (&settings.data, settings.synthetic, settings.hub) {
        (_, Some(true), _) => (
            data::generate(96, size + 8, 8, 0)?,
            data::generate(32, size + 8, 8, 1)?,
        ),
        (None, _, None | Some(false)) => bail!(
            "where are the pictures? Give --data DIR with one of\n  \
             class folders: train/n01440764/*.JPEG ..., val/n01440764/*.JPEG ... (ImageNet: https://image-net.org/download.php, with an account)\n  \
             Tiny ImageNet as it comes: train/n01443537/images/*.JPEG, val/val_annotations.txt (--image-size 64)\n  \
             the parquet files of ILSVRC/imagenet-1k (data/train-00000-of-00294.parquet ...)\n\
             or --hub to take the last from the Hugging Face Hub (148 GB, with a token), or --synthetic to try without data"
        ),
        (folder, _, _) => {
            let folder = folder.as_deref();
            // ImageNet has a few broken files: they are replaced, and counted.
            let load = |split| imagenet::load(folder, split, OnCorrupt::SkipAndCount);
            (load(Split::Train)?, load(Split::Validation)?)
        }
    };
    Ok(Data {
        train,
        test,
        train_augment: Augment::imagenet_train(size),
        test_augment: Augment::imagenet_test(size),
    })
}
