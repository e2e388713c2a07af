//! A comparison from its flags to its table: it makes the runs that are not made yet.

use super::plan::{self, Plan};
use super::{Benchmark, Options, VisionSettings, picture, run};
use crate::results::{self, Row, Run};
use crate::{folders, program, table};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use trainers::Outcome;

/// Makes all runs that the options ask for, and a table and a picture of them.
///
/// With `--resume` runs that are complete stay, one that was interrupted goes on from its newest
/// checkpoint, and the rest is made. A run that fails, for example because its loss is not a number
/// any more, is reported, and the others are made all the same.
///
/// # Errors
/// For settings that do not fit, data that cannot be loaded, and at the end if a run failed.
pub fn compare(benchmark: &Benchmark, options: &Options) -> Result<()> {
    let (settings, out, resume) = prepare(benchmark, options)?;
    program::start(settings.threads)?;
    let stop = program::stop_flag()?;
    let plans = plan::plans(benchmark, &settings, &out)?;
    let open: Vec<&Plan> = plans
        .iter()
        .filter(|plan| !(resume.is_some() && results::is_complete(&plan.folder)))
        .collect();
    if open.len() < plans.len() {
        println!(
            "{} of {} runs are finished",
            plans.len() - open.len(),
            plans.len()
        );
    }
    let is_new = resume.is_none() && plans.len() > 1;
    if is_new {
        folders::refuse_full(&out)?;
    }
    let mut failed = 0;
    if !open.is_empty() {
        let loaded = plans[0].settings.clone();
        let data = (benchmark.load)(&loaded)?.limited(&loaded);
        if is_new {
            std::fs::create_dir_all(&out)?;
            std::fs::write(out.join("config.toml"), settings.text()?)?;
        }
        for plan in open {
            let from = resume
                .as_deref()
                .and_then(|path| folders::begun(&plan.folder, (plans.len() == 1).then_some(path)));
            match run::run(benchmark, plan, &data, from.as_deref(), &stop) {
                Ok(summary) if matches!(summary.outcome, Outcome::Interrupted { .. }) => break,
                Ok(_) => {}
                Err(error) => {
                    let name = format!("{} with seed {}", plan.optimizer, plan.seed);
                    eprintln!("{name} failed: {error:#}");
                    failed += 1;
                }
            }
            report(&plans, &out, false)?;
            if stop.load(Ordering::SeqCst) {
                break;
            }
        }
    }
    report(&plans, &out, true)?;
    if stop.load(Ordering::SeqCst) {
        println!("go on with --resume {}", out.display());
    }
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} runs failed", plans.len()),
    }
}

/// The settings, the output folder, and what to resume.
fn prepare(
    benchmark: &Benchmark,
    options: &Options,
) -> Result<(VisionSettings, PathBuf, Option<PathBuf>)> {
    let mut settings = options.settings.clone();
    if let Some(file) = &options.config {
        settings = settings.over(&VisionSettings::read(file)?)?;
    }
    match folders::resume(&options.resume, &options.out)? {
        None => {
            let out = options.out.clone();
            let out = out.unwrap_or_else(|| folders::free(benchmark.name));
            Ok((settings, out, None))
        }
        Some(path) => {
            let root = folders::root(&path)?;
            let settings = settings.over(&VisionSettings::read(&root.join("config.toml"))?)?;
            Ok((settings, root, Some(path)))
        }
    }
}

/// Writes the picture and `results.json` of the runs that are complete; prints the table.
fn report(plans: &[Plan], out: &Path, print: bool) -> Result<()> {
    let complete = plans.iter().filter(|p| results::is_complete(&p.folder));
    let runs = complete.map(|plan| Run::read(&plan.optimizer, &plan.folder));
    let runs = runs.collect::<Result<Vec<_>>>()?;
    if runs.is_empty() {
        return Ok(());
    }
    let rows = results::rows(&runs);
    let (json, svg) = (out.join("results.json"), out.join("losses.svg"));
    std::fs::write(&json, serde_json::to_string_pretty(&rows)?)?;
    picture::draw(&svg, &rows)?;
    if print {
        println!("\n{}", text(&rows));
        println!("\nlosses: {}", svg.display());
    }
    Ok(())
}

/// The table: accuracies in percent, means over the seeds ± standard deviation.
fn text(rows: &[Row]) -> String {
    let is_accuracy = |name: &&String| *name != "loss";
    let names = rows.first().map(|row| row.last.keys().filter(is_accuracy));
    let names: Vec<&String> = names.into_iter().flatten().collect();
    let mut header = vec!["optimizer", "runs"];
    header.extend(names.iter().map(|name| name.as_str()));
    header.extend([
        "best",
        "test loss",
        "train loss",
        "s/step",
        "peak MiB",
        "minutes",
    ]);
    let line = |row: &Row| {
        let last = |name: &str, factor, places| match row.last.get(name) {
            Some(spread) => spread.text(factor, places),
            None => "-".into(),
        };
        let number = |value: Option<f64>, places: usize| match value {
            Some(value) => format!("{value:.places$}"),
            None => "-".into(),
        };
        let mut cells = vec![row.optimizer.clone(), row.runs.to_string()];
        cells.extend(names.iter().map(|name| last(name, 100.0, 2)));
        cells.extend([
            row.best
                .get("accuracy")
                .map_or("-".into(), |best| best.text(100.0, 2)),
            last("loss", 1.0, 4),
            row.train_loss.text(1.0, 4),
            number(row.seconds_per_step, 3),
            number(row.peak_memory_mib, 0),
            format!("{:.1}", row.minutes),
        ]);
        cells
    };
    table::format(&header, &rows.iter().map(line).collect::<Vec<_>>())
}
