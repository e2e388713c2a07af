//! What the image programs share: residual networks, their flags, and how a run is put together.

pub mod data;

pub use data::Data;

use crate::card::Card;
use crate::experiment::{Experiment, Parts};
use crate::flags::Settings;
use crate::grid::Cell;
use crate::layers::Asked;
use crate::optimizers::{self, Family};
use crate::program;
use crate::say;
use crate::session::Session;
use crate::text;
use crate::values::{count, share};
use adahessian::ops::Mode;
use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::Args;
use datasets::{Ahead, Batcher, Batches, ImageBatch, ImageBatches};
use models::resnet::{Config, Shortcut, Stem};
use models::{LoadReport, Model as _, ResNet, Start};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use trainers::{Loss, Summary, Supervised};

/// Images in a batch of an evaluation: of CIFAR's size, and of ImageNet's. Few enough that the peak
/// memory is that of training.
const EVALUATION_BATCH: (usize, usize) = (100, 50);
/// Images of so many pixels or fewer are one in the last maps of ImageNet's networks.
const ONE_PIXEL: usize = 32;
/// Batches of an evaluation made ahead.
const EVALUATION_AHEAD: usize = 2;

/// The flags of the image programs.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VisionArgs {
    /// resnet20, resnet32, resnet44, resnet56, resnet110 (CIFAR's), resnet18, resnet34, resnet50
    /// (ImageNet's) [default: by program]
    #[arg(long, value_name = "NAME", default_value = "resnet20", hide_default_value = true, value_parser = network, help_heading = "What to train")]
    pub model: String,

    /// Start from these weights with torchvision's names; the classifier is fresh [default: random]
    #[arg(long, value_name = "FILE.safetensors", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,

    /// Where the shape changes: a (parameter-free) or b (projection)
    #[arg(long, value_name = "A_OR_B", default_value = "b", value_parser = shortcut, help_heading = "What to train")]
    pub shortcut: String,

    /// Channels of the first stage [default: the model's]
    #[arg(long, value_name = "CHANNELS", value_parser = count, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,

    /// The folder with the images
    #[arg(long, value_name = "DIR", help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,

    /// Take the images from the Hugging Face Hub
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "What to train")]
    pub hub: bool,

    /// Small generated images and a small model: no data, a minute, and nothing learned about optimizers
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "What to train")]
    pub synthetic: bool,

    /// Height and width of what the model sees (ImageNet) [default: 224]
    #[arg(long, value_name = "PIXELS", value_parser = count, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,

    /// Train without so many of the training images and evaluate on them, in the place of the test images: settings that
    /// are chosen by the test images look better than they are
    #[arg(long, value_name = "IMAGES", value_parser = count, help_heading = "What to train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<usize>,

    /// Probability mass spread over all classes
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "How to train")]
    pub label_smoothing: f64,
}

/// The name of a network that there is.
fn network(name: &str) -> Result<String, String> {
    Config::named(name)
        .map(|_| name.into())
        .map_err(|error| error.to_string())
}

/// One of the ways over a change of shape.
fn shortcut(name: &str) -> Result<String, String> {
    name.parse::<Shortcut>()
        .map(|_| name.into())
        .map_err(|error| error.to_string())
}

/// What tells one image program from the other.
pub trait Benchmark {
    /// Its name, and that of the folder of its runs.
    const NAME: &'static str;
    /// The images that it is evaluated on where none are held out.
    const EVALUATED: &'static str;
    /// What an evaluation reports.
    const METRICS: &'static [&'static str];
    /// Whether its images are in memory, so that a checksum of all of them takes no time.
    const IN_MEMORY: bool;

    /// The settings where nothing was asked for, but for those that depend on the optimizer.
    fn defaults(&self, settings: &mut Settings<VisionArgs>);

    /// Loads the images.
    ///
    /// # Errors
    /// If they are not there, or damaged.
    fn load(&self, own: &VisionArgs) -> Result<Data>;
}

/// An image program.
pub struct Vision<B>(pub B);

impl<B: Benchmark> Experiment for Vision<B> {
    type Args = VisionArgs;
    type Data = Data;

    const NAME: &'static str = B::NAME;

    fn defaults(&self, asked: &Asked<VisionArgs>) -> Result<Settings<VisionArgs>> {
        let mut settings = asked.settings.clone();
        // By their values: a configuration names all three.
        let own = &settings.own;
        if [own.data.is_some(), own.hub, own.synthetic]
            .iter()
            .filter(|&&given| given)
            .count()
            > 1
        {
            bail!(
                "--data, --hub, --synthetic: the images come from one of them; leave the others out"
            );
        }
        settings.training.batch_size = 256;
        self.0.defaults(&mut settings);
        let epochs = match asked.has("epochs") {
            true => asked.settings.training.epochs,
            false => settings.training.epochs,
        };
        let optimizer = &mut settings.optimizer;
        optimizer.lr = optimizers::default_lr(&optimizer.optimizer, Family::Residual)?;
        // The first 5 of 160 epochs have the Hessian on all steps (paper, Table 8).
        optimizer.hessian_first = match optimizer.hessian_every {
            0 | 1 => "0".into(),
            _ => format!("{}epochs", (epochs * 5).div_ceil(160)),
        };
        Ok(settings)
    }

    fn load(&self, settings: &Settings<VisionArgs>, _out: &Path) -> Result<Data> {
        let data = self.0.load(&settings.own)?;
        let data = match settings.own.hold_out {
            Some(count) => data.holding_out(count)?,
            None => data,
        };
        Ok(data.limited(&settings.training))
    }

    fn run(&self, cell: &Cell<VisionArgs>, data: &Data, session: Session) -> Result<Summary> {
        let settings = &cell.settings;
        let device = program::device(&settings.run.device)?;
        let judged_on = match settings.own.hold_out {
            Some(_) => "held-out training images",
            None => B::EVALUATED,
        };
        let (model, report) = model(cell, data, &device)?;
        let model = Arc::new(model);
        let train = Arc::new(train_batches(cell, data, &device));
        let steps = train.len(0) as u64;
        refuse_single_images(settings, data)?;
        let (network, replaced) = (model.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = replaced.clone();
        let forward = move |batch: &ImageBatch, mode: &Mode| {
            // An evaluation's too: they stand where others should.
            if matches!(mode, Mode::Eval | Mode::Train { micro: 0, .. }) {
                counted.fetch_add(batch.replaced, Ordering::Relaxed);
            }
            let logits = network.forward(&batch.pixels, mode);
            logits.map_err(trainers::Error::user)
        };
        let loss = Loss::CrossEntropy {
            label_smoothing: settings.own.label_smoothing,
        };
        let task =
            Supervised::new(forward, loss, test_batches(data, &device)).metrics(B::METRICS)?;
        let (exported, seen) = (model.clone(), data.seen()?);
        let summary = session.train(Parts {
            task,
            batches: train.clone(),
            vars: model.saved_vars(),
            optimizer: optimizer(cell, &model, steps)?,
            announce: format!(
                "{} training and {} {}, {} parameters, learning rate {}{}{}{}",
                data.train.len(),
                data.test.len(),
                judged_on,
                model.vars().elem_count(),
                settings.optimizer.rate_said(),
                text::loaded(report.as_ref()),
                without_images(data),
                left_out(data),
            ),
            export: Some(Box::new(move |folder| {
                exported.save(folder)?;
                Ok(seen.save(folder)?)
            })),
            card: Card {
                what: format!(
                    "{}, a residual network that sorts images into {} classes",
                    settings.own.model,
                    data.train.classes().len()
                ),
                judged_on,
                ..Card::default()
            },
            keep_checkpoints: 2,
            mark: Some(data.mark(B::IN_MEMORY)?),
        })?;
        program::waited(&train.waited());
        match replaced.load(Ordering::Relaxed) {
            0 => {}
            count => say!(
                "  {count} times an image that cannot be decoded was replaced, in evaluations, too"
            ),
        }
        Ok(summary)
    }
}

/// Refuses a batch, or a part of one, of a single image whose last maps are a pixel: normalisation over one value a channel
/// is none. The last batch of an epoch is the smallest, and at the end of the epoch it would be too late.
fn refuse_single_images(settings: &Settings<VisionArgs>, data: &Data) -> Result<()> {
    let (training, optimizer) = (&settings.training, &settings.optimizer);
    let (images, size) = (data.train.len(), training.batch_size);
    let has_curvature = ["adahessian", "sophiah"].contains(&optimizer.optimizer.as_str());
    let smallest = |batch: usize| {
        let part = batch / training.micro_batches.min(batch);
        let few = (optimizer.curvature_fraction * part as f64).ceil() as usize;
        match has_curvature {
            true => few.clamp(1, part),
            false => part,
        }
    };
    let last = images.div_ceil(size) as u64;
    let comes_to_last = training.max_steps.is_none_or(|most| most >= last);
    let batches = [
        images.min(size),
        if comes_to_last { images % size } else { 0 },
    ];
    let mut batches = batches.into_iter().filter(|&batch| batch > 0);
    let single = batches.any(|batch| smallest(batch) == 1);
    let stem = Config::named(&settings.own.model)?.stem;
    let one_pixel =
        stem == Stem::ImageNet && data.seen()?.size().is_none_or(|size| size <= ONE_PIXEL);
    if single && one_pixel {
        bail!(
            "--batch-size {size}, --micro-batches {}, --curvature-fraction {}: of {images} images they leave a batch, or a part \
             of one, of a single image, whose last maps are one pixel; choose others, or another --limit",
            training.micro_batches,
            optimizer.curvature_fraction
        );
    }
    Ok(())
}

/// Classes that have no image to train on, as in a folder that was not unpacked to its end.
fn without_images(data: &Data) -> String {
    match data.train.empty_classes() {
        [] => String::new(),
        [first, ..] => format!(
            "\n  {} classes have no image to train on: {first}{}",
            data.train.empty_classes().len(),
            if data.train.empty_classes().len() > 1 {
                ", …"
            } else {
                ""
            },
        ),
    }
}

/// What lies between the images and is not read.
fn left_out(data: &Data) -> String {
    match data.train.left_out() + data.test.left_out() {
        0 => String::new(),
        count => format!(
            "\n  {count} folders and pictures in other formats than JPEG and PNG are left out"
        ),
    }
}

/// And what a checkpoint brought.
fn model(
    cell: &Cell<VisionArgs>,
    data: &Data,
    device: &Device,
) -> Result<(ResNet, Option<LoadReport>)> {
    let own = &cell.settings.own;
    let base = Config::named(&own.model).with_context(|| format!("--model {}", own.model))?;
    let config = Config {
        classes: data.train.classes().len(),
        width: own.width.unwrap_or(base.width),
        shortcut: own.shortcut.parse()?,
        ..base
    };
    let start = Start {
        seed: cell.seed,
        device: device.clone(),
        new_head: true,
        ..Start::default()
    };
    let (model, report) = match &own.weights {
        Some(path) => {
            let (model, report) = ResNet::load(path, &config, &start)?;
            (model, Some(report))
        }
        None => (ResNet::new(&config, &start)?, None),
    };
    let names = data.train.classes();
    let is_clear = names.iter().collect::<HashSet<_>>().len() == names.len();
    Ok(match is_clear {
        true => (model.with_label_names(names)?, report),
        false => (model, report),
    })
}

/// For AdaHessian and AdamW the decay is the share that one step at the initial rate takes off: decay / rate is
/// what the optimizer gets, as in the published code.
fn optimizer(
    cell: &Cell<VisionArgs>,
    model: &ResNet,
    steps_per_epoch: u64,
) -> Result<Box<dyn adahessian::Optim>> {
    let mut args = cell.settings.optimizer.clone();
    if let "adahessian" | "adamw" = args.optimizer.as_str() {
        args.weight_decay /= args.rate();
    }
    let place = optimizers::Place::of(cell, steps_per_epoch, model.blocks())?;
    optimizers::build(&args, place, &model.vars())
}

fn train_batches(cell: &Cell<VisionArgs>, data: &Data, device: &Device) -> Ahead<ImageBatches> {
    let batcher = Batcher {
        batch_size: cell.settings.training.batch_size,
        seed: cell.seed,
        ..Batcher::default()
    };
    let batches = ImageBatches::new(data.train.clone(), batcher, data.train_augment, device);
    Ahead::new(batches, cell.settings.run.prefetch)
}

fn test_batches(data: &Data, device: &Device) -> Ahead<ImageBatches> {
    let is_small = data.test_augment.size().is_none_or(|size| size <= 64);
    let (small, large) = EVALUATION_BATCH;
    let batcher = Batcher {
        batch_size: if is_small { small } else { large },
        shuffle: false,
        ..Batcher::default()
    };
    let (test, augment) = (data.test.clone(), data.test_augment);
    Ahead::new(
        ImageBatches::new(test, batcher, augment, device),
        EVALUATION_AHEAD,
    )
}
