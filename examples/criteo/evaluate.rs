//! `criteo evaluate`: the scores of a trained model.

use crate::plan::{self, Plan};
use crate::settings::Settings;
use crate::{parts, planted, run};
use anyhow::{Context, Result};
use clap::Args;
use common::settings::list;
use common::{folders, layers, program, table};
use std::path::{Path, PathBuf};
use trainers::tasks::ClickPrediction;
use trainers::{RunFolder, Scores, Task, checkpoint};

/// Evaluate the models of runs, each as its newest checkpoint has it.
#[derive(Args)]
pub struct Options {
    /// Folders of runs, or single checkpoints
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,

    /// Another store, made with the run's vocabularies (`criteo prepare --like`) [default: the run's]
    #[arg(long, value_name = "STORE")]
    data: Option<PathBuf>,

    /// The rows, separated by commas: test, validation, last-day, train
    #[arg(long, value_name = "LIST", default_value = "test,validation")]
    on: String,

    /// Evaluate on the first N of these rows only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Take each run's best checkpoint instead of its newest
    #[arg(long)]
    best: bool,

    /// Threads [default: the machine's physical cores]
    #[arg(long)]
    threads: Option<usize>,
}

pub fn run(options: &Options) -> Result<()> {
    program::start(options.threads)?;
    let mut lines = Vec::new();
    for path in &options.runs {
        evaluate(path, options, &mut lines)
            .with_context(|| format!("evaluating {}", path.display()))?;
    }
    let header = [
        "run",
        "step",
        "rows",
        "AUC",
        "accuracy",
        "log loss",
        "norm. entropy",
        "predicted",
        "clicks",
    ];
    println!("{}", table::format(&header, &lines));
    Ok(())
}

fn evaluate(path: &Path, options: &Options, lines: &mut Vec<Vec<String>>) -> Result<()> {
    let (plan, checkpoint) = find(path, options)?;
    let store = parts::store(&plan.settings)?;
    let model = parts::model(&plan, &store, true)?;
    let loaded = checkpoint::load(&checkpoint)?;
    loaded.restore_vars(&model.vars())?;
    loaded.restore_tables(std::slice::from_ref(model.tables()))?;
    let mut add = |name: String, step: String, rows: &str, scores: &Scores| {
        let mut cells = vec![name, step, rows.to_string()];
        let shown = [
            ("auc", 100.0, 3),
            ("accuracy", 100.0, 3),
            ("loss", 1.0, 5),
            ("normalised_entropy", 1.0, 5),
            ("prediction_rate", 100.0, 2),
            ("label_rate", 100.0, 2),
        ];
        cells.extend(shown.map(|(name, factor, places)| match scores.get(name) {
            Some(value) => format!("{:.places$}", value * factor),
            None => "-".into(),
        }));
        lines.push(cells);
    };
    for rows in list(&options.on) {
        let batches = parts::evaluation(&store, &rows, options.limit)?;
        let scores = ClickPrediction::new(run::forward(&model), batches).evaluate()?;
        let step = loaded.progress.step.to_string();
        add(plan.folder.display().to_string(), step, &rows, &scores);
        if let Some(seed) = plan.settings.planted {
            let scores = planted::scores(&store, seed, &rows, options.limit)?;
            add(
                "(the model that made them)".into(),
                String::new(),
                &rows,
                &scores,
            );
        }
    }
    Ok(())
}

/// A run's plan and the checkpoint to evaluate.
fn find(path: &Path, options: &Options) -> Result<(Plan, PathBuf)> {
    let folder = RunFolder::open(path)?;
    let mut settings: Settings = layers::read(&folder.config())?;
    settings.table_file = None; // the file belongs to the run; here the tables are in memory
    if options.data.is_some() {
        settings.data.clone_from(&options.data);
        settings.planted = None;
    }
    let mut plans = plan::plans(&settings, folders::root(path)?.as_path())?;
    let plan = plans
        .pop()
        .context("the run's config.toml names no optimizer")?;
    let is_checkpoint = path.join("manifest").is_file();
    let checkpoint = match (is_checkpoint, options.best) {
        (true, _) => Some(path.to_path_buf()),
        (false, true) => folder.checkpoints().best()?,
        (false, false) => folder.checkpoints().latest()?,
    };
    Ok((plan, checkpoint.context("the run has no checkpoint")?))
}
