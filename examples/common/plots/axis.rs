//! The horizontal axis of a figure: where an x stands, and which of them have a label.

use super::Series;
use anyhow::{Result, bail};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use std::ops::Range;

/// The range of these numbers with some room around it; never empty.
pub(super) fn roomy(numbers: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
        (low.min(x), high.max(x))
    });
    match low < high {
        true => low - 0.04 * (high - low)..high + 0.04 * (high - low),
        false if low == high => low - 0.5..high + 0.5,
        false => 0.0..1.0,
    }
}

/// Where an x stands: a place is x itself, or its logarithm to base ten.
#[derive(Clone)]
pub(super) struct Axis {
    log: bool,
    /// The place of zero on a logarithmic axis.
    zero: f64,
    range: Range<f64>,
    /// Places with a label.
    ticks: Vec<f64>,
}

impl Axis {
    pub(super) fn new(log: bool, series: &[Series]) -> Result<Self> {
        let mut all: Vec<f64> = series.iter().flat_map(|s| &s.points).map(|p| p.x).collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        if let Some(x) = all.first().filter(|x| log && **x < 0.0) {
            bail!("{x} has no place on a logarithmic axis: draw it on a linear one");
        }
        let mut positive = all.iter().filter(|x| **x > 0.0).map(|x| x.log10());
        let (low, high) = (positive.clone().next(), positive.next_back());
        let (low, high) = (low.unwrap_or(0.0), high.unwrap_or(0.0));
        let mut axis = Self {
            log,
            // As far as a fifth of the values, but no less than half a decade.
            zero: low - (0.2 * (high - low)).max(0.5),
            range: 0.0..1.0,
            ticks: Vec::new(),
        };
        let places: Vec<f64> = all.iter().map(|x| axis.place(*x)).collect();
        axis.range = roomy(places.iter().copied());
        axis.ticks = match log {
            true => apart(&places, 0.08 * axis.width()),
            false => round(&axis.range),
        };
        Ok(axis)
    }

    pub(super) fn width(&self) -> f64 {
        self.range.end - self.range.start
    }

    pub(super) fn place(&self, x: f64) -> f64 {
        match self.log {
            true if x == 0.0 => self.zero,
            true => x.log10(),
            false => x,
        }
    }

    /// The label of a place.
    pub(super) fn text(&self, place: f64) -> String {
        match self.log {
            true if place == self.zero => "0".into(),
            true => number(10f64.powf(place)),
            false => number(place),
        }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, pixels: (i32, i32)) -> i32 {
        let share = (place - self.range.start) / self.width();
        (f64::from(pixels.0) + share * f64::from(pixels.1 - pixels.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// Those of sorted places that are so far from the one before that their labels do not meet.
pub(super) fn apart(places: &[f64], distance: f64) -> Vec<f64> {
    let mut kept: Vec<f64> = Vec::new();
    for place in places {
        if kept.last().is_none_or(|last| place - last >= distance) {
            kept.push(*place);
        }
    }
    kept
}

/// Multiples of 1, 2 or 5 times a power of ten, five to ten of them.
pub(super) fn round(range: &Range<f64>) -> Vec<f64> {
    let width = range.end - range.start;
    let decade = 10f64.powf((width / 5.0).log10().floor());
    let steps = [5.0, 2.0, 1.0].map(|factor| factor * decade);
    let step = steps.into_iter().find(|step| width / step >= 5.0);
    let step = step.unwrap_or(decade);
    let first = (range.start / step).ceil() as i64;
    let ticks = (first..).map(|k| k as f64 * step);
    ticks
        .take_while(|tick| *tick <= range.end)
        .take(20)
        .collect()
}

/// A number to four digits: `0.003`, `2e-5`, `1200`.
pub(super) fn number(x: f64) -> String {
    let rounded: f64 = format!("{x:.3e}").parse().unwrap_or(x);
    match rounded.abs() {
        0.0 => "0".into(),
        1e-3..1e6 => format!("{rounded}"),
        _ => format!("{rounded:e}"),
    }
}
