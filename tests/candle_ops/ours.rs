//! What this library has in place of operations that are not right.

use super::measure::{Row, row};
use adahessian::ops::vision::{self, Convolution, Pooling};
use adahessian::ops::{self, Activation, Dropout, Handle};
use candle_core::{Result, Tensor};

fn pooled(
    x: &Tensor,
    pool: fn(&Handle, &Pooling) -> adahessian::Result<Handle>,
    kernel: usize,
    stride: usize,
) -> Result<Tensor> {
    let pooling = Pooling {
        kernel,
        stride,
        padding: 0,
    };
    Ok(pool(&Handle::enter(x)?, &pooling)?.exit()?)
}

fn conv(x: &[Tensor], convolution: Convolution) -> Result<Tensor> {
    let x0 = Handle::enter(&x[0])?;
    Ok(vision::conv2d(&x0, &x[1], None, &convolution)?.exit()?)
}

pub fn rows() -> Vec<Row> {
    vec![
        row("ops::gelu", &[&[3, 4]], |x| Ok(ops::gelu(&x[0])?)),
        row("ops::layer_norm", &[&[3, 4], &[4], &[4]], |x| {
            Ok(ops::layer_norm(&x[0], &x[1], &x[2], 1e-5)?)
        }),
        row("ops::text::layer_norm", &[&[3, 4], &[4], &[4]], |x| {
            let h = Handle::enter(&x[0])?;
            Ok(ops::text::layer_norm(&h, None, &Dropout::none(), &x[1], &x[2], 1e-5)?.exit()?)
        }),
        row("ops::linear", &[&[2, 3, 2], &[3, 2], &[3]], |x| {
            Ok(ops::linear(&x[0], &x[1], Some(&x[2]))?)
        }),
        row(
            "ops::linear, batches that are transposed",
            &[&[2, 2, 3], &[3, 2], &[3]],
            |x| Ok(ops::linear(&x[0].transpose(1, 2)?, &x[1], Some(&x[2]))?),
        ),
        row(
            "ops::grouped_linear (a conv1d of one position)",
            &[&[2, 3, 4], &[4, 2], &[4]],
            |x| Ok(ops::grouped_linear(&x[0], &x[1], Some(&x[2]), 2)?),
        ),
        row("ops::text::linear", &[&[2, 3, 2], &[3, 2], &[3]], |x| {
            let h = Handle::enter(&x[0])?;
            Ok(ops::text::linear(&h, &x[1], Some(&x[2]), 1, Activation::Gelu)?.exit()?)
        }),
        row(
            "ops::attention",
            &[&[1, 2, 2, 2], &[1, 2, 2, 2], &[1, 2, 2, 2]],
            |x| {
                Ok(ops::attention(
                    &x[0],
                    &x[1],
                    &x[2],
                    None,
                    true,
                    &Dropout::none(),
                )?)
            },
        ),
        row("ops::cross_entropy", &[&[3, 4]], |x| {
            let labels = Tensor::new(&[0u32, 3, 1], x[0].device())?;
            Ok(ops::cross_entropy(&x[0], &labels, 0.1, None)?)
        }),
        row(
            "ops::vision::conv2d, stride 2 on 5 x 6",
            &[&[1, 1, 5, 6], &[1, 1, 3, 3]],
            |x| conv(x, Convolution::new(2, 1)),
        ),
        row(
            "ops::vision::conv2d, a height of 1",
            &[&[2, 2, 1, 4], &[2, 2, 1, 3]],
            |x| conv(x, Convolution::new(1, 0)),
        ),
        row("ops::vision::max_pool2d(2)", &[&[1, 1, 4, 4]], |x| {
            pooled(&x[0], vision::max_pool2d, 2, 2)
        }),
        row(
            "ops::vision::max_pool2d, 3 x 3 with stride 2",
            &[&[1, 1, 5, 5]],
            |x| pooled(&x[0], vision::max_pool2d, 3, 2),
        ),
        row(
            "ops::vision::avg_pool2d, 2 x 2 with stride 1",
            &[&[1, 1, 4, 4]],
            |x| pooled(&x[0], vision::avg_pool2d, 2, 1),
        ),
    ]
}
