//! Figures 1 and 3 of the AdaHessian paper, as numbers and as a picture.
//!
//! Figure 1: on f(x, y) = 10x² + y² the Hessian's diagonal rescales the gradient so that one step
//! reaches the minimum; gradient descent and Adam take the long way. Figure 3: on the wavy
//! f(x) = x² + 0.1 x sin(20πx) the momentum of the Hessian carries the iterate over the ripples,
//! without it it stays stuck.

use adahessian::{AdaHessian, Adam, NamedVars, Optim, Rule, Sgd};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor, Var};
use clap::Parser;
use common::{program, say, table};
use plotters::prelude::*;
use std::path::{Path, PathBuf};

/// Figures 1 and 3 of the AdaHessian paper: a table and an SVG picture.
#[derive(Parser)]
struct Cli {
    /// Where to write quadratic.svg
    #[arg(long, value_name = "DIR", default_value = "runs/quadratic")]
    out: PathBuf,
}

const COLOURS: [RGBColor; 3] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 84, 22),
    RGBColor(44, 140, 60),
];

type Objective = fn(&Tensor) -> candle_core::Result<Tensor>;

fn bowl(xy: &Tensor) -> candle_core::Result<Tensor> {
    (xy.sqr()? * Tensor::new(&[10f64, 1.0], &Device::Cpu)?)?.sum_all()
}

fn ripples(x: &Tensor) -> candle_core::Result<Tensor> {
    let wave = (x * (20.0 * std::f64::consts::PI))?.sin()?;
    (x.sqr()? + ((x * 0.1)? * wave)?)?.sum_all()
}

/// The iterates from a start and the function's values at them.
struct Walk {
    name: &'static str,
    points: Vec<Vec<f64>>,
    values: Vec<f64>,
}

impl Walk {
    fn last(&self) -> f64 {
        self.values.last().copied().unwrap_or(f64::NAN)
    }
}

fn walk(
    name: &'static str,
    f: Objective,
    start: &[f64],
    steps: usize,
    make: impl Fn(&NamedVars) -> Result<Box<dyn Optim>>,
) -> Result<Walk> {
    let var = Var::new(start, &Device::Cpu)?;
    let mut optimizer = make(&NamedVars::from(vec![var.clone()]))?;
    let mut walk = Walk {
        name,
        points: vec![start.to_vec()],
        values: vec![f(&var)?.to_scalar()?],
    };
    for _ in 0..steps {
        optimizer.backward_step(&f(&var)?)?;
        walk.points.push(var.to_vec1()?);
        walk.values.push(f(&var)?.to_scalar()?);
    }
    Ok(walk)
}

fn adahessian(lr: f64, beta1: f64, beta2: f64) -> impl Fn(&NamedVars) -> Result<Box<dyn Optim>> {
    move |vars| {
        Ok(Box::new(
            AdaHessian::builder()
                .lr(lr)
                .betas(beta1, beta2)
                .eps(0.0)
                .build(vars)?,
        ))
    }
}

fn figure_1() -> Result<Vec<Walk>> {
    let start = [-4.0, 3.0];
    let plain = Sgd {
        momentum: 0.0,
        nesterov: false,
    };
    Ok(vec![
        walk("gradient descent, lr 0.08", bowl, &start, 30, move |v| {
            Ok(Box::new(plain.lr(0.08).build(v)?))
        })?,
        walk("Adam, lr 1", bowl, &start, 30, |v| {
            Ok(Box::new(Adam::default().lr(1.0).build(v)?))
        })?,
        walk(
            "AdaHessian, lr 1, no momentum",
            bowl,
            &start,
            30,
            adahessian(1.0, 0.0, 0.999),
        )?,
    ])
}

fn figure_3() -> Result<Vec<Walk>> {
    Ok(vec![
        walk(
            "with Hessian momentum",
            ripples,
            &[1.1],
            1000,
            adahessian(1.25, 0.9, 0.999),
        )?,
        walk(
            "without Hessian momentum",
            ripples,
            &[1.1],
            1000,
            adahessian(1.25, 0.9, 0.0),
        )?,
    ])
}

fn rows(walks: &[Walk], at: &[usize]) -> Vec<Vec<String>> {
    let row = |walk: &Walk| {
        let values = at.iter().map(|step| {
            walk.values
                .get(*step)
                .map_or("-".into(), |v| format!("{v:.3e}"))
        });
        std::iter::once(walk.name.to_string())
            .chain(values)
            .collect()
    };
    walks.iter().map(row).collect()
}

fn picture(path: &Path, bowl_walks: &[Walk], ripple_walks: &[Walk]) -> Result<()> {
    let root = SVGBackend::new(path, (1000, 420)).into_drawing_area();
    let broken = |e: &dyn std::fmt::Display| anyhow::anyhow!("{}: {e}", path.display());
    root.fill(&WHITE).map_err(|e| broken(&e))?;
    let (left, right) = root.split_horizontally(500);
    let logs = |walk: &Walk, n: usize| -> Vec<(f64, f64)> {
        let values = walk.values.iter().take(n + 1).enumerate();
        values
            .map(|(i, v)| (i as f64, v.max(1e-16).log10()))
            .collect()
    };
    let series: Vec<_> = bowl_walks.iter().map(|w| (w.name, logs(w, 30))).collect();
    lines(
        &left,
        "10x² + y²: log10 f over steps",
        (0.0..30.0, -16.5..3.0),
        &series,
    )
    .map_err(|e| broken(&e))?;
    let places = |walk: &Walk| -> Vec<(f64, f64)> {
        let points = walk.points.iter().take(41).enumerate();
        points
            .filter_map(|(i, p)| Some((i as f64, *p.first()?)))
            .collect()
    };
    let series: Vec<_> = ripple_walks.iter().map(|w| (w.name, places(w))).collect();
    lines(
        &right,
        "x² + 0.1x sin(20πx): x over steps",
        (0.0..40.0, -0.8..1.2),
        &series,
    )
    .map_err(|e| broken(&e))?;
    root.present().map_err(|e| broken(&e))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Range = std::ops::Range<f64>;

fn lines(
    area: &Area<'_>,
    title: &str,
    (x, y): (Range, Range),
    series: &[(&str, Vec<(f64, f64)>)],
) -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(46);
    let mut chart = builder.build_cartesian_2d(x, y)?;
    chart.configure_mesh().light_line_style(WHITE).draw()?;
    for (i, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(*name)
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
            });
    }
    chart
        .configure_series_labels()
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    program::start(None)?;
    let (bowl_walks, ripple_walks) = (figure_1()?, figure_3()?);
    say!("Figure 1: f = 10x² + y² from (-4, 3)\n");
    say!(
        "{}\n",
        table::format(
            &["", "f at step 0", "1", "10", "30"],
            &rows(&bowl_walks, &[0, 1, 10, 30])
        )
    );
    say!("Figure 3: f = x² + 0.1 x sin(20πx) from 1.1; the global minimum is -0.00192\n");
    let at = [0, 7, 20, 100, 1000];
    say!(
        "{}\n",
        table::format(
            &["", "f at step 0", "7", "20", "100", "1000"],
            &rows(&ripple_walks, &at)
        )
    );
    std::fs::create_dir_all(&cli.out).with_context(|| cli.out.display().to_string())?;
    let path = cli.out.join("quadratic.svg");
    picture(&path, &bowl_walks, &ripple_walks)?;
    say!("picture: {}", path.display());
    anyhow::ensure!(
        bowl_walks[2].values[1] == 0.0,
        "AdaHessian should reach the minimum of Figure 1 in one step"
    );
    anyhow::ensure!(
        ripple_walks[0].values[7] < 0.02,
        "with momentum the global basin should be reached in 7 steps"
    );
    anyhow::ensure!(
        ripple_walks[1].last() > 0.05,
        "without momentum it should stay stuck"
    );
    Ok(())
}
