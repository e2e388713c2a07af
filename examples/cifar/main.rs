//! Trains residual networks on CIFAR-10, with AdaHessian or a first-order optimizer, and compares
//! optimizers over seeds. The defaults are the paper's settings.

use anyhow::{Result, bail};
use clap::Command;
use common::driver;
use common::flags::Settings;
use common::vision::{Benchmark, Data, Vision, VisionArgs, data};
use datasets::{Augment, Split, cifar10};
use std::process::ExitCode;

const ABOUT: &str = "Train residual networks on CIFAR-10 with AdaHessian or a first-order optimizer.\n\n\
    The defaults are the paper's: ResNet-20 with projection shortcuts, batches of 256, 160 epochs, the rate x 0.1 \
    after half and three quarters of them, weight decay 5e-4 (for adahessian and adamw the share that one step at the \
    initial rate takes off), AdaHessian with blocks of one kernel window.";
const EXAMPLES: &str = "Examples:\n  \
    cifar --data cifar-10-batches-bin\n  \
    cifar --data ./cifar10 --optimizer sgd,adam,adamw,adahessian --seed 0,1,2 --out runs/comparison\n  \
    cifar --data ./cifar10 --sweep lr=0.05,0.15,0.5 --epochs 10\n  \
    cifar --resume runs/comparison\n  \
    cifar --synthetic";

struct Cifar;

fn main() -> ExitCode {
    let command = Command::new("cifar").about(ABOUT).after_help(EXAMPLES);
    driver::main(&Vision(Cifar), command)
}

impl Benchmark for Cifar {
    const NAME: &'static str = "cifar";
    const EVALUATED: &'static str = "test images";
    const METRICS: &'static [&'static str] = &["accuracy"];
    const IN_MEMORY: bool = true;

    fn defaults(&self, settings: &mut Settings<VisionArgs>) {
        settings.optimizer.weight_decay = 5e-4;
        settings.training.schedule = "step:0.1:0.5:0.75".into();
        settings.training.epochs = 160;
        settings.own.model = "resnet20".into();
        if settings.own.synthetic {
            settings.own.model = "resnet8".into();
            settings.training.epochs = 3;
            settings.training.batch_size = 32;
        }
    }

    fn load(&self, own: &VisionArgs) -> Result<Data> {
        if own.image_size.is_some() {
            bail!("--image-size: CIFAR-10's images are 32 pixels high and wide; leave it out");
        }
        let (train, test) = match (&own.data, own.synthetic, own.hub) {
            (_, true, _) => (
                data::generate(320, 32, 10, 0)?,
                data::generate(100, 32, 10, 1)?,
            ),
            (None, _, false) => bail!(
                "where is CIFAR-10? Give --data DIR with one of\n  \
                 cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html, unpacked (data_batch_1.bin ... test_batch.bin)\n  \
                 class folders of images: train/airplane/*.png ..., test/airplane/*.png ...\n  \
                 the parquet files of uoft-cs/cifar10 (plain_text/train-00000-of-00001.parquet ...)\n\
                 or --hub to take the last from the Hugging Face Hub, or --synthetic to try without data"
            ),
            (folder, _, _) => {
                let folder = folder.as_deref();
                let train = cifar10::load(folder, Split::Train)?;
                let test = cifar10::load(folder, Split::Test)?;
                // A file that is not there, or there twice, shows nowhere else.
                if (train.len(), test.len()) != (50_000, 10_000) {
                    tracing::warn!(
                        train = train.len(),
                        test = test.len(),
                        "CIFAR-10 has 50000 images to train on and 10000 to test on; these are others"
                    );
                }
                (train, test)
            }
        };
        Ok(Data {
            train,
            test,
            train_augment: Augment::cifar_train(),
            test_augment: Augment::cifar_test(),
        })
    }
}
