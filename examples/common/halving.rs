//! Successive halving (Jamieson and Talwalkar 2016) of a sweep: everything for a quarter of the epochs, the better
//! half anew for half of them, the best quarter for all.
//!
//! Each rung is a set of whole runs with schedules of their own length, so that a rung is a comparison like any
//! other: it is resumed like one, and its runs say what they were. Optimizers and tasks do not compete: each has
//! the same budget.

use crate::grid::Cell;
use crate::layers::Own;
use crate::results::{self, Row, Run};
use anyhow::{Result, bail};
use std::cmp::Ordering;
use std::path::{Path, PathBuf};

/// What the epochs, and the number of choices, are divided by in each rung.
pub const RUNGS: [(usize, usize); 3] = [(4, 1), (2, 2), (1, 4)];

/// The runs of the first rung for what was asked for.
///
/// # Errors
/// If there are too few epochs or choices to halve.
pub fn check<A: Own>(cells: &[Cell<A>]) -> Result<()> {
    if let Some(cell) = cells.iter().find(|cell| cell.settings.training.epochs < 4) {
        bail!(
            "--halving: {} has {} epochs, of which there is no quarter: expected four or more",
            cell.label(),
            cell.settings.training.epochs
        );
    }
    let fields = fields(cells);
    match fields.iter().find(|field| field.choices.len() < 2) {
        Some(field) => bail!(
            "--halving: {} has nothing to choose from; give several values with --sweep",
            field.name
        ),
        None => Ok(()),
    }
}

/// Where a rung's runs lie, below the comparison's folder.
pub fn folder(out: &Path, index: usize) -> PathBuf {
    out.join(format!("rung{}", index + 1))
}

/// The runs of a rung: those whose choice is among `kept`, in a folder of the rung, with its share of the epochs.
pub fn rung<A: Own>(cells: &[Cell<A>], index: usize, kept: &[String]) -> Vec<Cell<A>> {
    let (share, _) = RUNGS[index];
    let of_rung = cells
        .iter()
        .filter(|cell| index == 0 || kept.contains(&cell.group()));
    let of_rung = of_rung.map(|cell| {
        let mut cell = cell.clone();
        let epochs = &mut cell.settings.training.epochs;
        *epochs = epochs.div_ceil(share);
        if let Some(steps) = &mut cell.settings.training.max_steps {
            *steps = steps.div_ceil(share as u64);
        }
        let name = cell.folder.file_name().unwrap_or_default().to_os_string();
        cell.folder.pop();
        cell.folder = folder(&cell.folder, index).join(name);
        cell
    });
    of_rung.collect()
}

/// The choices that the next rung goes on with: by the main score of the last evaluation, means over the seeds. A run
/// whose files cannot be read is lost, as one that failed.
pub fn best<A: Own>(all: &[Cell<A>], ran: &[Cell<A>], next: usize) -> Vec<String> {
    let (_, share) = RUNGS[next];
    let complete = ran.iter().filter(|cell| results::is_complete(&cell.folder));
    let runs = complete.filter_map(|cell| Run::of(cell).ok());
    let rows = results::rows(&runs.collect::<Vec<_>>());
    let fields = fields(all);
    let kept = fields.iter().map(|field| {
        let mut own: Vec<&Row> = rows
            .iter()
            .filter(|row| field.choices.contains(&row.group))
            .collect();
        // A choice that lost seeds is behind all that lost none.
        let most = own.iter().map(|row| row.runs).max();
        let whole = |row: &Row| Some(row.runs) == most;
        own.sort_by(|a, b| {
            (whole(b), score(b))
                .partial_cmp(&(whole(a), score(a)))
                .unwrap_or(Ordering::Equal)
        });
        let count = field.choices.len().div_ceil(share);
        own.into_iter()
            .take(count)
            .map(|row| row.group.clone())
            .collect::<Vec<_>>()
    });
    kept.flatten().collect()
}

/// Higher is better, and what is no number comes last.
fn score(row: &Row) -> f64 {
    let mean = row
        .last
        .get(&row.main)
        .map_or(f64::NAN, |spread| spread.mean);
    match (mean.is_finite(), row.higher_is_better) {
        (false, _) => f64::NEG_INFINITY,
        (true, true) => mean,
        (true, false) => -mean,
    }
}

/// Choices that compete: the same optimizer, task and model.
struct Field {
    name: String,
    choices: Vec<String>,
}

fn fields<A: Own>(cells: &[Cell<A>]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for cell in cells {
        let fixed = cell
            .place
            .iter()
            .filter(|(name, _)| ["optimizer", "task", "model"].contains(&name.as_str()));
        let name = fixed
            .map(|(_, value)| value.as_str())
            .collect::<Vec<_>>()
            .join(" ");
        let index = fields.iter().position(|field| field.name == name);
        let index = index.unwrap_or_else(|| {
            fields.push(Field {
                name,
                choices: Vec::new(),
            });
            fields.len() - 1
        });
        let (choices, group) = (&mut fields[index].choices, cell.group());
        if !choices.contains(&group) {
            choices.push(group);
        }
    }
    fields
}
