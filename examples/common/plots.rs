//! Figures as SVG text: lines with their spread over seeds, on a linear or a logarithmic axis.

mod axis;

use crate::results::Spread;
use anyhow::{Result, anyhow};
use axis::{Axis, roomy};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::ops::Range;
use trainers::callbacks::Curve;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Coordinates = Cartesian2d<Axis, RangedCoordf64>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Coordinates>;

/// Three times as bright as black and a third as bright as white at least, so that they are seen on both.
const COLOURS: [RGBColor; 10] = [
    RGBColor(44, 132, 201),
    RGBColor(217, 96, 26),
    RGBColor(47, 154, 80),
    RGBColor(207, 66, 87),
    RGBColor(143, 107, 200),
    RGBColor(138, 122, 30),
    RGBColor(28, 151, 163),
    RGBColor(184, 86, 143),
    RGBColor(128, 128, 128),
    RGBColor(165, 103, 63),
];
/// Of a figure without its legend.
const SIZE: (u32, u32) = (720, 400);
/// Height of a line of the legend.
const LINE: u32 = 22;
/// Up to how many points of a line have a dot and an error bar; more have a band.
const FEW: usize = 12;

/// A point of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// A step, or the value of a flag.
    pub x: f64,
    /// The mean over the seeds.
    pub mean: f64,
    /// The standard deviation of a single seed; none of one seed.
    pub deviation: Option<f64>,
}

/// A line of a figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub label: String,
    /// Its points, in the order in which they are joined.
    pub points: Vec<Point>,
}

impl Series {
    /// The means and deviations of all y that belong to the same x, in the order of x. Values that are
    /// not finite are left out: a mean over the seeds that did not diverge must say so beside the figure.
    pub fn over_seeds(label: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let is_finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        let mut points: Vec<(f64, f64)> = points.into_iter().filter(is_finite).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let same = points.chunk_by(|a, b| a.0 == b.0);
        let points = same.map(|group| {
            let values: Vec<f64> = group.iter().map(|(_, y)| *y).collect();
            let spread = Spread::of(&values);
            Point {
                x: group[0].0,
                mean: spread.mean,
                deviation: spread.deviation,
            }
        });
        Self {
            label: label.into(),
            points: points.collect(),
        }
    }
}

/// Two figures of groups of runs, each a name and the curves of its seeds: the training loss (a running
/// mean of each run, as [`Curve::smoothed`] has it) and the main metric, over the steps.
///
/// # Errors
/// If they cannot be drawn.
pub fn training(groups: &[(String, Vec<Curve>)]) -> Result<[String; 2]> {
    let losses = groups.iter().map(|(label, runs)| {
        let points = runs.iter().flat_map(|run| run.smoothed());
        Series::over_seeds(label, points)
    });
    let scores = groups.iter().map(|(label, runs)| {
        let points = runs.iter().flat_map(|run| run.evaluations.iter());
        Series::over_seeds(label, points.map(|(step, value)| (*step as f64, *value)))
    });
    let metrics = groups.iter().flat_map(|(_, runs)| runs);
    let metric = metrics
        .map(|run| run.metric.as_str())
        .find(|m| !m.is_empty());
    let metric = metric.unwrap_or("evaluation");
    let (losses, scores): (Vec<_>, Vec<_>) = (losses.collect(), scores.collect());
    Ok([
        lines("Training loss", "step", "loss", false, &losses)?,
        lines("Evaluation", "step", metric, false, &scores)?,
    ])
}

/// Draws lines with their deviations: error bars on few points, bands along many. With `log_x` the axis
/// is logarithmic; a zero, which has no place there, stands a little to the left of the smallest value.
///
/// The text is one `svg` element, with everything in it escaped.
///
/// # Errors
/// For a negative x on a logarithmic axis, and if the lines cannot be drawn.
pub fn lines(
    title: &str,
    x_label: &str,
    y_label: &str,
    log_x: bool,
    series: &[Series],
) -> Result<String> {
    let series: Vec<Series> = series.iter().map(finite).collect();
    let axis = Axis::new(log_x, &series)?;
    let columns = legend_columns(&series);
    let legend = LINE * series.len().div_ceil(columns) as u32 + 10;
    let mut text = String::new();
    {
        let backend = SVGBackend::with_string(&mut text, (SIZE.0, SIZE.1 + legend));
        let area = backend.into_drawing_area();
        let drawn = draw(&area, [title, x_label, y_label], &axis, &series, columns);
        drawn.map_err(|e| anyhow!("{title}: {e}"))?;
    }
    Ok(text)
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(area: &Area, labels: [&str; 3], axis: &Axis, series: &[Series], columns: usize) -> Drawn {
    area.fill(&WHITE)?;
    let (above, below) = area.split_vertically(SIZE.1);
    let [title, x_label, y_label] = labels;
    // Without a font the widths of texts are guessed, so the margins are wide.
    let mut chart = ChartBuilder::on(&above)
        .caption(title, ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(74)
        .build_cartesian_2d(axis.clone(), values(series))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(("sans-serif", 16))
        .x_desc(x_label)
        .y_desc(y_label)
        .x_label_formatter(&|place| axis.text(*place))
        .draw()?;
    let is_few = series.iter().all(|s| s.points.len() <= FEW);
    for (index, line) in series.iter().enumerate() {
        let style = style(index);
        let points = line.points.iter().map(|p| Point {
            x: axis.place(p.x),
            ..*p
        });
        let points: Vec<Point> = points.collect();
        match is_few {
            true => bars(&mut chart, &points, style, axis.width() * 0.008)?,
            false => band(&mut chart, &points, style)?,
        }
        let line: Vec<(f64, f64)> = points.iter().map(|p| (p.x, p.mean)).collect();
        match index < COLOURS.len() {
            true => chart.draw_series(LineSeries::new(line, style))?,
            false => chart.draw_series(DashedLineSeries::new(line, 6, 4, style))?,
        };
    }
    keys(&below, series, columns)?;
    area.present()?;
    Ok(())
}

/// Colours go round; the second round is dashed.
fn style(index: usize) -> ShapeStyle {
    COLOURS[index % COLOURS.len()].stroke_width(2)
}

/// A dot on each mean, and a bar from mean - deviation to mean + deviation.
fn bars(chart: &mut Chart, points: &[Point], style: ShapeStyle, cap: f64) -> Drawn {
    let dots = points.iter();
    chart.draw_series(dots.map(|p| Circle::new((p.x, p.mean), 4, style.filled())))?;
    for point in points {
        let Some(deviation) = point.deviation else {
            continue;
        };
        let (low, high) = (point.mean - deviation, point.mean + deviation);
        let flat = |y| [(point.x - cap, y), (point.x + cap, y)];
        let strokes = [[(point.x, low), (point.x, high)], flat(low), flat(high)];
        chart.draw_series(strokes.map(|ends| PathElement::new(ends, style)))?;
    }
    Ok(())
}

/// The area between mean - deviation and mean + deviation; as thin as the line where there is no deviation.
fn band(chart: &mut Chart, points: &[Point], style: ShapeStyle) -> Drawn {
    if points.iter().all(|p| p.deviation.is_none()) {
        // A single point has no line.
        let dots = points.iter().filter(|_| points.len() == 1);
        chart.draw_series(dots.map(|p| Circle::new((p.x, p.mean), 4, style.filled())))?;
        return Ok(());
    }
    let edge = |sign: f64| {
        let at = move |p: &Point| (p.x, p.mean + sign * p.deviation.unwrap_or(0.0));
        points.iter().map(at)
    };
    let outline: Vec<(f64, f64)> = edge(-1.0).chain(edge(1.0).rev()).collect();
    chart.draw_series([Polygon::new(outline, style.color.mix(0.2))])?;
    Ok(())
}

/// How many labels fit side by side.
fn legend_columns(series: &[Series]) -> usize {
    let longest = series.iter().map(|s| s.label.chars().count()).max();
    match longest.unwrap_or(0) {
        0..=22 => 3,
        23..=38 => 2,
        _ => 1,
    }
}

/// The legend.
fn keys(area: &Area, series: &[Series], columns: usize) -> Drawn {
    let width = (SIZE.0 - 88) / columns as u32;
    for (index, line) in series.iter().enumerate() {
        let x = 74 + ((index % columns) as u32 * width) as i32;
        let y = (LINE / 2 + (index / columns) as u32 * LINE) as i32;
        let style = style(index);
        let strokes: &[[i32; 2]] = match index < COLOURS.len() {
            true => &[[0, 22]],
            false => &[[0, 6], [10, 16], [20, 22]],
        };
        for [from, to] in strokes {
            area.draw(&PathElement::new([(x + from, y), (x + to, y)], style))?;
        }
        let text = ("sans-serif", 16).into_font().color(&BLACK);
        let text = text.pos(plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Left,
            plotters::style::text_anchor::VPos::Center,
        ));
        area.draw(&Text::new(line.label.clone(), (x + 30, y), text))?;
    }
    Ok(())
}

/// Without points that are not finite.
fn finite(series: &Series) -> Series {
    let points = series.points.iter().copied();
    let points = points.filter(|p| p.x.is_finite() && p.mean.is_finite());
    let points = points.map(|p| Point {
        deviation: p.deviation.filter(|d| d.is_finite()),
        ..p
    });
    Series {
        label: series.label.clone(),
        points: points.collect(),
    }
}

/// The range of the means and their deviations, with some room around it; never empty.
fn values(series: &[Series]) -> Range<f64> {
    let points = series.iter().flat_map(|s| &s.points);
    let ends = points.flat_map(|p| {
        let deviation = p.deviation.unwrap_or(0.0);
        [p.mean - deviation, p.mean + deviation]
    });
    roomy(ends)
}

#[cfg(test)]
mod tests;
