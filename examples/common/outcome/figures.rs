//! What is drawn of the runs.

use crate::plots::{self, Point, Series};
use crate::results::{Row, Spread};
use anyhow::Result;
use std::collections::BTreeMap;

/// Caption and SVG.
pub(super) type Figure = (String, String);

/// Losses and scores by step, and the score by each flag that was swept over numbers; apart for tasks that are judged
/// by different scores.
pub(super) fn figures(rows: &[Row]) -> Result<Vec<Figure>> {
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
