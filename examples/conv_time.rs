//! How fast the convolutions are: every shape of ResNet-20 and ResNet-18, by method, forward and
//! forward with backward, in billions of products a second, beside a plain product of matrices.

use adahessian::engine::Handle;
use adahessian::ops::{Convolution, Method, conv2d};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use clap::Parser;
use common::table;
use std::time::Instant;

/// Billions of multiplications with addition a second of each convolution, by method
#[derive(Parser)]
struct Cli {
    /// Images a batch
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Measurements, of which the fastest counts
    #[arg(long, default_value_t = 3)]
    repeats: usize,
}

/// Inputs, outputs, height and width, kernel, stride.
const SHAPES: [[usize; 5]; 16] = [
    [3, 16, 32, 3, 1],
    [16, 16, 32, 3, 1],
    [16, 32, 32, 3, 2],
    [16, 32, 32, 1, 2],
    [32, 32, 16, 3, 1],
    [32, 64, 16, 3, 2],
    [64, 64, 8, 3, 1],
    [3, 64, 64, 7, 2],
    [64, 64, 16, 3, 1],
    [64, 128, 16, 3, 2],
    [128, 128, 8, 3, 1],
    [128, 256, 8, 3, 2],
    [256, 256, 4, 3, 1],
    [256, 512, 4, 3, 2],
    [512, 512, 2, 3, 1],
    [256, 256, 14, 3, 1],
];

fn main() -> Result<()> {
    let cli = Cli::parse();
    let header = [
        "in",
        "out",
        "size",
        "kernel",
        "stride",
        "views",
        "columns",
        "views +b",
        "columns +b",
    ];
    let mut rows = Vec::new();
    for shape in SHAPES {
        let mut row: Vec<String> = shape.iter().map(usize::to_string).collect();
        for backward in [false, true] {
            for method in [Method::Views, Method::Columns] {
                row.push(format!("{:.1}", speed(&cli, shape, method, backward)?));
            }
        }
        rows.push(row);
    }
    println!("{}", table::format(&header, &rows));
    println!(
        "a product of two 1024 x 1024 matrices: {:.1}",
        product(&cli)?
    );
    Ok(())
}

/// 10⁹ products a second; forward and backward together have three times the forward's.
fn speed(cli: &Cli, shape: [usize; 5], method: Method, backward: bool) -> Result<f64> {
    let [inputs, outputs, size, kernel, stride] = shape;
    let conv = Convolution {
        method,
        ..Convolution::new(stride, kernel / 2)
    };
    let device = Device::Cpu;
    let x = Tensor::randn(0f32, 1.0, (cli.batch_size, inputs, size, size), &device)?;
    let w = Var::from_tensor(&Tensor::randn(
        0f32,
        1.0,
        (outputs, inputs, kernel, kernel),
        &device,
    )?)?;
    let x = Var::from_tensor(&x)?;
    let seconds = fastest(cli.repeats, || {
        let (x, w) = match backward {
            true => (x.as_tensor().clone(), w.as_tensor().clone()),
            false => (x.as_detached_tensor(), w.as_detached_tensor()),
        };
        let y = conv2d(&Handle::enter(&x)?, &w, None, &conv)?;
        if backward {
            y.exit()?.backward()?;
        }
        Ok(())
    })?;
    let (oh, ow) = conv.output_size((size, size), (kernel, kernel))?;
    let products = cli.batch_size * outputs * oh * ow * inputs * kernel * kernel;
    Ok(products as f64 * if backward { 3.0 } else { 1.0 } / seconds / 1e9)
}

fn product(cli: &Cli) -> Result<f64> {
    let a = Tensor::ones((1024, 1024), DType::F32, &Device::Cpu)?;
    let seconds = fastest(cli.repeats, || Ok(a.matmul(&a).map(drop)?))?;
    Ok(f64::from(1 << 30) / seconds / 1e9)
}

fn fastest(repeats: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let mut best = f64::INFINITY;
    for _ in 0..repeats.max(1) {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
