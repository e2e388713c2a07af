//! A range test of the learning rate (Smith 2017): one short run whose rate rises from far too low to far too
//! high, the same factor from step to step. A little below where the loss runs away is a rate to begin a search at.

use crate::experiment::Experiment;
use crate::flags::Settings;
use crate::grid::Cell;
use crate::layers::{self, Asked, Own};
use crate::plots::{self, Point, Series};
use crate::results::{self, Spread};
use crate::say;
use crate::table;
use anyhow::{Result, bail};
use std::path::Path;
use toml::{Table, Value};
use trainers::disk::write_whole;

/// Steps of a test.
pub const STEPS: u64 = 150;
/// The first and the last rate, in rates that the settings name.
const RANGE: (f64, f64) = (1e-3, 1e2);
/// Decay of the running mean of the loss.
const SMOOTHING: f64 = 0.9;
/// The proposal is the rate where the loss runs away, divided by this.
const BELOW: f64 = 8.0;
/// Deviations of the noise that a fall of the loss must have.
const CLEAR: f64 = 5.0;
/// Steps for which the loss has to stay above what it was: a third of a decade of the usual test.
const SUSTAINED: usize = 10;

/// Settings that a test has of its own.
const OWN: [&str; 9] = [
    "schedule",
    "epochs",
    "max_steps",
    "patience",
    "bound",
    "travel",
    "log_every",
    "eval_every",
    "checkpoint_every",
];
/// Rates of a program's own, which the schedule's factor reaches too: they rise with the one that is tested, and where that
/// has its own value they have theirs.
const OTHERS: [&str; 1] = ["table_lr"];
/// More than any test makes: its steps end it.
const EPOCHS: usize = 1_000_000;

fn schedule() -> String {
    format!("exponential:{}:1", RANGE.0 / RANGE.1)
}

/// Whether these are the settings of a test's run.
pub fn is_test(settings: &Table) -> bool {
    let is = |name: &str, value: Value| settings.get(name) == Some(&value);
    is("schedule", Value::String(schedule())) && is("epochs", Value::Integer(EPOCHS as i64))
}

/// Says what was asked for and plays no part in a test: who adds `--find-lr` to a command means its other flags.
pub fn say_unused<A: Own>(asked: &Asked<A>) {
    let unused = OWN.iter().filter(|name| asked.has(name));
    let mut unused: Vec<String> = unused
        .map(|name| format!("--{}", name.replace('_', "-")))
        .collect();
    if asked.settings.training.seed.contains(',') {
        unused.push("all seeds but the first".into());
    }
    if !unused.is_empty() {
        say!(
            "--find-lr: a test has its own length and schedule and no bound; not used: {}",
            unused.join(", ")
        );
    }
}

/// The runs of a test: one for each optimizer and program's choice, with the first seed.
///
/// # Errors
/// If rates are compared already.
pub fn cells<A: Own>(cells: Vec<Cell<A>>, steps: u64) -> Result<Vec<Cell<A>>> {
    let swept = |name: &str| name == "lr" || name == "lr_scale" || OWN.contains(&name);
    let first = cells.first().map(|cell| cell.seed);
    let mut kept = Vec::new();
    for mut cell in cells.into_iter().filter(|cell| Some(cell.seed) == first) {
        if let Some((name, _)) = cell.place.iter().find(|(name, _)| swept(name)) {
            let name = name.replace('_', "-");
            bail!("--find-lr: a test has a --{name} of its own; leave the sweep of it out");
        }
        cell.settings = with_others(&cell.settings)?;
        cell.settings.optimizer.lr_scale *= RANGE.1;
        cell.settings.training.schedule = schedule();
        cell.settings.training.epochs = EPOCHS;
        cell.settings.training.max_steps = Some(steps);
        cell.settings.training.patience = None;
        // It would be that of a hundredth of the rate.
        cell.settings.optimizer.bound = 0.0;
        cell.settings.optimizer.travel = 0.0;
        cell.settings.run.log_every = Some(1);
        cell.settings.run.eval_every = None;
        cell.settings.run.checkpoint_every = None;
        kept.push(cell);
    }
    Ok(kept)
}

fn with_others<A: Own>(settings: &Settings<A>) -> Result<Settings<A>> {
    let mut table = layers::table(settings)?;
    for name in OTHERS {
        if let Some(Value::Float(rate)) = table.get_mut(name) {
            *rate *= RANGE.1;
        }
    }
    Ok(table.try_into()?)
}

/// What a test has found.
struct Found {
    label: String,
    /// The rate at each step, and the smoothed loss.
    curve: Vec<(f64, f64)>,
    /// The first rate from which on the loss is above what it was.
    edge: Option<f64>,
    /// Where it falls fastest, if it falls by more than its noise.
    steepest: Option<f64>,
}

fn found<A: Own>(cell: &Cell<A>, steps: u64) -> Result<Found> {
    let losses = results::losses(&cell.folder)?;
    let highest = cell.settings.optimizer.rate();
    let ratio = RANGE.0 / RANGE.1;
    let rate = |step: u64| highest * ratio * (1.0 / ratio).powf((step - 1) as f64 / steps as f64);
    let finite = losses.iter().filter(|(_, loss)| loss.is_finite());
    let curve = smoothed(finite.map(|(step, loss)| (rate((*step).max(1)), *loss)));
    let (edge, steepest) = places(&curve);
    // A run that was given up ran away at its last rate, if not before.
    let gave_up = losses.keys().next_back().is_some_and(|last| *last < steps);
    let last = curve.last().map(|(rate, _)| *rate);
    let edge = edge.or(last.filter(|_| gave_up));
    Ok(Found {
        label: cell.group(),
        curve,
        edge,
        steepest,
    })
}

/// Running means, corrected for their start.
fn smoothed(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let (mut mean, mut weight) = (0.0, 1.0);
    let smoothed = points.map(|(rate, loss)| {
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss;
        weight *= SMOOTHING;
        (rate, mean / (1.0 - weight))
    });
    smoothed.collect()
}

/// Where the loss runs away, and where it falls fastest over the logarithm of the rate. What it does in the first
/// fifth, whose rates move nothing, is its noise.
fn places(curve: &[(f64, f64)]) -> (Option<f64>, Option<f64>) {
    let still = &curve[..curve.len() / 5];
    if still.len() < 2 {
        return (None, None);
    }
    let losses: Vec<f64> = still.iter().map(|(_, loss)| *loss).collect();
    let still = Spread::of(&losses);
    let noise = still.deviation.unwrap_or(0.0);
    let mut least = (f64::NAN, still.mean);
    let (mut edge, mut above) = (None, 0);
    for &(rate, loss) in &curve[losses.len()..] {
        if loss < least.1 {
            least = (rate, loss);
        }
        let fall = still.mean - least.1;
        let allowed = match fall > CLEAR * noise {
            true => least.1 + 0.25 * fall + 2.0 * noise,
            false => still.mean + 2.0 * noise,
        };
        match loss > allowed {
            true if above == 0 => (edge, above) = (Some(rate), 1),
            true => above += 1,
            false => (edge, above) = (None, 0),
        }
        if above == SUSTAINED {
            break;
        }
    }
    let falls = still.mean - least.1 > CLEAR * noise;
    let before: Vec<_> = curve
        .iter()
        .take_while(|(rate, _)| *rate <= least.0)
        .collect();
    // Over several steps: a slope between two is mostly noise.
    let width = (curve.len() / 15).max(2);
    let slopes = before.windows(width).map(|part| {
        let (from, to) = (part[0], part[width - 1]);
        ((to.1 - from.1) / (to.0 / from.0).ln(), to.0)
    });
    let steepest = slopes.min_by(|a, b| a.0.total_cmp(&b.0));
    (edge, steepest.filter(|_| falls).map(|(_, rate)| rate))
}

/// Writes `find-lr.svg`, and prints what the tests propose; how many runs made no step.
///
/// # Errors
/// If a run's files cannot be read or the figure cannot be written.
pub fn print<E: Experiment>(cells: &[Cell<E::Args>], steps: u64, out: &Path) -> Result<usize> {
    let (tested, failed): (Vec<_>, Vec<_>) = cells
        .iter()
        .partition(|cell| results::losses(&cell.folder).is_ok_and(|losses| !losses.is_empty()));
    let all = tested.into_iter().map(|cell| found(cell, steps));
    let all: Vec<Found> = all.collect::<Result<_>>()?;
    if all.is_empty() {
        return Ok(failed.len());
    }
    let lines = all.iter().map(|found| {
        let rate = |rate: Option<f64>| rate.map_or("-".to_string(), |rate| format!("{rate:.1e}"));
        let proposed = found.edge.map(|edge| edge / BELOW);
        let shown = [found.edge, found.steepest, proposed].map(rate);
        std::iter::once(found.label.clone()).chain(shown).collect()
    });
    let header = ["run", "runs away at", "falls fastest at", "proposed"];
    say!("\n{}", table::format(&header, &lines.collect::<Vec<_>>()));
    say!(
        "\nA proposal is where a search begins: --sweep lr-scale=0.3,1,3 around it. The tests ran without --bound and --travel."
    );
    let tables = cells.iter().map(|cell| layers::table(&cell.settings));
    let tables: Vec<Table> = tables.collect::<Result<_>>()?;
    for name in OTHERS {
        let rates = tables.iter().map(|table| table.get(name)?.as_float());
        let rates: Vec<Option<f64>> = rates.collect();
        if let Some(Some(rate)) = rates.first()
            && rates.iter().all(|other| *other == Some(*rate))
        {
            say!(
                "--{} rose with it, from {:.1e} to {rate:.1e}: what runs away may be its part, too.",
                name.replace('_', "-"),
                rate * RANGE.0 / RANGE.1
            );
        }
    }
    let series = all.into_iter().map(|found| {
        // What has run away would flatten all the rest.
        let most = 2.0 * found.curve.first().map_or(0.0, |(_, loss)| loss.abs());
        let shown = found
            .curve
            .into_iter()
            .take_while(|(_, loss)| *loss <= most);
        let point = |(rate, loss)| Point {
            x: rate,
            mean: loss,
            deviation: None,
        };
        Series {
            label: found.label,
            points: shown.map(point).collect(),
        }
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
    say!("\ncurves: {}", path.display());
    Ok(failed.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(loss: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        // A loss that moves by a thousandth from batch to batch.
        let noise = |i: u32| 1e-3 * f64::from(i * 7919 % 13) / 13.0;
        let rates = (0..200).map(|i| (i, 1e-5 * 10f64.powf(f64::from(i) / 30.0)));
        smoothed(rates.map(|(i, rate)| (rate, loss(rate) + noise(i))))
    }

    /// A loss that falls around 0.01 and runs away from 1 on; one that does not fall; one that does nothing.
    #[test]
    fn the_edge_and_the_steepest_fall_are_found() {
        let away = |rate: f64| (rate / 2.0).powi(4).min(1e6);
        let (edge, steepest) = places(&curve(|rate| 1.0 / (1.0 + rate / 0.01) + away(rate)));
        assert!(
            edge.is_some_and(|edge| (1.0..3.0).contains(&edge)),
            "{edge:?}"
        );
        assert!(
            steepest.is_some_and(|rate| (0.003..0.06).contains(&rate)),
            "{steepest:?}"
        );
        let (edge, steepest) = places(&curve(|rate| 0.7 + away(rate)));
        assert!(
            edge.is_some_and(|edge| (0.2..1.0).contains(&edge)),
            "{edge:?}"
        );
        assert_eq!(steepest, None);
        assert_eq!(places(&curve(|_| 0.7)), (None, None));
        assert_eq!(places(&[]), (None, None));
    }
}
