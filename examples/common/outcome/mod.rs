//! What came out of the runs: a table, a sentence that says what it shows and what not, and a report to read.

mod columns;
mod figures;
mod winner;

use crate::experiment::{Experiment, Remarks};
use crate::grid::Cell;
use crate::layers::{self, Own};
use crate::report::{self, Report, Table};
use crate::results::{self, Place, Row, Run, Spread, is_complete};
use crate::say;
use crate::{program, table};
use anyhow::Result;
use columns::cells_of;
use figures::figures;
use std::path::{Path, PathBuf};
use trainers::disk::write_whole;
use winner::notes;

/// What is said beside the runs that are complete.
pub struct Beside<'a> {
    /// The command that makes them.
    pub command: &'a str,
    /// What became of others, those among several whose files cannot be read included.
    pub failed: &'a [String],
    /// Choices that were asked for and have no run here, as others were better.
    pub dropped: &'a [Place],
}

/// Writes `results.json`, `curves.svg` and `report.html` of the runs that are complete; of a single one the
/// last alone.
///
/// # Errors
/// If a single run's files cannot be read, or a file cannot be written.
pub fn write<E: Experiment>(
    experiment: &E,
    cells: &[Cell<E::Args>],
    out: &Path,
    remarks: Option<&Remarks>,
    beside: &Beside,
) -> Result<Vec<Row>> {
    let (complete, runs) = complete(cells)?;
    let rows = results::rows(&runs);
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
        command: beside.command.into(),
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
        notes: [notes(&rows, beside.dropped), beside.failed.to_vec()].concat(),
        figures,
        settings: settings.collect::<Result<_>>()?,
    };
    report::write(&report_path(out), &report)?;
    Ok(rows)
}

/// The runs that are complete, and what they left.
fn complete<A: Own>(cells: &[Cell<A>]) -> Result<(Vec<&Cell<A>>, Vec<Run>)> {
    let (mut complete, mut runs) = (Vec::new(), Vec::new());
    for cell in cells.iter().filter(|cell| is_complete(&cell.folder)) {
        match Run::of(cell) {
            Ok(run) => {
                complete.push(cell);
                runs.push(run);
            }
            // It is among those that failed.
            Err(_) if cells.len() > 1 => {}
            Err(error) => return Err(error),
        }
    }
    Ok((complete, runs))
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
    beside: &Beside,
) -> Result<()> {
    let rows = write(experiment, cells, out, Some(&remarks), beside)?;
    let (header, lines) = cells_of(experiment.columns(), &rows, Some(&remarks));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    say!("\n{}", table::format(&header, &lines));
    for note in notes(&rows, beside.dropped).iter().chain(beside.failed) {
        say!("\n{note}");
    }
    if report_path(out).is_file() {
        say!("\ncurves: {}", out.join("curves.svg").display());
        say!("report: {}", report_path(out).display());
    }
    Ok(())
}

/// The standard error of a mean over seeds.
fn error_of(spread: &Spread, runs: usize) -> Option<f64> {
    spread
        .deviation
        .map(|deviation| deviation / (runs as f64).sqrt())
}
