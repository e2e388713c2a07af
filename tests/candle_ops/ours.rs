//! What this library has in place of operations that are not right.

use super::measure::{Row, row};
use adahessian::ops::{self, Activation, Convolution, Dropout, Window};
use candle_core::{Result, Tensor};

const PLAIN: Activation = Activation::Identity;

type Pool = fn(&Tensor, &Window) -> adahessian::Result<Tensor>;

fn pooled(x: &Tensor, pool: Pool, kernel: usize, stride: usize) -> Result<Tensor> {
    let window = Window {
        kernel,
        stride,
        padding: 0,
    };
    Ok(pool(x, &window)?)
}

fn conv(x: &[Tensor], convolution: Convolution) -> Result<Tensor> {
    Ok(ops::conv2d(&x[0], &x[1], None, &convolution)?)
}

fn linear(x: &Tensor, of: &[Tensor], groups: usize, activation: Activation) -> Result<Tensor> {
    Ok(ops::linear(x, &of[1], Some(&of[2]), groups, activation)?)
}

pub fn rows() -> Vec<Row> {
    vec![
        row("ops::activation, gelu", &[&[3, 4]], |x| {
            Ok(ops::activation(&x[0], Activation::Gelu)?)
        }),
        row("ops::layer_norm", &[&[3, 4], &[4], &[4]], |x| {
            Ok(ops::layer_norm(&x[0], &x[1], &x[2], 1e-5)?)
        }),
        row("ops::linear", &[&[2, 3, 2], &[3, 2], &[3]], |x| {
            linear(&x[0], x, 1, PLAIN)
        }),
        row(
            "ops::linear, batches that are transposed",
            &[&[2, 2, 3], &[3, 2], &[3]],
            |x| linear(&x[0].transpose(1, 2)?, x, 1, PLAIN),
        ),
        row(
            "ops::linear in groups (a conv1d of one position)",
            &[&[2, 3, 4], &[4, 2], &[4]],
            |x| linear(&x[0], x, 2, PLAIN),
        ),
        row("ops::linear, gelu", &[&[2, 3, 2], &[3, 2], &[3]], |x| {
            linear(&x[0], x, 1, Activation::Gelu)
        }),
        row(
            "ops::attention",
            &[&[1, 2, 4], &[1, 2, 4], &[1, 2, 4]],
            |x| {
                let none = Dropout::none();
                Ok(ops::attention([&x[0], &x[1], &x[2]], 2, None, true, &none)?)
            },
        ),
        row("ops::cross_entropy", &[&[3, 4]], |x| {
            let labels = Tensor::new(&[0u32, 3, 1], x[0].device())?;
            Ok(ops::cross_entropy(&x[0], &labels, 0.1, None)?)
        }),
        row(
            "ops::conv2d, stride 2 on 5 x 6",
            &[&[1, 1, 5, 6], &[1, 1, 3, 3]],
            |x| conv(x, Convolution::new(2, 1)),
        ),
        row(
            "ops::conv2d, a height of 1",
            &[&[2, 2, 1, 4], &[2, 2, 1, 3]],
            |x| conv(x, Convolution::new(1, 0)),
        ),
        row("ops::max_pool2d(2)", &[&[1, 1, 4, 4]], |x| {
            pooled(&x[0], ops::max_pool2d, 2, 2)
        }),
        row(
            "ops::max_pool2d, 3 x 3 with stride 2",
            &[&[1, 1, 5, 5]],
            |x| pooled(&x[0], ops::max_pool2d, 3, 2),
        ),
        row(
            "ops::avg_pool2d, 2 x 2 with stride 1",
            &[&[1, 1, 4, 4]],
            |x| pooled(&x[0], ops::avg_pool2d, 2, 1),
        ),
    ]
}
