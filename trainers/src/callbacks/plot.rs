//! `curves.svg`: training loss and main metric over the steps, of one run or of several.

use super::{Callback, EvalReport};
use crate::disk::write_whole;
use crate::error::{Error, Result};
use crate::trainer::Summary;
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

const COLORS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 87, 20),
    RGBColor(44, 140, 60),
    RGBColor(180, 40, 60),
    RGBColor(120, 80, 170),
    RGBColor(90, 90, 90),
];

/// The curves of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// The run's name in the legend.
    pub label: String,
    /// (step, loss) of the logged steps.
    pub losses: Vec<(u64, f64)>,
    /// The main metric's name.
    pub metric: String,
    /// (step, main metric) of the evaluations.
    pub evaluations: Vec<(u64, f64)>,
}

#[derive(Deserialize)]
struct Line {
    kind: String,
    step: u64,
    loss: Option<f64>,
    main: Option<String>,
    scores: Option<BTreeMap<String, Option<f64>>>,
}

impl Curve {
    /// Reads the curves of a run from its `metrics.jsonl`. Numbers that were not finite are left
    /// out.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Log`] naming the line.
    pub fn read(metrics: &Path, label: impl Into<String>) -> Result<Self> {
        let text = std::fs::read_to_string(metrics).map_err(Error::io("cannot read", metrics))?;
        let label = label.into();
        let mut curve = Self {
            label,
            ..Self::default()
        };
        for (number, line) in text.lines().enumerate() {
            let line = serde_json::from_str(line).map_err(|e| Error::Log {
                path: metrics.into(),
                what: format!("line {}: {e}", number + 1),
            })?;
            curve.add(line);
        }
        Ok(curve)
    }

    fn add(&mut self, line: Line) {
        match line.kind.as_str() {
            "step" => self.losses.extend(line.loss.map(|loss| (line.step, loss))),
            "evaluation" => {
                let (main, scores) = (
                    line.main.unwrap_or_default(),
                    line.scores.unwrap_or_default(),
                );
                let value = scores.get(&main).copied().flatten();
                self.evaluations
                    .extend(value.map(|value| (line.step, value)));
                self.metric = main;
            }
            _ => {}
        }
    }

    /// The losses as a running mean, corrected for its beginning like Adam's.
    pub fn smoothed(&self) -> Vec<(f64, f64)> {
        // About a fiftieth of the curve: noise goes, the shape stays.
        let decay = 1.0 - 1.0 / (1.0 + self.losses.len() as f64 / 50.0);
        let (mut mean, mut weight) = (0.0, 0.0);
        let points = self.losses.iter().map(|(step, loss)| {
            mean = decay * mean + (1.0 - decay) * loss;
            weight = decay * weight + (1.0 - decay);
            (*step as f64, mean / weight)
        });
        points.collect()
    }
}

/// Draws several runs into one picture: the smoothed training loss on the left, the main metric on
/// the right.
///
/// # Errors
/// [`Error::Io`] if it cannot be drawn or written.
pub fn draw(path: &Path, curves: &[Curve]) -> Result<()> {
    let mut text = String::new();
    let backend = SVGBackend::with_string(&mut text, (1000, 420));
    let drawn = draw_on(backend.into_drawing_area(), curves);
    drawn.map_err(|e| Error::io("cannot draw", path)(std::io::Error::other(e)))?;
    write_whole(path, text.as_bytes())
}

/// Up to how many points of a line are marked.
const FEW: usize = 30;

/// One line of one panel: legend, points.
type Series = (String, Vec<(f64, f64)>);

fn draw_on(
    area: DrawingArea<SVGBackend, Shift>,
    curves: &[Curve],
) -> std::result::Result<(), String> {
    let error = |e: &dyn std::fmt::Display| e.to_string();
    area.fill(&WHITE).map_err(|e| error(&e))?;
    let (left, right) = area.split_horizontally(500);
    let losses = curves.iter().map(|c| (c.label.clone(), c.smoothed()));
    let scores = curves.iter().map(|c| {
        let points = c
            .evaluations
            .iter()
            .map(|(step, value)| (*step as f64, *value));
        (c.label.clone(), points.collect())
    });
    let metric = curves
        .iter()
        .map(|c| c.metric.as_str())
        .find(|name| !name.is_empty());
    panel(&left, "training loss", &losses.collect::<Vec<_>>()).map_err(|e| error(&*e))?;
    panel(
        &right,
        metric.unwrap_or("evaluation"),
        &scores.collect::<Vec<_>>(),
    )
    .map_err(|e| error(&*e))?;
    area.present().map_err(|e| error(&e))
}

fn panel(
    area: &DrawingArea<SVGBackend, Shift>,
    title: &str,
    series: &[Series],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let points = || series.iter().flat_map(|(_, points)| points);
    let steps = range(points().map(|(step, _)| *step).chain([0.0]));
    let values = range(points().map(|(_, value)| *value));
    // Without a font the widths of texts are guessed, so the margins are wide.
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(steps, values)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style(("sans-serif", 16))
        .x_desc("step")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .draw()?;
    for (index, (label, points)) in series.iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        let line = LineSeries::new(points.iter().copied(), color.stroke_width(2));
        let legend =
            move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], color.stroke_width(2));
        chart.draw_series(line)?.label(label).legend(legend);
        if points.len() <= FEW {
            // A single evaluation has no line.
            let dots = points.iter().map(|p| Circle::new(*p, 4, color.filled()));
            chart.draw_series(dots)?;
        }
    }
    chart
        .configure_series_labels()
        .label_font(("sans-serif", 16))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// The range of the values with some room around it; never empty.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    match low < high {
        true => low - 0.03 * (high - low)..high + 0.03 * (high - low),
        false if low == high => low - 0.5..high + 0.5,
        false => 0.0..1.0,
    }
}

/// Draws the curves of the present run, and of others for comparison, after each evaluation and at
/// the end. Add it after the [`super::JsonLines`] whose file it reads.
#[derive(Clone, Debug)]
pub struct Curves {
    picture: PathBuf,
    metrics: PathBuf,
    label: String,
    others: Vec<Curve>,
}

impl Curves {
    /// Draws `metrics`, a `metrics.jsonl`, into `picture`, an SVG file.
    pub fn new(picture: impl Into<PathBuf>, metrics: impl Into<PathBuf>, label: &str) -> Self {
        Self {
            picture: picture.into(),
            metrics: metrics.into(),
            label: label.into(),
            others: Vec::new(),
        }
    }

    /// Draws another run into the same picture.
    pub fn compare(mut self, other: Curve) -> Self {
        self.others.push(other);
        self
    }

    fn draw(&self) -> Result<()> {
        let mut curves = vec![Curve::read(&self.metrics, self.label.as_str())?];
        curves.extend(self.others.iter().cloned());
        draw(&self.picture, &curves)
    }
}

impl Callback for Curves {
    fn on_evaluation(&mut self, _report: &EvalReport) -> Result<()> {
        self.draw()
    }

    fn on_end(&mut self, _summary: &Summary) -> Result<()> {
        self.draw()
    }
}
