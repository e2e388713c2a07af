//! `criteo evaluate`: the scores of trained models, and their predictions.

use crate::parts;
use crate::train::{COLUMNS, ClickArgs, Clicks, forward};
use anyhow::{Context, Result, bail};
use candle_core::DType;
use clap::Args;
use common::experiment::Experiment;
use common::flags::Settings;
use common::layers::{self, Asked};
use common::values::list;
use common::{program, runs, say, say_error, table};
use datasets::Batches;
use datasets::criteo::Store;
use models::dlrm::Dlrm;
use models::{Model, Start};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use trainers::{Loss, RunFolder, Scores, Supervised, Task, checkpoint};

/// Evaluate the models of runs, each as its newest checkpoint has it, or write their predictions.
#[derive(Args)]
pub struct Options {
    /// Folders of runs or of comparisons, or single checkpoints
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,

    /// Another store, made with the ids of the run's (`criteo prepare --like`) [default: the run's]
    #[arg(long, value_name = "STORE")]
    data: Option<PathBuf>,

    /// The rows, separated by commas: test, validation, last-day, train, all [default: test,validation; for
    /// --predictions all]
    #[arg(long, value_name = "LIST")]
    on: Option<String>,

    /// Evaluate on the first N of these rows only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Write the probability of a click in each of these rows into a new file instead, `row,probability`,
    /// rows counted from 0; of one run
    #[arg(long, value_name = "FILE.csv")]
    predictions: Option<PathBuf>,

    /// Take each run's best checkpoint instead of its newest
    #[arg(long)]
    best: bool,

    /// Threads [default: the machine's physical cores]
    #[arg(long)]
    threads: Option<usize>,
}

impl Options {
    fn on(&self) -> &str {
        match (&self.on, &self.predictions) {
            (Some(on), _) => on,
            (None, Some(_)) => "all",
            (None, None) => "test,validation",
        }
    }
}

pub fn run(options: &Options) -> Result<()> {
    program::start(options.threads)?;
    let is_run = |path: &Path| path.join("checkpoint").is_dir();
    let paths = options.runs.iter().map(|path| runs::named(path, is_run));
    let paths = paths.collect::<Result<Vec<_>>>()?.concat();
    if options.predictions.is_some() && paths.len() > 1 {
        bail!("--predictions: expected one run, got {}", paths.len());
    }
    if let Some(file) = options.predictions.as_ref().filter(|file| file.exists()) {
        bail!(
            "{}: is there already: remove it, or choose another file",
            file.display()
        );
    }
    let (mut lines, mut failed) = (Vec::new(), 0);
    for path in &paths {
        let place = || format!("evaluating {}", path.display());
        let done = Trained::load(path, options).and_then(|trained| match &options.predictions {
            None => trained.evaluate(options, &mut lines),
            Some(file) => trained.predict(options, file),
        });
        match done.with_context(place) {
            Ok(()) => {}
            Err(error) if paths.len() == 1 => return Err(error),
            Err(error) => {
                say_error!("{error:#}");
                failed += 1;
            }
        }
    }
    if failed > 0 && lines.is_empty() {
        bail!("{failed} of {} runs could not be evaluated", paths.len());
    }
    if lines.is_empty() {
        return Ok(());
    }
    let mut header = vec!["run", "step", "rows"];
    header.extend(COLUMNS.iter().map(|column| column.head));
    say!("{}", table::format(&header, &lines));
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} runs could not be evaluated", paths.len()),
    }
}

/// A run's model as a checkpoint has it.
struct Trained {
    folder: PathBuf,
    settings: Settings<ClickArgs>,
    store: Store,
    model: Dlrm,
    step: u64,
}

impl Trained {
    fn load(path: &Path, options: &Options) -> Result<Self> {
        let (folder, settings, checkpoint) = find(path, options)?;
        // Whether the planted model made it is asked where its scores are.
        let store = match (&options.data, settings.own.synthetic) {
            (None, Some(_)) => Clicks.load(&settings, &folder)?,
            _ => parts::store(&settings.own)?,
        };
        let seed = settings.training.seed.parse().context("seed")?;
        let start = Start {
            seed,
            ..Start::default()
        };
        let model = parts::model(&settings.own, &start, &store, true)?;
        let loaded = checkpoint::load(&checkpoint)?;
        loaded.restore_vars(&model.vars())?;
        loaded.restore_tables(std::slice::from_ref(model.tables()))?;
        Ok(Self {
            folder,
            settings,
            store,
            model,
            step: loaded.progress.step,
        })
    }

    fn evaluate(&self, options: &Options, lines: &mut Vec<Vec<String>>) -> Result<()> {
        let own = &self.settings.own;
        for rows in list(options.on()).map_err(anyhow::Error::msg)? {
            let batches = parts::evaluation(&self.store, own, &rows, options.limit)?;
            let task = Supervised::new(forward(&self.model), Loss::BinaryCrossEntropy, batches);
            let scores = task.metrics(&["clicks"])?.evaluate()?;
            let name = self.folder.display().to_string();
            lines.push(line(name, self.step.to_string(), &rows, &scores));
            if let Some(scores) = parts::planted(&self.store, own, &rows, options.limit)? {
                let name = "(the model that made them)".to_string();
                lines.push(line(name, String::new(), &rows, &scores));
            }
        }
        Ok(())
    }

    fn predict(&self, options: &Options, path: &Path) -> Result<()> {
        // Whole or not at all: of a part nobody would know where it ends.
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).with_context(|| partial.display().to_string())?;
        let mut file = BufWriter::new(file);
        writeln!(file, "row,probability")?;
        for rows in list(options.on()).map_err(anyhow::Error::msg)? {
            let own = &self.settings.own;
            let batches = parts::evaluation(&self.store, own, &rows, options.limit)?;
            let mut row = batches.rows.start;
            let loss = Loss::BinaryCrossEntropy;
            let task = Supervised::new(forward(&self.model), loss, batches.clone());
            for index in 0..batches.len(0) {
                let logits = task
                    .outputs(&batches.get(0, index)?)?
                    .to_dtype(DType::F64)?;
                for logit in logits.flatten_all()?.to_vec1::<f64>()? {
                    writeln!(file, "{row},{:.7}", 1.0 / (1.0 + (-logit).exp()))?;
                    row += 1;
                }
            }
        }
        file.flush()?;
        std::fs::rename(&partial, path).with_context(|| path.display().to_string())
    }
}

fn line(name: String, step: String, rows: &str, scores: &Scores) -> Vec<String> {
    let mut cells = vec![name, step, rows.to_string()];
    // Of rows with one label, which nothing can rank.
    let ranks = scores.get("normalised_entropy").is_some();
    cells.extend(COLUMNS.iter().map(|column| match scores.get(column.score) {
        Some(_) if column.score == "auc" && !ranks => "-".into(),
        Some(value) => format!("{:.*}", column.places, value * column.factor),
        None => "-".into(),
    }));
    cells
}

/// A run's folder, its settings and the checkpoint to evaluate.
fn find(path: &Path, options: &Options) -> Result<(PathBuf, Settings<ClickArgs>, PathBuf)> {
    let folder = RunFolder::open(path)?;
    let place = folder.config().display().to_string();
    let mut given = layers::parse(&folder.settings()?)?;
    given.remove("table_file"); // the file belongs to the run; here the tables are in memory
    let mut settings = Asked::<ClickArgs>::of(&given, &place)?.settings;
    if let Some(data) = &options.data {
        settings.own.data = Some(data.clone());
        settings.own.planted = None;
    }
    let is_checkpoint = path.join("manifest").is_file();
    let checkpoint = match (is_checkpoint, options.best) {
        (true, _) => Some(path.to_path_buf()),
        (false, true) => folder.checkpoints().best()?,
        (false, false) => folder.checkpoints().newest()?,
    };
    let checkpoint = checkpoint.context("the run has no checkpoint")?;
    Ok((folder.path().to_path_buf(), settings, checkpoint))
}
