//! What finished runs left in their folders, and the means over their seeds.

use crate::grid::Cell;
use crate::layers::Own;
use crate::table::number;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Evaluation {
    main: String,
    #[serde(default = "yes")]
    higher_is_better: bool,
    scores: BTreeMap<String, f64>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct SummaryFile {
    outcome: String,
    #[serde(rename = "final")]
    last: Option<Evaluation>,
    best: Option<Evaluation>,
    elapsed_seconds: f64,
    seconds_per_step: Option<f64>,
    peak_memory_mib: Option<f64>,
}

#[derive(Deserialize)]
struct Line {
    kind: String,
    step: u64,
    loss: Option<f64>,
    main: Option<String>,
    #[serde(default)]
    scores: BTreeMap<String, Option<f64>>,
}

fn summary(folder: &Path) -> Result<SummaryFile> {
    let path = folder.join("summary.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Whether the run in this folder came to its end. An interrupted one leaves a summary, too.
pub fn is_complete(folder: &Path) -> bool {
    summary(folder).is_ok_and(|s| s.outcome != "interrupted")
}

/// What tells one choice from the others: names and values.
pub type Place = Vec<(String, String)>;

/// Values by step.
pub type Curve = BTreeMap<u64, f64>;

/// The training loss of the logged steps of a run, complete or not.
///
/// # Errors
/// If `metrics.jsonl` cannot be read; the error names the line.
pub fn losses(folder: &Path) -> Result<Curve> {
    Ok(curves(folder)?.0)
}

/// Losses of the steps and the main score of the evaluations.
fn curves(folder: &Path) -> Result<(Curve, Curve)> {
    let path = folder.join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (mut losses, mut main) = (Curve::new(), Curve::new());
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{}: line {}", path.display(), number + 1);
        let line: Line = serde_json::from_str(line).with_context(place)?;
        match line.kind.as_str() {
            "step" => losses.extend(line.loss.map(|loss| (line.step, loss))),
            "evaluation" => {
                let score = line.main.and_then(|name| line.scores.get(&name).copied());
                main.extend(score.flatten().map(|score| (line.step, score)));
            }
            _ => {}
        }
    }
    Ok((losses, main))
}

/// One complete run.
pub struct Run {
    /// What it has in common with those that differ in the seed alone.
    pub group: String,
    /// What tells that group from others: names and values.
    pub place: Vec<(String, String)>,
    summary: SummaryFile,
    /// The training loss of the logged steps.
    pub losses: Curve,
    /// The main score of the evaluations.
    pub main: Curve,
}

impl Run {
    /// Reads the run of a cell.
    ///
    /// # Errors
    /// As [`Run::read`].
    pub fn of<A: Own>(cell: &Cell<A>) -> Result<Self> {
        Self::read(&cell.group(), &cell.place, &cell.folder)
    }

    /// Reads `summary.json` and `metrics.jsonl` of a run's folder.
    ///
    /// # Errors
    /// If one of them cannot be read; the error names the file.
    pub fn read(group: &str, place: &[(String, String)], folder: &Path) -> Result<Self> {
        let (losses, main) = curves(folder)?;
        Ok(Self {
            group: group.into(),
            place: place.into(),
            summary: summary(folder)?,
            losses,
            main,
        })
    }

    fn score(evaluation: &Option<Evaluation>, name: &str) -> f64 {
        let value = evaluation.as_ref().and_then(|e| e.scores.get(name));
        value.copied().unwrap_or(f64::NAN)
    }
}

/// A mean and, of two or more, the standard deviation of a single one (n - 1).
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Of these values; not a number of none.
    pub fn of(values: &[f64]) -> Self {
        let mean = mean(values);
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let deviation = (squares / (values.len().max(2) - 1) as f64).sqrt();
        Self {
            mean,
            deviation: (values.len() > 1).then_some(deviation),
        }
    }

    /// `92.13 ± 0.18`, with this factor and so many places.
    pub fn text(&self, factor: f64, places: usize) -> String {
        let mean = number(self.mean * factor, places);
        match self.deviation {
            Some(deviation) => format!("{mean} ± {}", number(deviation * factor, places)),
            None => mean,
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// One row of the table: the runs that differ in the seed alone.
#[derive(Serialize)]
pub struct Row {
    /// Their name.
    pub group: String,
    /// What tells them from the other rows.
    pub place: Vec<(String, String)>,
    /// How many runs.
    pub runs: usize,
    /// The main score's name.
    pub main: String,
    /// Whether a higher main score is better.
    pub higher_is_better: bool,
    /// Scores of the last evaluation.
    pub last: BTreeMap<String, Spread>,
    /// Scores of the best evaluation.
    pub best: BTreeMap<String, Spread>,
    /// The mean training loss of the last tenth of the logged steps.
    pub train_loss: Spread,
    /// The mean of the runs' medians.
    pub seconds_per_step: Option<f64>,
    /// The largest of all runs.
    pub peak_memory_mib: Option<f64>,
    /// Of a run, on average.
    pub minutes: f64,
    /// The training loss.
    #[serde(skip)]
    pub losses: BTreeMap<u64, Spread>,
    /// The main score.
    #[serde(skip)]
    pub scores: BTreeMap<u64, Spread>,
}

/// One row a group, in the order of their first runs.
pub fn rows(runs: &[Run]) -> Vec<Row> {
    let mut names: Vec<&str> = Vec::new();
    for run in runs {
        if !names.contains(&run.group.as_str()) {
            names.push(&run.group);
        }
    }
    let own = |name: &str| runs.iter().filter(|r| r.group == name).collect::<Vec<_>>();
    names.iter().filter_map(|name| row(&own(name))).collect()
}

fn row(runs: &[&Run]) -> Option<Row> {
    let first = runs.first()?;
    let spread = |f: &dyn Fn(&Run) -> f64| {
        let values: Vec<f64> = runs.iter().map(|run| f(run)).collect();
        Spread::of(&values)
    };
    let scores = |of: fn(&Run) -> &Option<Evaluation>| {
        let evaluations = runs.iter().filter_map(|run| of(run).as_ref());
        let names: Vec<String> = evaluations.flat_map(|e| e.scores.keys().cloned()).collect();
        let spreads = names.into_iter().map(|name| {
            let spread = spread(&|run| Run::score(of(run), &name));
            (name, spread)
        });
        spreads.collect::<BTreeMap<_, _>>()
    };
    let seconds: Vec<f64> = runs
        .iter()
        .filter_map(|r| r.summary.seconds_per_step)
        .collect();
    let last = first.summary.last.as_ref();
    Some(Row {
        group: first.group.clone(),
        place: first.place.clone(),
        runs: runs.len(),
        main: last.map(|e| e.main.clone()).unwrap_or_default(),
        higher_is_better: last.is_none_or(|e| e.higher_is_better),
        last: scores(|run| &run.summary.last),
        best: scores(|run| &run.summary.best),
        train_loss: spread(&|run| end_of(&run.losses)),
        seconds_per_step: (!seconds.is_empty()).then(|| mean(&seconds)),
        peak_memory_mib: runs
            .iter()
            .filter_map(|r| r.summary.peak_memory_mib)
            .reduce(f64::max),
        minutes: spread(&|run| run.summary.elapsed_seconds / 60.0).mean,
        losses: spreads(runs.iter().map(|run| &run.losses)),
        scores: spreads(runs.iter().map(|run| &run.main)),
    })
}

/// The mean of the last tenth.
fn end_of(losses: &Curve) -> f64 {
    let count = losses.len().div_ceil(10);
    let last: Vec<f64> = losses.values().rev().take(count).copied().collect();
    mean(&last)
}

/// The spread at each step over the runs that have it.
fn spreads<'a>(curves: impl Iterator<Item = &'a Curve>) -> BTreeMap<u64, Spread> {
    let mut all: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (step, value) in curves.flatten() {
        all.entry(*step).or_default().push(*value);
    }
    let spreads = all
        .into_iter()
        .map(|(step, values)| (step, Spread::of(&values)));
    spreads.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const METRICS: &str = r#"{"kind":"step","step":1,"epoch":0,"loss":3.0}
{"kind":"step","step":2,"epoch":0,"loss":1.0}
{"kind":"evaluation","step":2,"epoch":1,"main":"accuracy","scores":{"accuracy":0.5,"loss":1.5}}
{"kind":"step","step":3,"epoch":1,"loss":null}
{"kind":"step","step":4,"epoch":1,"loss":0.5}
{"kind":"evaluation","step":4,"epoch":2,"main":"accuracy","scores":{"accuracy":LAST,"loss":null}}
"#;

    fn run(folder: &Path, optimizer: &str, last: f64, outcome: &str) -> PathBuf {
        let folder = folder.join(format!("{optimizer}-{last}"));
        std::fs::create_dir_all(&folder).unwrap();
        let metrics = METRICS.replace("LAST", &last.to_string());
        std::fs::write(folder.join("metrics.jsonl"), metrics).unwrap();
        let scores = |accuracy| serde_json::json!({"main": "accuracy", "scores": {"accuracy": accuracy, "loss": last}});
        let summary = serde_json::json!({
            "outcome": outcome, "final": scores(0.25 * last), "best": scores(0.5),
            "elapsed_seconds": 60.0 * last, "seconds_per_step": null, "peak_memory_mib": 100.0 * last,
        });
        std::fs::write(folder.join("summary.json"), summary.to_string()).unwrap();
        folder
    }

    #[test]
    fn rows_are_means_over_the_seeds() {
        let name = format!("results-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let folders = [("a", 1.0), ("b", 2.0), ("a", 3.0)].map(|(optimizer, last)| {
            let folder = run(&folder, optimizer, last, "completed");
            (optimizer, folder)
        });
        let runs = folders
            .iter()
            .map(|(name, f)| Run::read(name, &[], f).unwrap());
        let runs: Vec<Run> = runs.collect();
        let interrupted = run(&folder, "c", 1.0, "interrupted");
        assert!(is_complete(&folders[0].1) && !is_complete(&interrupted));
        assert!(!is_complete(&folder));
        std::fs::remove_dir_all(&folder).unwrap();

        let rows = rows(&runs);
        assert_eq!(rows.len(), 2);
        let (a, b) = (&rows[0], &rows[1]);
        assert_eq!((a.runs, b.runs), (2, 1));
        // (0.25 + 0.75)/2 and the deviation of two values that are 0.5 apart.
        assert_eq!(a.last["accuracy"].text(100.0, 2), "50.00 ± 35.36");
        assert_eq!(b.last["accuracy"].text(100.0, 2), "50.00");
        assert_eq!(a.losses.keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!((a.losses[&4].mean, a.train_loss.mean), (0.5, 0.5));
        assert_eq!((a.scores[&2].mean, a.scores[&4].mean), (0.5, 2.0));
        assert_eq!(b.scores[&4].deviation, None);
        assert_eq!((a.main.as_str(), a.higher_is_better), ("accuracy", true));
        assert_eq!((a.peak_memory_mib, a.seconds_per_step), (Some(300.0), None));
        assert_eq!(a.minutes, 2.0);
    }
}
