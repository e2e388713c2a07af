//! What a trained residual network says of pictures.
//!
//! ```text
//! classify runs/resnet18 cat.jpg holidays/ --top 3
//! ```

use adahessian::ops::Mode;
use adahessian::without_graph;
use anyhow::{Result, bail};
use candle_core::{DType, Device};
use clap::{CommandFactory, FromArgMatches, Parser};
use common::values::count;
use common::{answers, driver, program, say_error};
use datasets::{Augment, ImageDataset, OnCorrupt, image};
use models::{ResNet, Start};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Sort pictures into the classes that a residual network was trained for
///
/// Each picture's line has the class, its probability and the file, with tabs between them; with --top more classes and
/// probabilities, the likeliest first. A picture is resized, cut and normalised as those of the evaluation were.
#[derive(Parser)]
#[command(name = "classify")]
struct Options {
    /// A run's folder of cifar or imagenet, or a model's
    model: PathBuf,

    /// JPEG and PNG files, and folders of them
    #[arg(required = true)]
    pictures: Vec<PathBuf>,

    /// Of a run, take the model of the best evaluation, where it is another than the last one
    #[arg(long)]
    best: bool,

    /// So many of the likeliest classes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count)]
    top: usize,

    /// Write the answer into this new file [default: standard output]
    #[arg(long, value_name = "FILE.tsv")]
    out: Option<PathBuf>,

    /// Pictures at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = count)]
    batch_size: usize,

    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,

    /// Threads [default: the machine's physical cores]
    #[arg(long, value_parser = common::values::threads)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let matches = Options::command().get_matches();
    let options = Options::from_arg_matches(&matches).map_err(anyhow::Error::from);
    let done = options.and_then(|options| run(&options));
    driver::exit(done.map(|()| ExitCode::SUCCESS))
}

fn run(options: &Options) -> Result<()> {
    program::start(options.threads)?;
    answers::expect_new(options.out.as_deref())?;
    let device = program::device(&options.device)?;
    let model = Classifier::open(&folder(options)?, device)?;
    let files = files(&options.pictures)?;
    let (mut answer, mut broken) = (Vec::new(), 0);
    for files in files.chunks(options.batch_size) {
        let (mut lines, mut errors) = (Vec::new(), Vec::new());
        let said = model.some_lines(files, options.top, &mut lines, &mut errors);
        match options.out {
            Some(_) => answer.append(&mut lines),
            None => {
                let mut output = io::stdout().lock();
                let written = output.write_all(&lines).and_then(|()| output.flush());
                answers::printed(written.map_err(Into::into))?;
            }
        }
        for error in &errors {
            say_error!("{}", driver::shown(error));
        }
        if let Err(error) = said {
            answers::finish_in_part(options.out.as_deref(), &answer)?;
            return Err(error);
        }
        broken += errors.len();
    }
    if broken == 0 {
        return answers::finish(options.out.as_deref(), &answer);
    }
    answers::finish_in_part(options.out.as_deref(), &answer)?;
    bail!("{broken} of {} pictures have no answer", files.len())
}

/// Where the model's files are.
fn folder(options: &Options) -> Result<PathBuf> {
    let path = &options.model;
    let of_run = answers::model_of_run(path, options.best);
    let own = path.join("config.json").is_file().then(|| path.clone());
    of_run
        .or(own)
        .ok_or_else(|| answers::no_model(path, options.best))
}

/// The files, and those in the folders, in their order.
fn files(pictures: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in pictures {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let (found, left_out) = image::pictures(path)?;
        if left_out > 0 {
            tracing::warn!(
                "{}: {left_out} folders and pictures in other formats than JPEG and PNG are left out",
                path.display()
            );
        }
        if found.is_empty() {
            bail!("{}: no .jpg, .jpeg or .png in it", path.display());
        }
        files.extend(found);
    }
    Ok(files)
}

/// A network, and what it sees of a picture.
struct Classifier {
    model: ResNet,
    augment: Augment,
    device: Device,
}

impl Classifier {
    fn open(folder: &Path, device: Device) -> Result<Self> {
        let start = Start {
            device: device.clone(),
            ..Start::default()
        };
        let (model, report) = ResNet::open(folder, &start)?;
        if let Some(name) = report.initialised.first() {
            bail!(
                "{}: has no `{name}`, so that its answers would be drawn by lot",
                folder.display()
            );
        }
        let augment = Augment::from_folder(folder)?;
        Ok(Self {
            model,
            augment,
            device,
        })
    }

    /// A line for each picture that can be read, and what is wrong with the others. Before an error that is no picture's
    /// both are there.
    fn some_lines(
        &self,
        files: &[PathBuf],
        top: usize,
        to: &mut Vec<u8>,
        errors: &mut Vec<anyhow::Error>,
    ) -> Result<()> {
        let mut together = Vec::new();
        if self.lines(files, top, &mut together).is_ok() {
            to.append(&mut together);
            return Ok(());
        }
        for file in files.chunks(1) {
            match self.lines(file, top, to) {
                Ok(()) => {}
                Err(error) if error.is::<datasets::Error>() => errors.push(error),
                Err(error) => return Err(error.context(file[0].display().to_string())),
            }
        }
        Ok(())
    }

    /// A line for each picture.
    fn lines(&self, files: &[PathBuf], top: usize, to: &mut dyn Write) -> Result<()> {
        let (classes, labelled) = (vec![String::new()], files.iter().map(|f| (f.clone(), 0)));
        let pictures = ImageDataset::from_files(classes, labelled.collect(), OnCorrupt::Fail)?;
        let indices: Vec<usize> = (0..files.len()).collect();
        let batch = pictures.batch(&indices, 0, 0, &self.augment, &self.device)?;
        let logits = without_graph(|| self.model.forward(&batch.pixels, &Mode::Eval))?;
        let logits = logits.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        answers::expect_finite(&logits)?;
        let names = self.model.label_names();
        for (file, logits) in files.iter().zip(logits) {
            for (class, probability) in likeliest(&logits).into_iter().take(top) {
                write!(to, "{}\t{probability:.4}\t", names[class])?;
            }
            writeln!(to, "{}", file.display())?;
        }
        Ok(())
    }
}

/// All classes with their probabilities, the likeliest first, of equal ones the first.
fn likeliest(logits: &[f64]) -> Vec<(usize, f64)> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut classes: Vec<_> = weights.iter().map(|w| w / sum).enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes
}
