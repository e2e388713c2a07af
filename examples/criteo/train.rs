//! `criteo train`: a run, or a comparison of optimizers over seeds.

use crate::generate;
use crate::plan::{self, Plan};
use crate::settings::Settings;
use crate::{parts, planted, run, scores};
use anyhow::{Result, bail};
use clap::Args;
use common::results::{self, Row, Run};
use common::{folders, layers, program, table};
use datasets::criteo::{Preprocessing, Store, prepare};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use trainers::callbacks::{Curve, draw};
use trainers::{Outcome, Scores};

/// Train DLRM: AdaHessian on the dense layers beside Adagrad on the tables.
///
/// The defaults are the paper's settings for Criteo Kaggle: batches of 128, one epoch, AdaHessian with
/// rate 0.043, k 0.5 and betas 0.9, 0.98 on the networks 13-512-256-64-16 and 367-512-256-1, Adagrad with
/// rate 0.01 on 26 tables of width 16. With several optimizers or seeds it is a comparison: a folder each
/// below --out, and a table and a picture of their means.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    settings: Settings,

    /// Settings from a TOML file; flags go before it
    #[arg(long, value_name = "FILE.toml", help_heading = "The run")]
    config: Option<PathBuf>,

    /// The folder of the run or of the comparison [default: runs/criteo, runs/criteo-2, ...]
    #[arg(long, value_name = "DIR", help_heading = "The run")]
    out: Option<PathBuf>,

    /// Go on where an interrupted run or comparison stopped: its folder [default: --out]
    #[arg(long, value_name = "DIR", num_args = 0..=1, help_heading = "The run")]
    resume: Option<Option<PathBuf>>,
}

pub fn run(options: &Options) -> Result<()> {
    let (mut settings, out, resume) = prepare_settings(options)?;
    program::start(settings.threads)?;
    let stop = program::stop_flag()?;
    let several = plan::plans(&settings, &out)?.len() > 1;
    if resume.is_none() && several {
        folders::refuse_full(&out)?;
    }
    if let Some(rows) = settings.synthetic {
        settings.data = Some(synthetic(rows, &out)?);
        settings.planted = Some(0);
    }
    let store = parts::store(&settings)?;
    let plans = plan::plans(&settings, &out)?;
    if resume.is_none() && several {
        std::fs::create_dir_all(&out)?;
        std::fs::write(out.join("config.toml"), layers::text(&settings)?)?;
    }
    let failed = train(&plans, &store, resume.as_deref(), &stop)?;
    report(&plans, &store, &out)?;
    if stop.load(Ordering::SeqCst) {
        println!("go on with --resume {}", out.display());
    }
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} runs failed", plans.len()),
    }
}

/// Makes the runs that are not complete, until one is interrupted. Of several, those that fail are
/// counted, and the others are made all the same.
fn train(
    plans: &[Plan],
    store: &Store,
    resume: Option<&Path>,
    stop: &Arc<AtomicBool>,
) -> Result<usize> {
    let (several, mut failed) = (plans.len() > 1, 0);
    for plan in plans {
        if resume.is_some() && results::is_complete(&plan.folder) {
            println!("{}: finished already", plan.folder.display());
            continue;
        }
        let alone = resume.filter(|_| !several);
        let from = resume.and_then(|_| folders::begun(&plan.folder, alone));
        match run::run(plan, store, from.as_deref(), stop) {
            Ok(summary) if matches!(summary.outcome, Outcome::Interrupted { .. }) => break,
            Ok(_) => {}
            Err(error) if several => {
                let name = format!("{} with seed {}", plan.optimizer, plan.seed);
                eprintln!("{name} failed: {error:#}");
                failed += 1;
            }
            Err(error) => return Err(error),
        }
        if stop.load(Ordering::SeqCst) {
            break;
        }
    }
    Ok(failed)
}

/// The settings, the output folder, and what to resume.
fn prepare_settings(options: &Options) -> Result<(Settings, PathBuf, Option<PathBuf>)> {
    let mut settings = options.settings.clone();
    if let Some(file) = &options.config {
        settings = layers::over(&settings, &layers::read(file)?)?;
    }
    match folders::resume(&options.resume, &options.out)? {
        None => {
            let out = options.out.clone();
            Ok((
                settings,
                out.unwrap_or_else(|| folders::free("criteo")),
                None,
            ))
        }
        Some(path) => {
            let root = folders::root(&path)?;
            let settings = layers::over(&settings, &layers::read(&root.join("config.toml"))?)?;
            Ok((settings, root, Some(path)))
        }
    }
}

/// The store of generated rows, a function of their number, beside the output folder.
fn synthetic(rows: u64, out: &Path) -> Result<PathBuf> {
    let folder = out.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("planted-{rows}.clicks"));
    if !path.exists() {
        let text = folder.join(format!("planted-{rows}.txt"));
        if text.exists() {
            std::fs::remove_file(&text)?; // what an interrupted call left
        }
        generate::write(&text, rows, 0)?;
        prepare(
            std::slice::from_ref(&text),
            &path,
            &Preprocessing::default(),
            |_| (),
        )?;
        std::fs::remove_file(&text)?;
    }
    Ok(path)
}

/// Prints the table of the runs that are complete; of several, `results.json` and a picture, too.
fn report(plans: &[Plan], store: &Store, out: &Path) -> Result<()> {
    let complete = plans.iter().filter(|p| results::is_complete(&p.folder));
    let complete: Vec<&Plan> = complete.collect();
    let runs = complete
        .iter()
        .map(|plan| Run::read(&plan.optimizer, &plan.folder));
    let rows = results::rows(&runs.collect::<Result<Vec<_>>>()?);
    let Some(first) = complete.first() else {
        return Ok(());
    };
    let eval_on = first.settings.eval_on.as_deref().unwrap_or("test");
    let planted = planted::scores(store, &first.settings, eval_on, first.settings.limit_eval)?;
    println!("\n{}", text(&rows, planted.as_ref()));
    for row in &rows {
        if row.last.get("says_nothing").is_some_and(|s| s.mean > 0.0) {
            println!(
                "{}: in some run all predictions or all labels are the same: AUC and accuracy say nothing",
                row.optimizer
            );
        }
    }
    let picture = out.join("curves.svg");
    if plans.len() > 1 {
        std::fs::write(
            out.join("results.json"),
            serde_json::to_string_pretty(&rows)?,
        )?;
        let curves = complete.iter().map(|plan| {
            let label = format!("{} seed {}", plan.optimizer, plan.seed);
            Ok(Curve::read(&plan.folder.join("metrics.jsonl"), label)?)
        });
        draw(&picture, &curves.collect::<Result<Vec<_>>>()?)?;
    }
    println!("\ncurves: {}", picture.display());
    Ok(())
}

/// The scores of the last evaluations, means over the seeds ± standard deviation.
fn text(rows: &[Row], planted: Option<&Scores>) -> String {
    let mut header = vec!["optimizer", "runs"];
    header.extend(scores::HEADER);
    header.extend(["s/step", "peak MiB", "minutes"]);
    let number = |value: Option<f64>, places: usize| match value {
        Some(value) => format!("{value:.places$}"),
        None => "-".into(),
    };
    let line = |row: &Row| {
        let mut cells = vec![row.optimizer.clone(), row.runs.to_string()];
        let last = scores::COLUMNS.iter().map(|&(name, factor, places)| {
            let spread = row.last.get(name);
            spread.map_or("-".into(), |spread| spread.text(factor, places))
        });
        cells.extend(last);
        cells.extend([
            number(row.seconds_per_step, 5),
            number(row.peak_memory_mib, 0),
            format!("{:.1}", row.minutes),
        ]);
        cells
    };
    let mut lines: Vec<Vec<String>> = rows.iter().map(line).collect();
    lines.extend(planted.map(|of| {
        let mut cells = vec!["(the model that made them)".into(), String::new()];
        cells.extend(scores::cells(of));
        cells
    }));
    table::format(&header, &lines)
}
