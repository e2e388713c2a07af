//! Trains residual networks on ImageNet or images in its layout, with AdaHessian or a first-order
//! optimizer, and compares optimizers over seeds.

use anyhow::{Result, bail};
use clap::Command;
use common::driver;
use common::flags::Settings;
use common::vision::{Benchmark, Data, Vision, VisionArgs, data};
use datasets::{Augment, OnCorrupt, Split, imagenet};
use std::process::ExitCode;

const ABOUT: &str = "Train ResNet-18, 34 or 50 on ImageNet, or images in its layout, with AdaHessian or a \
    first-order optimizer.\n\n\
    The defaults are the paper's: ResNet-18, batches of 256, 90 epochs, the rate x 0.1 every 30 of them (--schedule \
    plateau: where the accuracy stays the same for 5 epochs), weight decay 1e-4 (for adahessian and adamw the share \
    that one step at the initial rate takes off), random crops of 224 pixels.";
const EXAMPLES: &str = "Examples:\n  \
    imagenet --data ./imagenet --out runs/resnet18\n  \
    imagenet --data ./tiny-imagenet-200 --image-size 64 --optimizer sgd,adahessian --seed 0,1,2\n  \
    imagenet --model resnet50 --weights resnet50.safetensors --data ./images --epochs 5\n  \
    imagenet --synthetic";

struct ImageNet;

fn main() -> ExitCode {
    let command = Command::new("imagenet").about(ABOUT).after_help(EXAMPLES);
    driver::main(&Vision(ImageNet), command)
}

impl Benchmark for ImageNet {
    const NAME: &'static str = "imagenet";
    const EVALUATED: &'static str = "validation images";
    const METRICS: &'static [&'static str] = &["accuracy", "top5"];
    const IN_MEMORY: bool = false;

    fn defaults(&self, settings: &mut Settings<VisionArgs>) {
        settings.optimizer.weight_decay = 1e-4;
        settings.training.schedule = format!("step:0.1:{}:{}", 1.0 / 3.0, 2.0 / 3.0);
        settings.training.epochs = 90;
        settings.own.model = "resnet18".into();
        if settings.own.synthetic {
            settings.own.width = settings.own.width.or(Some(8));
            settings.own.image_size = settings.own.image_size.or(Some(32));
            settings.training.epochs = 2;
            settings.training.batch_size = 16;
        }
    }

    fn load(&self, own: &VisionArgs) -> Result<Data> {
        let size = own.image_size.unwrap_or(224);
        let (train, test) = match (&own.data, own.synthetic, own.hub) {
            (_, true, _) => (
                data::generate(96, size + 8, 8, 0)?,
                data::generate(32, size + 8, 8, 1)?,
            ),
            (None, _, false) => bail!(
                "where are the images? Give --data DIR with one of\n  \
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
}
