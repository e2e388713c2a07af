//! What came out of the runs: a table, a sentence that says what it shows and what not, and a report to read.

use crate::experiment::{Column, Experiment, Remarks};
use crate::grid::Cell;
use crate::layers;
use crate::plots::{self, Point, Series};
use crate::report::{self, Report, Table};
use crate::results::{self, Row, Run, Spread, is_complete};
use crate::{program, table};
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trainers::disk::write_whole;
use trainers::{RunFolder, Scores};

/// Writes `results.json`, `curves.svg` and `report.html` of the runs that are complete; of a single one the
/// last alone.
///
/// # Errors
/// If a run's files cannot be read, or a file cannot be written.
pub fn write<E: Experiment>(
    experiment: &E,
    cells: &[Cell<E::Args>],
    out: &Path,
    remarks: Option<&Remarks>,
) -> Result<Vec<Row>> {
    let complete: Vec<_> = cells
        .iter()
        .filter(|cell| is_complete(&cell.folder))
        .collect();
    let runs = complete
        .iter()
        .map(|cell| Run::read(&cell.group(), &cell.place, &cell.folder));
    let rows = results::rows(&runs.collect::<Result<Vec<_>>>()?);
    if rows.is_empty() {
        return Ok(rows);
    }
    let (header, lines) = cells_of(experiment.columns(), &rows, remarks);
    let figures = figures(&rows)?;
    // A single run has written its own.
    if cells.len() > 1 || cells.first().is_some_and(|cell| cell.folder != out) {
        write_whole(
            &out.join("results.json"),
            &serde_json::to_vec_pretty(&rows)?,
        )?;
        if let Some((_, svg)) = figures.first() {
            write_whole(&out.join("curves.svg"), svg.as_bytes())?;
        }
    }
    let settings = complete.iter().map(|cell| {
        let text = toml::to_string(&layers::table(&cell.settings)?)?;
        Ok((cell.label(), text))
    });
    let report = Report {
        title: format!("{}: {}", E::NAME, out.display()),
        command: program::command_line(),
        when: program::now(),
        tables: vec![Table {
            caption: format!(
                "{} of {} runs, means ± standard deviations over seeds",
                complete.len(),
                cells.len()
            ),
            header,
            rows: lines,
        }],
        notes: notes(&rows),
        figures,
        settings: settings.collect::<Result<_>>()?,
    };
    report::write(&report_path(out), &report)?;
    Ok(rows)
}

fn report_path(out: &Path) -> PathBuf {
    out.join("report.html")
}

/// [`write()`], and the table on standard output.
///
/// # Errors
/// As [`write()`].
pub fn print<E: Experiment>(
    experiment: &E,
    cells: &[Cell<E::Args>],
    out: &Path,
    remarks: Remarks,
) -> Result<()> {
    let rows = write(experiment, cells, out, Some(&remarks))?;
    let (header, lines) = cells_of(experiment.columns(), &rows, Some(&remarks));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    println!("\n{}", table::format(&header, &lines));
    for note in notes(&rows) {
        println!("\n{note}");
    }
    if RunFolder::open(out).is_ok() {
        println!("\ncurves: {}", out.join("curves.svg").display());
        println!("report: {}", report_path(out).display());
    }
    Ok(())
}

/// Header and rows of the table.
fn cells_of(
    columns: &[Column],
    rows: &[Row],
    remarks: Option<&Remarks>,
) -> (Vec<String>, Vec<Vec<String>>) {
    let all = all_columns(columns, rows);
    let mut header = vec!["run".to_string(), "seeds".into()];
    header.extend(all.iter().map(|column| column.head.clone()));
    let several = rows.iter().any(|row| row.runs > 1);
    header.extend(several.then(|| "std. error".to_string()));
    header.extend(["best", "train loss", "s/step", "peak MiB", "minutes"].map(String::from));
    let number = |value: Option<f64>, places: usize| match value {
        Some(value) => format!("{value:.places$}"),
        None => "-".into(),
    };
    let shown = |spread: Option<&Spread>, column: &Shown| match spread {
        Some(spread) => spread.text(column.factor, column.places),
        None => "-".into(),
    };
    let line = |row: &Row| {
        let mut cells = vec![row.group.clone(), row.runs.to_string()];
        cells.extend(
            all.iter()
                .map(|column| shown(row.last.get(&column.score), column)),
        );
        let main = all.iter().find(|column| column.score == row.main);
        if several {
            let error = main.zip(row.last.get(&row.main));
            let error = error.and_then(|(main, last)| Some((main, error_of(last, row.runs)?)));
            cells.push(error.map_or("-".into(), |(main, error)| {
                format!("{:.*}", main.places, error * main.factor)
            }));
        }
        cells.push(main.map_or("-".into(), |main| shown(row.best.get(&row.main), main)));
        cells.push(row.train_loss.text(1.0, 4));
        cells.push(number(
            row.seconds_per_step,
            if row.seconds_per_step < Some(0.01) {
                5
            } else {
                3
            },
        ));
        cells.push(number(row.peak_memory_mib, 0));
        cells.push(format!("{:.1}", row.minutes));
        cells
    };
    let mut lines: Vec<Vec<String>> = rows.iter().map(line).collect();
    for (name, scores) in remarks.iter().flat_map(|remarks| &remarks.rows) {
        lines.push(remark(name, scores, &all));
    }
    (header, lines)
}

fn remark(name: &str, scores: &Scores, columns: &[Shown]) -> Vec<String> {
    let mut cells = vec![format!("({name})"), String::new()];
    cells.extend(
        columns
            .iter()
            .map(|column| match scores.get(&column.score) {
                Some(value) => format!("{:.*}", column.places, value * column.factor),
                None => "-".into(),
            }),
    );
    cells
}

/// A column as it is shown.
struct Shown {
    score: String,
    head: String,
    factor: f64,
    places: usize,
}

/// The program's columns, or those of all scores: the main one first, losses as they are, shares in percent.
fn all_columns(columns: &[Column], rows: &[Row]) -> Vec<Shown> {
    if !columns.is_empty() {
        let shown = columns.iter().map(|column| Shown {
            score: column.score.into(),
            head: column.head.into(),
            factor: column.factor,
            places: column.places,
        });
        return shown.collect();
    }
    let mut names: Vec<String> = Vec::new();
    for row in rows {
        let main = std::iter::once(&row.main).filter(|main| row.last.contains_key(*main));
        for name in main.chain(row.last.keys()) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    let shown = names.into_iter().map(|score| {
        let is_loss = score.starts_with("loss");
        Shown {
            head: score.replace('_', " "),
            factor: if is_loss { 1.0 } else { 100.0 },
            places: if is_loss { 4 } else { 2 },
            score,
        }
    });
    shown.collect()
}

/// Which run is ahead, and whether the seeds bear it out: of those that differ in nothing but optimizer and
/// swept flags, by the main score of the last evaluation.
fn notes(rows: &[Row]) -> Vec<String> {
    let mut fields: BTreeMap<Vec<&(String, String)>, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let field = row
            .place
            .iter()
            .filter(|(name, _)| name == "task" || name == "model");
        fields.entry(field.collect()).or_default().push(row);
    }
    fields
        .into_values()
        .filter_map(|rows| winner(&rows))
        .collect()
}

fn winner(rows: &[&Row]) -> Option<String> {
    let score = |row: &Row| {
        row.last
            .get(&row.main)
            .copied()
            .filter(|s| s.mean.is_finite())
    };
    // A choice that lost seeds, or has not had all of them yet, is compared with none that did not.
    let most = rows.iter().map(|row| row.runs).max();
    let mut ranked: Vec<(&Row, Spread)> = rows
        .iter()
        .filter(|row| Some(row.runs) == most)
        .filter_map(|row| Some((*row, score(row)?)))
        .collect();
    let higher = rows.first()?.higher_is_better;
    ranked.sort_by(|(_, a), (_, b)| match higher {
        true => b.mean.total_cmp(&a.mean),
        false => a.mean.total_cmp(&b.mean),
    });
    // Of several optimizers the best choice of each, and not two neighbours of one of them.
    let mut seen: Vec<&str> = Vec::new();
    let best_of_each: Vec<(&Row, Spread)> = ranked
        .iter()
        .filter(|(row, _)| {
            let name = optimizer_of(row);
            let first = !seen.contains(&name);
            seen.push(name);
            first
        })
        .copied()
        .collect();
    if best_of_each.len() > 1 {
        ranked = best_of_each;
    }
    let [(first, best), (second, next), ..] = ranked.as_slice() else {
        return None;
    };
    let gap = (best.mean - next.mean).abs();
    let ahead = format!(
        "By {} {} is ahead of {} ({:.4} against {:.4})",
        first.main, first.group, second.group, best.mean, next.mean
    );
    if gap == 0.0 {
        return Some(format!(
            "By {} {} and {} are equal ({:.4}).",
            first.main, first.group, second.group, best.mean
        ));
    }
    Some(
        match (error_of(best, first.runs), error_of(next, second.runs)) {
            (Some(a), Some(b)) if a.hypot(b) == 0.0 => format!(
                "{ahead}; the seeds of each agree to the digit: there are too few examples to tell."
            ),
            (Some(a), Some(b)) => {
                let errors = gap / a.hypot(b);
                let chance = quantile(freedom((a, first.runs), (b, second.runs)));
                match errors > chance {
                    true => format!(
                        "{ahead}: {errors:.1} standard errors of the difference, where chance has {chance:.1} once in \
                         twenty times with so many seeds."
                    ),
                    false => format!(
                        "{ahead}, but by {errors:.1} standard errors of the difference, where chance has {chance:.1} \
                         once in twenty times: these seeds do not tell them apart."
                    ),
                }
            }
            _ => format!(
                "{ahead}, on one seed: whether that is chance, several show (--seed 0,1,2)."
            ),
        },
    )
}

fn optimizer_of(row: &Row) -> &str {
    let place = row.place.iter().find(|(name, _)| name == "optimizer");
    place.map_or("", |(_, value)| value.as_str())
}

/// Welch's degrees of freedom of the difference of two means, from their standard errors and numbers of runs.
fn freedom((a, of_a): (f64, usize), (b, of_b): (f64, usize)) -> f64 {
    let part = |error: f64, runs: usize| error.powi(4) / (runs.max(2) - 1) as f64;
    (a * a + b * b).powi(2) / (part(a, of_a) + part(b, of_b))
}

/// What Student's t is beyond, either way, in one of twenty cases; between two rows of the table the larger value.
fn quantile(freedom: f64) -> f64 {
    const TABLE: [(f64, f64); 12] = [
        (1.0, 12.706),
        (2.0, 4.303),
        (3.0, 3.182),
        (4.0, 2.776),
        (5.0, 2.571),
        (6.0, 2.447),
        (7.0, 2.365),
        (8.0, 2.306),
        (10.0, 2.228),
        (15.0, 2.131),
        (30.0, 2.042),
        (120.0, 1.980),
    ];
    let row = TABLE.iter().rfind(|(at, _)| *at <= freedom);
    row.map_or(TABLE[0].1, |(_, quantile)| *quantile)
}

/// The standard error of a mean over seeds.
fn error_of(spread: &Spread, runs: usize) -> Option<f64> {
    spread
        .deviation
        .map(|deviation| deviation / (runs as f64).sqrt())
}

/// Caption and SVG.
type Figure = (String, String);

/// Losses and scores by step, and the score by each flag that was swept over numbers; apart for tasks that are judged
/// by different scores.
fn figures(rows: &[Row]) -> Result<Vec<Figure>> {
    let mut mains: Vec<&str> = Vec::new();
    for row in rows {
        if !mains.contains(&row.main.as_str()) {
            mains.push(&row.main);
        }
    }
    let mut figures = Vec::new();
    for main in mains {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.main == main).collect();
        figures.extend(figures_of(&rows, main)?);
    }
    Ok(figures)
}

fn figures_of(rows: &[&Row], main: &str) -> Result<Vec<Figure>> {
    let series = |curve: fn(&Row) -> &BTreeMap<u64, Spread>| -> Vec<Series> {
        let of = |row: &&Row| Series {
            label: row.group.clone(),
            points: curve(row)
                .iter()
                .map(|(step, spread)| point(*step as f64, spread))
                .collect(),
        };
        rows.iter().map(of).collect()
    };
    let losses = series(|row| &row.losses);
    let losses = plots::lines("training loss", "step", "loss", false, &losses)?;
    let scores = plots::lines(main, "step", main, false, &series(|row| &row.scores))?;
    let mut figures = vec![
        (format!("{main} of the evaluations"), scores),
        ("Training loss of the logged steps".into(), losses),
    ];
    let mut swept: Vec<&str> = rows
        .iter()
        .flat_map(|row| &row.place)
        .map(|(name, _)| name.as_str())
        .collect();
    swept.sort_unstable();
    swept.dedup();
    for name in swept.into_iter().filter(|name| *name != "optimizer") {
        if let Some(figure) = sweep(rows, name, main)? {
            figures.push(figure);
        }
    }
    Ok(figures)
}

fn point(x: f64, spread: &Spread) -> Point {
    Point {
        x,
        mean: spread.mean,
        deviation: spread.deviation,
    }
}

/// The main score by a flag's values, a line for each choice of the others; none where they are no numbers.
fn sweep(rows: &[&Row], name: &str, main: &str) -> Result<Option<Figure>> {
    let mut lines: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for row in rows {
        let value = row.place.iter().find(|(n, _)| n == name);
        let Some(x) = value.and_then(|(_, value)| value.parse::<f64>().ok()) else {
            return Ok(None);
        };
        let others = row.place.iter().filter(|(n, _)| n != name);
        let label: Vec<&str> = others.map(|(_, value)| value.as_str()).collect();
        if let Some(spread) = row.last.get(&row.main) {
            lines
                .entry(label.join(" "))
                .or_default()
                .push(point(x, spread));
        }
    }
    let positive = lines.values().flatten().all(|point| point.x > 0.0);
    let series = lines.into_iter().map(|(label, mut points)| {
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        Series { label, points }
    });
    let flag = name.replace('_', " ");
    let svg = plots::lines(
        &format!("{main} by {flag}"),
        &flag,
        main,
        positive,
        &series.collect::<Vec<_>>(),
    )?;
    Ok(Some((
        format!("{main} of the last evaluation by {flag}"),
        svg,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a table of Student's distribution, and Welch's formula in its two simple cases.
    #[test]
    fn few_seeds_prove_little() {
        for (freedom, expected) in [
            (0.5, 12.706),
            (2.0, 4.303),
            (4.9, 2.776),
            (12.0, 2.228),
            (1e9, 1.980),
        ] {
            assert_eq!(quantile(freedom), expected);
        }
        assert!((freedom((0.1, 3), (0.1, 3)) - 4.0).abs() < 1e-12);
        assert!((freedom((0.1, 5), (0.0, 5)) - 4.0).abs() < 1e-12);
    }

    fn row(group: &str, scores: &[f64]) -> Row {
        let last = BTreeMap::from([("accuracy".to_string(), Spread::of(scores))]);
        Row {
            group: group.into(),
            place: Vec::new(),
            runs: scores.len(),
            main: "accuracy".into(),
            higher_is_better: true,
            best: last.clone(),
            last,
            losses: BTreeMap::new(),
            scores: BTreeMap::new(),
            train_loss: Spread::of(&[0.1]),
            seconds_per_step: None,
            peak_memory_mib: None,
            minutes: 1.0,
        }
    }

    #[test]
    fn the_winner_is_one_that_the_seeds_bear_out() {
        let said = |rows: &[Row]| winner(&rows.iter().collect::<Vec<_>>()).unwrap_or_default();
        // 2.8 standard errors: of two seeds each that is chance.
        let two = said(&[row("a", &[0.90, 0.92]), row("b", &[0.86, 0.88])]);
        assert!(
            two.contains("a is ahead of b") && two.contains("do not tell them apart"),
            "{two}"
        );
        let ten: Vec<f64> = (0..10).map(|i| 0.9 + 0.002 * f64::from(i)).collect();
        let lower: Vec<f64> = ten.iter().map(|score| score - 0.02).collect();
        let clear = said(&[row("a", &ten), row("b", &lower)]);
        assert!(
            clear.contains("standard errors of the difference, where chance"),
            "{clear}"
        );
        let same = said(&[row("a", &[0.5, 0.5]), row("b", &[0.4, 0.4])]);
        assert!(same.contains("agree to the digit"), "{same}");
        // One that lost two of three seeds is not ahead.
        let lost = said(&[
            row("a", &[0.99]),
            row("b", &[0.8, 0.81, 0.82]),
            row("c", &[0.7, 0.72, 0.71]),
        ]);
        assert!(lost.contains("b is ahead of c"), "{lost}");
    }

    /// Of several optimizers the best choice of each.
    #[test]
    fn two_choices_of_one_optimizer_are_no_comparison_of_two() {
        let by = |optimizer: &str, group: &str, scores: &[f64]| Row {
            place: vec![("optimizer".into(), optimizer.into())],
            ..row(group, scores)
        };
        let rows = [
            by("adamw", "adamw 1", &[0.95, 0.96]),
            by("adamw", "adamw 2", &[0.94, 0.95]),
            by("adahessian", "adahessian 1", &[0.90, 0.92]),
        ];
        let said = winner(&rows.iter().collect::<Vec<_>>()).unwrap_or_default();
        assert!(said.contains("adamw 1 is ahead of adahessian 1"), "{said}");
        let one = winner(&rows[..2].iter().collect::<Vec<_>>()).unwrap_or_default();
        assert!(one.contains("adamw 1 is ahead of adamw 2"), "{one}");
    }
}
