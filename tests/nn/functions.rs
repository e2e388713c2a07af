//! The functions.

use super::case::{Case, case};
use adahessian::nn::{self, Activation, Module, index, ops, resize, rotary_emb};
use candle_core::{D, Device, Tensor};
use candle_nn as theirs;

const X: &[usize] = &[3, 4];

fn activation(name: &'static str, ours: Activation, candles: theirs::Activation) -> Case {
    case(name, X, move |_, x| ours.forward(x)).like(move |_, x| candles.forward(x))
}

pub fn pointwise() -> Vec<Case> {
    use theirs::Activation as Candle;
    vec![
        activation("gelu", Activation::Gelu, Candle::Gelu),
        activation("relu", Activation::Relu, Candle::Relu),
        activation("relu2", Activation::Relu2, Candle::Relu2),
        activation("relu6", Activation::Relu6, Candle::Relu6),
        activation("silu", Activation::Silu, Candle::Silu),
        activation("sigmoid", Activation::Sigmoid, Candle::Sigmoid),
        activation("hard_sigmoid", Activation::HardSigmoid, Candle::HardSigmoid),
        activation("swiglu", Activation::Swiglu, Candle::Swiglu),
        activation("swish", Activation::Swish, Candle::Swish),
        activation("mish", Activation::Mish, Candle::Mish),
        activation("hard_swish", Activation::HardSwish, Candle::HardSwish),
        activation("elu", Activation::Elu(0.7), Candle::Elu(0.7)),
        activation(
            "leaky_relu",
            Activation::LeakyRelu(0.1),
            Candle::LeakyRelu(0.1),
        ),
        activation("gelu_new", Activation::NewGelu, Candle::NewGelu),
        activation(
            "gelu_pytorch_tanh",
            Activation::GeluPytorchTanh,
            Candle::GeluPytorchTanh,
        ),
        case("ops::selu", X, |_, x| ops::selu(x, 1.6733, 1.0507)),
        case("ops::softplus", X, |_, x| ops::softplus(x)),
        case("ops::silu, ops::swiglu", X, |_, x| {
            ops::silu(&ops::swiglu(x)?)
        }),
        case("ops::softmax", X, |_, x| ops::softmax(x, 0)).like(|_, x| theirs::ops::softmax(x, 0)),
        case("ops::softmax_last_dim", X, |_, x| ops::softmax_last_dim(x))
            .like(|_, x| theirs::ops::softmax_last_dim(x)),
        case("ops::log_softmax", X, |_, x| ops::log_softmax(x, D::Minus1))
            .like(|_, x| theirs::ops::log_softmax(x, D::Minus1)),
        case("ops::layer_norm", X, |vb, x| {
            ops::layer_norm(x, &vb.get(4, "alpha")?, &vb.get(4, "beta")?, 1e-5)
        })
        .like(|vb, x| {
            theirs::ops::layer_norm_slow(x, &vb.get(4, "alpha")?, &vb.get(4, "beta")?, 1e-5)
        }),
        case("ops::rms_norm", X, |vb, x| {
            ops::rms_norm(x, &vb.get(4, "alpha")?, 1e-5)
        })
        .like(|vb, x| theirs::ops::rms_norm_slow(x, &vb.get(4, "alpha")?, 1e-5)),
    ]
}

fn angles(x: &Tensor, positions: usize) -> candle_core::Result<(Tensor, Tensor)> {
    let angles = Tensor::arange(0.0, 2.0 * positions as f64, x.device())?;
    let angles = (angles.reshape((positions, 2))? * 0.7)?;
    Ok((
        angles.cos()?.to_dtype(x.dtype())?,
        angles.sin()?.to_dtype(x.dtype())?,
    ))
}

pub fn images() -> Vec<Case> {
    const IMAGE: &[usize] = &[2, 4, 5, 6];
    const HEADS: &[usize] = &[2, 2, 3, 4];
    vec![
        case("max_pool2d", IMAGE, |_, x| nn::max_pool2d(x, 2)).like(|_, x| x.max_pool2d(2)),
        case("max_pool2d, two sides", IMAGE, |_, x| {
            nn::max_pool2d(x, (3, 2))
        })
        .like(|_, x| x.max_pool2d((3, 2))),
        case("max_pool2d with a stride", IMAGE, |_, x| {
            nn::pooling::max_pool2d_with_stride(x, (3, 3), (2, 1))
        })
        .like(|_, x| x.max_pool2d_with_stride((3, 3), (2, 1))),
        case("MaxPool2d with a border", IMAGE, |_, x| {
            nn::MaxPool2d::new(3, 2, 1).forward(x)
        }),
        case("avg_pool2d", IMAGE, |_, x| nn::avg_pool2d(x, 2)).like(|_, x| x.avg_pool2d(2)),
        case("avg_pool2d with a stride", IMAGE, |_, x| {
            nn::pooling::avg_pool2d_with_stride(x, (3, 2), (1, 2))
        })
        .like(|_, x| x.avg_pool2d_with_stride((3, 2), (1, 2))),
        case("AvgPool2d with a border", IMAGE, |_, x| {
            nn::AvgPool2d::new(3, 2, 1).forward(x)
        }),
        case("global_avg_pool2d", IMAGE, |_, x| {
            nn::GlobalAvgPool2d.forward(x)
        })
        .like(|_, x| x.mean((2, 3))),
        case("adaptive_avg_pool2d", IMAGE, |_, x| {
            nn::adaptive_avg_pool2d(x, (2, 4))
        }),
        case("adaptive_avg_pool2d of whole windows", IMAGE, |_, x| {
            nn::AdaptiveAvgPool2d { size: (5, 3) }.forward(x)
        })
        .like(|_, x| x.avg_pool2d((1, 2))),
        case("upsample_nearest1d", &[2, 3, 4], |_, x| {
            resize::upsample_nearest1d(x, 7)
        })
        .like(|_, x| x.upsample_nearest1d(7)),
        case("upsample_nearest2d", IMAGE, |_, x| {
            resize::upsample_nearest2d(x, 10, 9)
        })
        .like(|_, x| x.upsample_nearest2d(10, 9)),
        case("upsample_bilinear2d", IMAGE, |_, x| {
            resize::upsample_bilinear2d(x, 8, 7, false)
        })
        .like(|_, x| x.upsample_bilinear2d(8, 7, false)),
        case("upsample_bilinear2d, corners", IMAGE, |_, x| {
            resize::upsample_bilinear2d(x, 8, 3, true)
        })
        .like(|_, x| x.upsample_bilinear2d(8, 3, true)),
        case("ops::pixel_shuffle", IMAGE, |_, x| ops::pixel_shuffle(x, 2))
            .like(|_, x| theirs::ops::pixel_shuffle(x, 2)),
        case("ops::pixel_unshuffle", &[2, 3, 4, 6], |_, x| {
            ops::pixel_unshuffle(x, 2)
        })
        .like(|_, x| theirs::ops::pixel_unshuffle(x, 2)),
        case("ops::replication_pad2d", IMAGE, |_, x| {
            ops::replication_pad2d(x, 1)
        })
        .like(|_, x| theirs::ops::replication_pad2d(x, 1)),
        case("ops::replication_pad2d, wide", IMAGE, |_, x| {
            ops::replication_pad2d(x, 3)
        }),
        case("rope", HEADS, |_, x| {
            let (cos, sin) = angles(x, 5)?;
            rotary_emb::rope(x, &cos, &sin)
        })
        .like(|_, x| {
            let (cos, sin) = angles(x, 5)?;
            theirs::rotary_emb::rope_slow(x, &cos, &sin)
        }),
        case("rope_i", HEADS, |_, x| {
            let (cos, sin) = angles(x, 5)?;
            rotary_emb::rope_i(x, &cos, &sin)
        })
        .like(|_, x| {
            let (cos, sin) = angles(x, 5)?;
            theirs::rotary_emb::rope_i_slow(x, &cos, &sin)
        }),
        case(
            "rope_thd, angles of its own for every row",
            HEADS,
            |_, x| {
                let (cos, sin) = angles(x, 6)?;
                let (cos, sin) = (cos.reshape((2, 3, 2))?, sin.reshape((2, 3, 2))?);
                rotary_emb::rope_thd(&x.transpose(1, 2)?, &cos, &sin)
            },
        )
        .like(|_, x| {
            let (cos, sin) = angles(x, 6)?;
            let (cos, sin) = (cos.reshape((2, 3, 2))?, sin.reshape((2, 3, 2))?);
            theirs::rotary_emb::rope(x, &cos, &sin)?.transpose(1, 2)
        }),
    ]
}

fn index() -> candle_core::Result<Tensor> {
    Tensor::new(&[[3u32, 0], [1, 1], [0, 2]], &Device::Cpu)
}

/// Of a tensor [3, 3].
pub fn two_indices() -> candle_core::Result<(Tensor, Tensor)> {
    let one = Tensor::new(&[[0u32, 0, 1], [1, 1, 1], [2, 0, 1]], &Device::Cpu)?;
    let other = Tensor::new(&[[0u32, 2, 1], [0, 1, 2], [2, 2, 1]], &Device::Cpu)?;
    Ok((one, other))
}

pub fn indices() -> Vec<Case> {
    vec![
        case("gather", X, |_, x| index::gather(x, &index()?, 1))
            .like(|_, x| x.gather(&index()?, 1)),
        case("gather along the first dimension", &[4, 3, 2], |_, x| {
            index::gather(x, &index()?.reshape((1, 3, 2))?, 0)
        })
        .like(|_, x| x.gather(&index()?.reshape((1, 3, 2))?, 0)),
        case("gather twice by indices of its shape", &[3, 3], |_, x| {
            let (one, other) = two_indices()?;
            index::gather(x, &one, 1)?.exp()? * index::gather(x, &other, 1)?.sin()?
        }),
        case("scatter_add", X, |vb, x| {
            index::scatter_add(x, &index()?, &vb.get((3, 2), "source")?, D::Minus1)
        })
        .like(|vb, x| x.scatter_add(&index()?, &vb.get((3, 2), "source")?, D::Minus1)),
        case("scatter", X, |vb, x| {
            // Every entry of the source is used: no place is named twice.
            let index = Tensor::new(&[[3u32, 0], [1, 2], [0, 2]], x.device())?;
            index::scatter(x, &index, &vb.get((3, 2), "source")?, 1)
        })
        .like(|vb, x| {
            let index = Tensor::new(&[[3u32, 0], [1, 2], [0, 2]], x.device())?;
            x.scatter(&index, &vb.get((3, 2), "source")?, 1)
        }),
    ]
}

fn classes() -> candle_core::Result<Tensor> {
    Tensor::new(&[0u32, 3, 1], &Device::Cpu)
}

pub fn losses() -> Vec<Case> {
    vec![
        case("loss::cross_entropy", X, |_, x| {
            nn::loss::cross_entropy(x, &classes()?)
        })
        .like(|_, x| theirs::loss::cross_entropy(x, &classes()?)),
        case("loss::nll", X, |_, x| {
            nn::loss::nll(&ops::log_softmax(x, 1)?, &classes()?)
        })
        .like(|_, x| theirs::loss::nll(&theirs::ops::log_softmax(x, 1)?, &classes()?)),
        case("loss::mse", X, |vb, x| {
            nn::loss::mse(x, &vb.get((3, 4), "target")?)
        })
        .like(|vb, x| theirs::loss::mse(x, &vb.get((3, 4), "target")?)),
        case("loss::binary_cross_entropy_with_logit", X, |vb, x| {
            nn::loss::binary_cross_entropy_with_logit(x, &vb.get((3, 4), "target")?)
        })
        .like(|vb, x| theirs::loss::binary_cross_entropy_with_logit(x, &vb.get((3, 4), "target")?)),
        case("loss::huber", X, |vb, x| {
            nn::loss::huber(x, &vb.get((3, 4), "target")?, 0.9)
        })
        .like(|vb, x| theirs::loss::huber(x, &vb.get((3, 4), "target")?, 0.9)),
        case("a focal loss", X, |_, x| {
            let chosen = index::gather(&ops::softmax(x, 1)?, &classes()?.unsqueeze(1)?, 1)?;
            (chosen.affine(-1.0, 1.0)?.sqr()? * chosen.log()?.neg()?)?.mean_all()
        }),
    ]
}
