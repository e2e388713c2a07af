//! The runs as a table.

use super::error_of;
use crate::experiment::{Column, Remarks};
use crate::results::{Row, Spread};
use crate::table::number;
use trainers::Scores;

/// Header and rows of the table.
pub(super) fn cells_of(
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
    let measured = |value: Option<f64>, places: usize| match value {
        Some(value) => number(value, places),
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
                number(error * main.factor, main.places)
            }));
        }
        cells.push(main.map_or("-".into(), |main| shown(row.best.get(&row.main), main)));
        cells.push(row.train_loss.text(1.0, 4));
        cells.push(measured(
            row.seconds_per_step,
            if row.seconds_per_step < Some(0.01) {
                5
            } else {
                3
            },
        ));
        cells.push(measured(row.peak_memory_mib, 0));
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
                Some(value) => number(value * column.factor, column.places),
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
