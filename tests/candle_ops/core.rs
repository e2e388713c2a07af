//! candle_core's operations.

use super::measure::{Row, row};
use candle_core::{DType, Device, Result, Tensor};

fn ids(values: &[u32]) -> Result<Tensor> {
    Tensor::new(values, &Device::Cpu)
}

const V: &[&[usize]] = &[&[3, 4]];
const VV: &[&[usize]] = &[&[3, 4], &[3, 4]];
const BROADCAST: &[&[usize]] = &[&[3, 4], &[1, 4]];

pub fn elementwise() -> Vec<Row> {
    vec![
        row("a + b", VV, |x| &x[0] + &x[1]),
        row("a - b", VV, |x| &x[0] - &x[1]),
        row("a * b", VV, |x| &x[0] * &x[1]),
        row("a / b", VV, |x| &x[0] / &x[1]).positive(),
        row("a * a", V, |x| &x[0] * &x[0]),
        row("broadcast_add", BROADCAST, |x| x[0].broadcast_add(&x[1])),
        row("broadcast_sub", BROADCAST, |x| x[0].broadcast_sub(&x[1])),
        row("broadcast_mul", BROADCAST, |x| x[0].broadcast_mul(&x[1])),
        row("broadcast_div", BROADCAST, |x| x[0].broadcast_div(&x[1])).positive(),
        row("maximum", VV, |x| x[0].maximum(&x[1])),
        row("minimum", VV, |x| x[0].minimum(&x[1])),
        row("broadcast_maximum", BROADCAST, |x| x[0].broadcast_maximum(&x[1])),
        row("broadcast_minimum", BROADCAST, |x| x[0].broadcast_minimum(&x[1])),
        row("pow (of positive numbers)", VV, |x| x[0].pow(&x[1])).positive(),
        row("broadcast_pow (of positive numbers)", BROADCAST, |x| x[0].broadcast_pow(&x[1])).positive(),
        row("affine", V, |x| x[0].affine(2.5, -1.0)),
        row("abs", V, |x| x[0].abs()),
        row("neg", V, |x| x[0].neg()),
        row("exp", V, |x| x[0].exp()),
        row("log", V, |x| x[0].log()).positive(),
        row("sin", V, |x| x[0].sin()),
        row("cos", V, |x| x[0].cos()),
        row("tanh", V, |x| x[0].tanh()),
        row("erf", V, |x| x[0].erf()),
        row("sqr", V, |x| x[0].sqr()),
        row("sqrt", V, |x| x[0].sqrt()).positive(),
        row("recip", V, |x| x[0].recip()).positive(),
        row("powf(3)", V, |x| x[0].powf(3.0)),
        row("powf(1) at exactly 0", &[&[1]], |x| x[0].affine(1.0, -(0.13 * 0.37))?.powf(1.0))
            .instead("the argument itself"),
        row("clamp", V, |x| x[0].clamp(-0.65, 0.65)),
        row("relu", V, |x| x[0].relu()),
        row("silu", V, |x| x[0].silu()),
        row("elu", V, |x| x[0].elu(1.3)),
        row("gelu", V, |x| x[0].gelu())
            .instead("`adahessian::nn::Activation::NewGelu`, the same tanh form, which is right to rounding; six digits are enough to train with"),
        row("gelu_erf", V, |x| x[0].gelu_erf())
            .instead("`adahessian::nn::Activation::Gelu`"),
        row("floor", V, |x| &x[0] + x[0].floor()?),
        row("round", V, |x| &x[0] + x[0].round()?),
        row("round_to", V, |x| &x[0] + x[0].round_to(0)?),
        row("sign", V, |x| &x[0] + x[0].sign()?),
        row("ceil", V, |x| &x[0] + x[0].ceil()?),
        row("to_dtype", V, |x| x[0].to_dtype(DType::F32)?.to_dtype(DType::F64)?.affine(0.0, 1.0)? * &x[0]),
        row("to_device, copy", V, |x| x[0].to_device(&Device::Cpu)?.copy()),
        row("where_cond", VV, |x| x[0].gt(&x[1])?.where_cond(&x[0].sqr()?, &x[1])),
    ]
}

pub fn sums_and_products() -> Vec<Row> {
    vec![
        row("sum", V, |x| x[0].sqr()?.sum(1)),
        row("sum_keepdim", V, |x| x[0].sqr()?.sum_keepdim(0)),
        row("sum_all", V, |x| x[0].sqr()?.sum_all()),
        row("mean", V, |x| x[0].sqr()?.mean(1)),
        row("mean_keepdim", V, |x| x[0].sqr()?.mean_keepdim(0)),
        row("mean_all", V, |x| x[0].sqr()?.mean_all()),
        row("max", V, |x| x[0].sqr()?.max(1)),
        row("max_keepdim", V, |x| x[0].sqr()?.max_keepdim(0)),
        row("max_all", V, |x| x[0].sqr()?.max_all()),
        row("min", V, |x| x[0].sqr()?.min(1)),
        row("min_keepdim", V, |x| x[0].sqr()?.min_keepdim(0)),
        row("min_all", V, |x| x[0].sqr()?.min_all()),
        row("var", V, |x| x[0].var(1)),
        row("var_keepdim", V, |x| x[0].var_keepdim(0)),
        row("log_sum_exp", V, |x| x[0].log_sum_exp(1)),
        row("cumsum", V, |x| x[0].cumsum(1)),
        row("norm", V, |x| x[0].norm()),
        row("dot", &[&[4], &[4]], |x| x[0].dot(&x[1])),
        row("mv", &[&[3, 4], &[4]], |x| x[0].mv(&x[1])),
        row("matmul", &[&[3, 4], &[4, 2]], |x| x[0].matmul(&x[1])),
        row("matmul of a transposed matrix", &[&[4, 3], &[4, 2]], |x| {
            x[0].t()?.matmul(&x[1])
        }),
        row("matmul of batches", &[&[2, 3, 2], &[2, 2, 3]], |x| {
            x[0].matmul(&x[1])
        }),
        row("broadcast_matmul", &[&[2, 3, 2], &[2, 3]], |x| {
            x[0].broadcast_matmul(&x[1])
        }),
        row(
            "matmul of a transposed batch with one broadcast",
            &[&[2, 2, 3], &[2, 3]],
            |x| {
                let rhs = x[1].broadcast_left(2)?;
                x[0].transpose(1, 2)?.matmul(&rhs)
            },
        )
        .instead("`.contiguous()` on the transposed one: candle's value itself is wrong here"),
    ]
}

pub fn shapes() -> Vec<Row> {
    vec![
        row("reshape", V, |x| x[0].sqr()?.reshape((2, 6))),
        row("flatten_all, flatten, flatten_to, flatten_from", V, |x| {
            x[0].unsqueeze(0)?
                .flatten(0, 1)?
                .flatten_to(1)?
                .unsqueeze(0)?
                .flatten_from(0)?
                .flatten_all()
        }),
        row("transpose, t", &[&[2, 3, 2]], |x| x[0].transpose(0, 2)?.t()),
        row("permute", &[&[2, 3, 2]], |x| x[0].permute((2, 0, 1))),
        row("squeeze, unsqueeze", V, |x| x[0].unsqueeze(1)?.squeeze(1)),
        row("narrow", V, |x| x[0].narrow(1, 1, 2)),
        row("chunk", V, |x| {
            let parts = x[0].chunk(2, 1)?;
            &parts[0] * &parts[1]
        }),
        row("get, get_on_dim", V, |x| {
            x[0].get(1)?.get_on_dim(0, 2)? * x[0].get(0)?.get(2)?
        }),
        row("i (IndexOp)", V, |x| {
            use candle_core::IndexOp;
            x[0].i((1.., ..2))
        }),
        row("cat", VV, |x| Tensor::cat(&[&x[0], &x[1]], 1)),
        row("stack", VV, |x| Tensor::stack(&[&x[0], &x[1]], 1)),
        row("repeat", V, |x| x[0].repeat((2, 1))),
        row("broadcast_as, expand, broadcast_left", &[&[1, 4]], |x| {
            x[0].broadcast_as((3, 4))?.expand((3, 4))?.broadcast_left(2)
        }),
        row("contiguous, force_contiguous", V, |x| {
            x[0].t()?.contiguous()?.force_contiguous()
        }),
        row("pad_with_zeros", V, |x| x[0].pad_with_zeros(1, 1, 2)),
        row("pad_with_same", V, |x| x[0].pad_with_same(1, 1, 2)),
        row("roll", V, |x| x[0].roll(1, 1)),
        row("flip", V, |x| x[0].flip(&[1])),
        row("unfold", V, |x| x[0].unfold(1, 2, 1))
            .instead("`narrow` for each window, then `stack`"),
        row("meshgrid", &[&[3], &[2]], |x| {
            let grid = Tensor::meshgrid(&[&x[0], &x[1]], false)?;
            &grid[0] * &grid[1]
        }),
    ]
}

const ONE_HOT: &str = "`adahessian::nn::index::gather`";

pub fn indices() -> Vec<Row> {
    vec![
        row("index_select", V, |x| {
            x[0].index_select(&ids(&[1, 0, 1])?, 0)
        }),
        row("embedding", V, |x| x[0].embedding(&ids(&[1, 0, 1])?)),
        row("index_add", VV, |x| {
            x[0].index_add(&ids(&[1, 0, 1])?, &x[1], 0)
        }),
        row("gather, linear after it (a plain cross entropy)", V, |x| {
            let index = Tensor::new(&[[0u32], [3], [1]], &Device::Cpu)?;
            candle_nn::ops::log_softmax(&x[0], 1)?.gather(&index, 1)
        })
        .last(),
        row(
            "gather, then nonlinear (focal loss, policy gradients)",
            V,
            |x| {
                let index = Tensor::new(&[[0u32], [3], [1]], &Device::Cpu)?;
                x[0].gather(&index, 1)?.exp()
            },
        )
        .instead(ONE_HOT),
        row(
            "gather by an index of the argument's shape",
            &[&[3, 3]],
            |x| {
                let index = Tensor::new(&[[0u32, 0, 1], [1, 1, 1], [2, 0, 1]], &Device::Cpu)?;
                x[0].gather(&index, 1)?.exp()
            },
        ),
        row(
            "gather twice by indices of the argument's shape",
            &[&[3, 3]],
            |x| {
                let index = Tensor::new(&[[0u32, 0, 1], [1, 1, 1], [2, 0, 1]], &Device::Cpu)?;
                let other = Tensor::new(&[[0u32, 2, 1], [0, 1, 2], [2, 2, 1]], &Device::Cpu)?;
                x[0].gather(&index, 1)?.exp()? * x[0].gather(&other, 1)?.sin()?
            },
        )
        .instead(ONE_HOT),
        row("scatter", &[&[3, 4], &[3, 1]], |x| {
            let index = Tensor::new(&[[0u32], [3], [1]], &Device::Cpu)?;
            x[0].scatter(&index, &x[1], 1)
        })
        .instead("`adahessian::nn::index::scatter`, or `slice_scatter`"),
        row("scatter_add", &[&[3, 4], &[3, 1]], |x| {
            let index = Tensor::new(&[[0u32], [3], [1]], &Device::Cpu)?;
            x[0].scatter_add(&index, &x[1], 1)
        })
        .instead("`adahessian::nn::index::scatter_add`, or `index_add`"),
        row(
            "scatter_add by an index of the tensor's shape",
            &[&[3, 3], &[3, 3]],
            |x| {
                let index = Tensor::new(&[[0u32, 0, 1], [1, 1, 1], [2, 0, 1]], &Device::Cpu)?;
                x[0].scatter_add(&index, &x[1], 1)
            },
        )
        .instead("`adahessian::nn::index::scatter_add`, or `index_add`"),
        row("slice_scatter, slice_scatter0", &[&[3, 4], &[3, 2]], |x| {
            x[0].slice_scatter(&x[1], 1, 1)
        }),
        row("slice_assign", &[&[3, 4], &[2, 2]], |x| {
            x[0].slice_assign(&[0..2, 1..3], &x[1])
        }),
        row("argmax, argmin, comparisons", V, |x| {
            let chosen = x[0].argmax_keepdim(1)?.to_dtype(DType::F64)?;
            x[0].broadcast_add(&chosen)? + x[0].gt(0.0)?.to_dtype(DType::F64)?
        }),
        row("sort_last_dim", V, |x| {
            Ok(x[0].contiguous()?.sort_last_dim(true)?.0)
        }),
    ]
}

const OUR_CONV: &str = "`adahessian::nn::Conv2d` (any size, stride and groups)";
const CONV1D: &str = "`adahessian::nn::Conv1d`";
const MAX_POOL: &str = "`adahessian::nn::max_pool2d` (any kernel and stride; with padding `adahessian::ops::max_pool2d`)";
const AVG_POOL: &str = "`adahessian::nn::avg_pool2d`";
const UPSAMPLE: &str = "`adahessian::nn::resize`";

pub fn convolutions() -> Vec<Row> {
    const IMAGE: &[&[usize]] = &[&[2, 2, 4, 4], &[2, 2, 3, 3]];
    vec![
        row(
            "conv1d, one sample of one channel",
            &[&[1, 1, 5], &[2, 1, 3]],
            |x| x[0].conv1d(&x[1], 1, 1, 1, 1),
        )
        .instead(CONV1D),
        row(
            "conv1d, one sample of several channels",
            &[&[1, 2, 5], &[2, 2, 3]],
            |x| x[0].conv1d(&x[1], 1, 1, 1, 1),
        )
        .instead(CONV1D),
        row(
            "conv1d of a constant of several channels",
            &[&[2, 2, 3]],
            |x| {
                let signal = Tensor::arange(0f64, 10.0, &Device::Cpu)?
                    .affine(0.3, -1.2)?
                    .reshape((1, 2, 5))?;
                signal.conv1d(&x[0], 1, 1, 1, 1)
            },
        )
        .instead(CONV1D),
        row("conv1d, several samples", &[&[3, 2, 4], &[2, 2, 3]], |x| {
            x[0].conv1d(&x[1], 1, 1, 1, 1)
        })
        .instead(CONV1D),
        row(
            "conv1d of height 1 by conv2d",
            &[&[3, 2, 4], &[2, 2, 3]],
            |x| {
                x[0].unsqueeze(2)?
                    .pad_with_zeros(3, 1, 1)?
                    .conv2d(&x[1].unsqueeze(2)?, 0, 1, 1, 1)?
                    .squeeze(2)
            },
        ),
        row("conv_transpose1d", &[&[1, 2, 3], &[2, 2, 2]], |x| {
            x[0].conv_transpose1d(&x[1], 0, 0, 1, 1, 1)
        })
        .instead("`adahessian::nn::ConvTranspose1d`"),
        row("conv2d", IMAGE, |x| x[0].conv2d(&x[1], 1, 1, 1, 1)),
        row("conv2d, stride 2", IMAGE, |x| {
            x[0].conv2d(&x[1], 1, 2, 1, 1)
        }),
        row("conv2d, dilation 2", &[&[1, 1, 5, 5], &[1, 1, 2, 2]], |x| {
            x[0].conv2d(&x[1], 0, 1, 2, 1)
        }),
        row("conv2d, groups", &[&[1, 2, 3, 3], &[2, 1, 2, 2]], |x| {
            x[0].conv2d(&x[1], 0, 1, 1, 2)
        }),
        row(
            "conv2d, stride 2 on 5 x 6",
            &[&[1, 1, 5, 6], &[1, 1, 3, 3]],
            |x| x[0].conv2d(&x[1], 1, 2, 1, 1),
        )
        .instead(OUR_CONV),
        row("conv_transpose2d", &[&[1, 2, 3, 3], &[2, 1, 2, 2]], |x| {
            x[0].conv_transpose2d(&x[1], 0, 0, 1, 1)
        }),
        row(
            "conv_transpose2d, stride 2",
            &[&[1, 1, 3, 3], &[1, 1, 2, 2]],
            |x| x[0].conv_transpose2d(&x[1], 0, 0, 2, 1),
        ),
        row("avg_pool2d(2)", &[&[1, 2, 4, 4]], |x| x[0].avg_pool2d(2)),
        row("avg_pool2d(2) on 5 x 5", &[&[1, 1, 5, 5]], |x| {
            x[0].avg_pool2d(2)
        })
        .instead(AVG_POOL),
        row(
            "avg_pool2d, stride other than the kernel",
            &[&[1, 1, 4, 4]],
            |x| x[0].avg_pool2d_with_stride(2, 1),
        )
        .instead(AVG_POOL),
        row("max_pool2d(2)", &[&[1, 2, 4, 4]], |x| x[0].max_pool2d(2)).instead(MAX_POOL),
        row(
            "max_pool2d, stride other than the kernel",
            &[&[1, 1, 5, 5]],
            |x| x[0].max_pool2d_with_stride(3, 2),
        )
        .instead(MAX_POOL),
        row("upsample_nearest1d, interpolate1d", &[&[2, 2, 3]], |x| {
            x[0].upsample_nearest1d(6)
        }),
        row("upsample_nearest2d, interpolate2d", &[&[2, 2, 2, 2]], |x| {
            x[0].upsample_nearest2d(4, 4)
        }),
        row(
            "upsample_nearest2d, its argument used elsewhere",
            &[&[1, 1, 2, 2]],
            |x| {
                let once = x[0].sqr()?;
                x[0].exp()?
                    .upsample_nearest2d(4, 4)?
                    .broadcast_mul(&once.sum_all()?)?
                    + {
                        let y = x[0].sin()?;
                        y.upsample_nearest2d(4, 4)?.broadcast_add(&y.sum_all()?)?
                    }
            },
        )
        .instead(UPSAMPLE),
        row(
            "upsample_nearest2d, two different factors",
            &[&[1, 1, 2, 2]],
            |x| x[0].upsample_nearest2d(4, 6),
        )
        .instead(UPSAMPLE),
        row(
            "upsample_nearest2d, no whole factor",
            &[&[1, 1, 2, 2]],
            |x| x[0].upsample_nearest2d(3, 3),
        )
        .instead(UPSAMPLE),
        row("upsampling by index_select", &[&[1, 1, 2, 2]], |x| {
            let twice = ids(&[0, 0, 1, 1])?;
            let y = x[0].sin()?;
            y.index_select(&twice, 2)?
                .index_select(&twice, 3)?
                .broadcast_add(&y.sum_all()?)
        }),
        row("upsample_bilinear2d", &[&[1, 1, 2, 2]], |x| {
            x[0].upsample_bilinear2d(4, 4, false)
        })
        .instead("`adahessian::nn::resize::upsample_bilinear2d`"),
    ]
}
