//! Fine-tunes a Hugging Face checkpoint on GLUE, with AdaHessian or a first-order optimizer.
//!
//! Without arguments it needs no network: a mini SqueezeBERT is trained from scratch on a shipped
//! sample, AdaHessian beside AdamW.

mod parts;
mod plan;
mod run;

use anyhow::{Context, Result};
use clap::Parser;
use common::results::is_complete;
use common::settings::Settings;
use common::{folders, program, table};
use plan::Plan;
use run::Finished;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use trainers::Outcome;
use trainers::callbacks::{Curve, draw};

/// Fine-tune a BERT or SqueezeBERT checkpoint on GLUE tasks with AdaHessian or a first-order
/// optimizer.
///
/// Without arguments: a mini SqueezeBERT from scratch on a shipped sample, offline, AdaHessian beside
/// AdamW, in two minutes.
#[derive(Parser)]
#[command(after_help = "Examples:\n  \
    glue --model squeezebert/squeezebert-uncased --task rte,mrpc\n  \
    glue --model ./minilm --data ./glue_data --task sst2 --optimizer adahessian,adamw --out runs/sst2\n  \
    glue --resume runs/sst2\n\n\
    A run's folder holds config.toml, metrics.jsonl, TensorBoard events, curves.svg, summary.json, checkpoint/ and\n\
    model/, which transformers opens as it is.")]
struct Cli {
    #[command(flatten)]
    settings: Settings,

    /// Settings from a TOML file; flags go before it
    #[arg(long, value_name = "FILE.toml", help_heading = "The run")]
    config: Option<PathBuf>,

    /// The run's folder [default: runs/glue, runs/glue-2, ...]
    #[arg(long, value_name = "DIR", help_heading = "The run")]
    out: Option<PathBuf>,

    /// Go on with an interrupted run: its folder, or one of its checkpoints [default: --out]
    #[arg(long, value_name = "RUN", num_args = 0..=1, help_heading = "The run")]
    resume: Option<Option<PathBuf>>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    program::start(cli.settings.threads)?;
    let stop = program::stop_flag()?;
    let (plans, resume, out) = prepare(&cli)?;
    let mut finished = Vec::new();
    for plan in &plans {
        let from = resume
            .as_deref()
            .and_then(|path| resume_point(plan, &plans, path));
        if from.is_none() && is_complete(&plan.folder) && resume.is_some() {
            println!("{}: finished already", plan.folder.display());
            continue;
        }
        let run = run::run(plan, from.as_deref(), &stop);
        let run = run.with_context(|| format!("{} with {}", plan.task, plan.optimizer))?;
        let interrupted = matches!(run.summary.outcome, Outcome::Interrupted { .. });
        finished.push((plan, run));
        if interrupted || stop.load(Ordering::SeqCst) {
            break;
        }
    }
    report(&finished, &plans, &out)
}

/// The plans, where to resume, and the output folder.
fn prepare(cli: &Cli) -> Result<(Vec<Plan>, Option<PathBuf>, PathBuf)> {
    let resume = folders::resume(&cli.resume, &cli.out)?;
    let mut settings = cli.settings.clone();
    if let Some(file) = &cli.config {
        settings = settings.over(&Settings::read(file)?)?;
    }
    if let Some(path) = &resume {
        let root = folders::root(path)?;
        settings = settings.over(&Settings::read(&root.join("config.toml"))?)?;
        let plans = plan::plans(&settings, &root)?;
        return Ok((plans, resume, root));
    }
    let out = cli.out.clone().unwrap_or_else(|| folders::free("glue"));
    let plans = plan::plans(&settings, &out)?;
    if plans.len() > 1 {
        folders::refuse_full(&out)?;
        std::fs::create_dir_all(&out)?;
        std::fs::write(out.join("config.toml"), settings.text()?)?;
    }
    Ok((plans, None, out))
}

/// Where this plan's run goes on, if it was begun and not finished.
fn resume_point(plan: &Plan, plans: &[Plan], path: &Path) -> Option<PathBuf> {
    if plans.len() == 1 {
        return Some(path.into());
    }
    let begun = plan.folder.join("checkpoint").is_dir();
    (begun && !is_complete(&plan.folder)).then(|| plan.folder.clone())
}

fn report(finished: &[(&Plan, Finished)], plans: &[Plan], out: &Path) -> Result<()> {
    let rows: Vec<Vec<String>> = finished.iter().map(|(plan, run)| row(plan, run)).collect();
    let header = [
        "task",
        "optimizer",
        "last",
        "best",
        "at step",
        "s/step",
        "peak MiB",
        "minutes",
    ];
    println!("\n{}", table::format(&header, &rows));
    if plans.len() > 1 {
        // Runs that were finished before a resumption belong to the picture, too.
        let begun = plans
            .iter()
            .filter(|p| p.folder.join("metrics.jsonl").exists());
        let curves = begun.map(|plan| {
            let label = format!("{} {}", plan.task, plan.optimizer);
            Ok(Curve::read(&plan.folder.join("metrics.jsonl"), label)?)
        });
        draw(
            &out.join("curves.svg"),
            &curves.collect::<Result<Vec<_>>>()?,
        )?;
    }
    println!("\ncurves: {}", out.join("curves.svg").display());
    Ok(())
}

fn row(plan: &Plan, run: &Finished) -> Vec<String> {
    let summary = &run.summary;
    let scores =
        |e: &Option<trainers::Evaluated>| e.as_ref().map_or("-".into(), |e| scores_text(&e.scores));
    vec![
        plan.task.to_string(),
        plan.optimizer.clone(),
        scores(&summary.last),
        scores(&summary.best),
        summary
            .best
            .as_ref()
            .map_or("-".into(), |e| e.step.to_string()),
        summary
            .seconds_per_step
            .map_or("-".into(), |s| format!("{s:.3}")),
        run.peak_memory_mib
            .map_or("-".into(), |m| format!("{m:.0}")),
        format!("{:.1}", summary.elapsed_seconds / 60.0),
    ]
}

/// All scores but the loss.
fn scores_text(scores: &trainers::Scores) -> String {
    let shown = scores.iter().filter(|(name, _)| !name.starts_with("loss"));
    let texts: Vec<String> = shown
        .map(|(name, value)| format!("{name} {value:.4}"))
        .collect();
    texts.join(" ")
}
