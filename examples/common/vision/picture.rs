//! One picture of a comparison: training and test loss by epoch, a line an optimizer.

use crate::results::{Curve, Row};
use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::ops::Range;
use std::path::Path;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const COLOURS: [RGBColor; 7] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 87, 20),
    RGBColor(44, 140, 60),
    RGBColor(180, 40, 60),
    RGBColor(120, 80, 170),
    RGBColor(90, 90, 90),
    RGBColor(150, 110, 20),
];

/// Draws the losses, means over the seeds, into an SVG file.
///
/// # Errors
/// If it cannot be drawn or written.
pub fn draw(path: &Path, rows: &[Row]) -> Result<()> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (1000, 420)).into_drawing_area();
        area.fill(&WHITE).map_err(|e| anyhow!("{e}"))?;
        let (left, right) = area.split_horizontally(500);
        panel(&left, "training loss", rows, |row| &row.train)?;
        panel(&right, "test loss", rows, |row| &row.test)?;
        area.present().map_err(|e| anyhow!("{e}"))?;
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn panel(area: &Area, title: &str, rows: &[Row], curve: fn(&Row) -> &Curve) -> Result<()> {
    let error = |e: &dyn std::fmt::Display| anyhow!("{title}: {e}");
    let points = || rows.iter().flat_map(|row| curve(row).iter());
    let epochs = points().map(|(epoch, _)| *epoch as f64).fold(1.0, f64::max);
    // Without a font the widths of texts are guessed, so the margins are wide.
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..epochs * 1.02, values(points().map(|(_, loss)| *loss)))
        .map_err(|e| error(&e))?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style(("sans-serif", 16))
        .x_desc("epoch")
        .x_label_formatter(&|epoch| format!("{epoch:.0}"))
        .draw()
        .map_err(|e| error(&e))?;
    for (index, row) in rows.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<(f64, f64)> = curve(row).iter().map(|(e, l)| (*e as f64, *l)).collect();
        let label = match row.runs {
            1 => row.optimizer.clone(),
            runs => format!("{}, mean of {runs}", row.optimizer),
        };
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        let legend = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2));
        chart
            .draw_series(line)
            .map_err(|e| error(&e))?
            .label(label)
            .legend(legend);
        if points.len() < 3 {
            // A single point has no line.
            let dots = points.iter().map(|p| Circle::new(*p, 4, colour.filled()));
            chart.draw_series(dots).map_err(|e| error(&e))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 16))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(|e| error(&e))
}

/// The range of the losses with some room around it; never empty.
fn values(losses: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = losses.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), loss| {
        (low.min(loss), high.max(loss))
    });
    match low < high {
        true => low - 0.03 * (high - low)..high + 0.03 * (high - low),
        false if low == high => low - 0.5..high + 0.5,
        false => 0.0..1.0,
    }
}
