//! A range test of the learning rate (Smith 2017): one short run whose rate rises from far too low to far too
//! high, the same factor from step to step. Where the loss falls fastest is a rate to begin a search at.

use crate::experiment::Experiment;
use crate::grid::Cell;
use crate::layers::Own;
use crate::plots::{self, Point, Series};
use crate::results::Run;
use crate::table;
use anyhow::{Result, bail};
use std::path::Path;
use trainers::disk::write_whole;

/// Steps of a test.
pub const STEPS: u64 = 150;
/// The first and the last rate, in rates that the settings name.
const RANGE: (f64, f64) = (1e-3, 1e2);
/// Decay of the running mean of the loss.
const SMOOTHING: f64 = 0.9;
/// The end is where the smoothed loss has risen from its least by this share of its fall.
const RISE: f64 = 0.5;

/// The runs of a test: one for each optimizer and program's choice, with the first seed.
///
/// # Errors
/// If rates are compared already.
pub fn cells<A: Own>(cells: Vec<Cell<A>>, steps: u64) -> Result<Vec<Cell<A>>> {
    let swept = |name: &str| name == "lr" || name == "lr_scale" || name == "schedule";
    let first = cells.first().map(|cell| cell.seed);
    let mut kept = Vec::new();
    for mut cell in cells.into_iter().filter(|cell| Some(cell.seed) == first) {
        if let Some((name, _)) = cell.place.iter().find(|(name, _)| swept(name)) {
            bail!("--find-lr: {name} is swept already; leave one of the two out");
        }
        let (low, high) = RANGE;
        cell.settings.optimizer.lr_scale *= high;
        cell.settings.training.schedule = format!("exponential:{}:1", low / high);
        cell.settings.training.epochs = 1_000_000;
        cell.settings.training.max_steps = Some(steps);
        cell.settings.training.patience = None;
        cell.settings.run.log_every = Some(1);
        cell.settings.run.eval_every = None;
        cell.settings.run.checkpoint_every = None;
        kept.push(cell);
    }
    Ok(kept)
}

/// What a test has found.
struct Found {
    label: String,
    /// The rate at each step, and the smoothed loss.
    curve: Vec<(f64, f64)>,
    /// Where the loss falls fastest.
    steepest: f64,
    /// Where it is least.
    least: f64,
}

fn found<A: Own>(cell: &Cell<A>, steps: u64) -> Result<Option<Found>> {
    let run = Run::read(&cell.group(), &cell.place, &cell.folder)?;
    let highest = cell.settings.optimizer.rate();
    let ratio = RANGE.0 / RANGE.1;
    let rate = |step: u64| highest * ratio * (1.0 / ratio).powf((step - 1) as f64 / steps as f64);
    let losses = run.losses.iter().filter(|(_, loss)| loss.is_finite());
    let curve = smoothed(losses.map(|(step, loss)| (rate((*step).max(1)), *loss)));
    let label = cell.group();
    Ok(places(&curve).map(|(steepest, least)| Found {
        label,
        curve,
        steepest,
        least,
    }))
}

/// Running means, corrected for their start, up to where the loss runs away.
fn smoothed(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let (mut mean, mut weight) = (0.0, 1.0);
    let (mut first, mut least) = (f64::NAN, f64::INFINITY);
    let mut curve = Vec::new();
    for (rate, loss) in points {
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss;
        weight *= SMOOTHING;
        let smooth = mean / (1.0 - weight);
        if first.is_nan() {
            first = smooth;
        }
        least = least.min(smooth);
        curve.push((rate, smooth));
        if smooth - least > RISE * (first - least).max(0.1 * first.abs()) {
            break;
        }
    }
    curve
}

/// The rates where the loss falls fastest over the logarithm of the rate, and where it is least.
fn places(curve: &[(f64, f64)]) -> Option<(f64, f64)> {
    let least = curve
        .iter()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map(|point| point.0)?;
    let before = curve.iter().take_while(|(rate, _)| *rate <= least);
    let before: Vec<_> = before.collect();
    // Over several steps: a slope between two is mostly noise.
    let width = (curve.len() / 15).max(2);
    let slopes = before.windows(width).map(|part| {
        let (from, to) = (part[0], part[width - 1]);
        ((to.1 - from.1) / (to.0 / from.0).ln(), to.0)
    });
    let steepest = slopes.min_by(|a, b| a.0.total_cmp(&b.0));
    Some((steepest.map_or(least, |(_, rate)| rate), least))
}

/// Writes `find-lr.svg`, and prints what the tests propose.
///
/// # Errors
/// If a run's files cannot be read or the figure cannot be written.
pub fn print<E: Experiment>(cells: &[Cell<E::Args>], steps: u64, out: &Path) -> Result<()> {
    let all = cells.iter().map(|cell| found(cell, steps));
    let all: Vec<Found> = all
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    let lines = all.iter().map(|found| {
        let rate = |rate: f64| format!("{rate:.1e}");
        let shown = [
            found.steepest,
            found.least,
            found.steepest.min(found.least / 10.0),
        ];
        std::iter::once(found.label.clone())
            .chain(shown.map(rate))
            .collect()
    });
    let header = ["run", "steepest", "least loss", "proposed"];
    println!("\n{}", table::format(&header, &lines.collect::<Vec<_>>()));
    println!("\nA proposal is where a search begins: --sweep lr-scale=0.3,1,3 around it.");
    let series = all.into_iter().map(|found| Series {
        label: found.label,
        points: found
            .curve
            .into_iter()
            .map(|(rate, loss)| Point {
                x: rate,
                mean: loss,
                deviation: None,
            })
            .collect(),
    });
    let title = "training loss as the rate rises";
    let svg = plots::lines(
        title,
        "learning rate",
        "loss",
        true,
        &series.collect::<Vec<_>>(),
    )?;
    let path = out.join("find-lr.svg");
    write_whole(&path, svg.as_bytes())?;
    println!("\ncurves: {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loss that falls around 0.01 and runs away from 1 on.
    #[test]
    fn the_steepest_fall_is_found() {
        let rates = (0..200).map(|i| 1e-5 * 10f64.powf(i as f64 / 30.0));
        let loss = |rate: f64| 1.0 / (1.0 + rate / 0.01) + (rate / 2.0).powi(4);
        let curve = smoothed(rates.map(|rate| (rate, loss(rate))));
        let (steepest, least) = places(&curve).unwrap();
        assert!((0.005..0.06).contains(&steepest), "{steepest}");
        assert!((0.3..1.5).contains(&least), "{least}");
        assert!(curve.last().unwrap().0 < 4.0, "the run away is left out");
        assert!(places(&[]).is_none());
    }
}
