//! candle_nn's operations and layers.

use super::measure::{Row, row};
use candle_core::{D, Device, Module, ModuleT, Result, Tensor, Var};
use candle_nn::rnn::RNN;
use candle_nn::{
    Activation, BatchNorm, Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Embedding, GroupNorm,
    LayerNorm, Linear, PReLU, RmsNorm, loss, ops, rotary_emb,
};

const V: &[&[usize]] = &[&[3, 4]];
const NORM: &[&[usize]] = &[&[3, 4], &[4], &[4]];
const RMS: &[&[usize]] = &[&[3, 4], &[4]];
const IMAGE: &[&[usize]] = &[&[2, 4, 2, 2], &[4], &[4]];

fn targets() -> Result<Tensor> {
    Tensor::new(&[0u32, 3, 1], &Device::Cpu)
}

fn activation(kind: Activation, x: &[Tensor]) -> Result<Tensor> {
    kind.forward(&x[0])
}

pub fn activations() -> Vec<Row> {
    const GELU: &str = "`adahessian::nn::Activation::Gelu`; six digits are enough to train with";
    vec![
        row("ops::sigmoid", V, |x| ops::sigmoid(&x[0])),
        row("ops::hard_sigmoid", V, |x| ops::hard_sigmoid(&x[0])),
        row("ops::silu", V, |x| ops::silu(&x[0])),
        row("ops::swiglu", V, |x| ops::swiglu(&x[0])),
        row("ops::mish", V, |x| ops::mish(&x[0])),
        row("ops::leaky_relu", V, |x| ops::leaky_relu(&x[0], 0.1)),
        row("ops::selu", V, |x| ops::selu(&Tensor::cat(&[&x[0], &x[0].neg()?], 0)?, 1.67, 1.05))
            .positive()
            .f32(),
        row("PReLU", &[&[3, 4], &[4]], |x| PReLU::new(x[1].clone(), false).forward(&x[0])),
        row("Activation::Gelu", V, |x| activation(Activation::Gelu, x)).instead(GELU),
        row("Activation::NewGelu, GeluPytorchTanh", V, |x| {
            activation(Activation::NewGelu, x)? + activation(Activation::GeluPytorchTanh, x)?
        })
        .instead("`adahessian::nn::Activation::NewGelu`, the same tanh form"),
        row("Activation::Relu, Relu2, Relu6", V, |x| {
            let all = (activation(Activation::Relu, x)? + activation(Activation::Relu2, x)?)?;
            all + activation(Activation::Relu6, x)?
        }),
        row("Activation::Silu, Swish, Sigmoid, HardSigmoid, Swiglu, Mish, HardSwish, Elu, LeakyRelu", V, |x| {
            let mut all = activation(Activation::Swiglu, x)?.repeat((1, 2))?;
            for kind in [
                Activation::Silu,
                Activation::Swish,
                Activation::Sigmoid,
                Activation::HardSigmoid,
                Activation::Mish,
                Activation::HardSwish,
                Activation::Elu(0.7),
                Activation::LeakyRelu(0.1),
            ] {
                all = (all + kind.forward(&x[0])?)?;
            }
            Ok(all)
        }),
        row("ops::softmax", V, |x| ops::softmax(&x[0], D::Minus1)),
        row("ops::log_softmax", V, |x| ops::log_softmax(&x[0], D::Minus1)),
        row("ops::softmax_last_dim", V, |x| ops::softmax_last_dim(&x[0]))
            .instead("`adahessian::nn::ops::softmax_last_dim`; `adahessian::ops::attention` for a whole attention"),
        row("y * ops::softmax_last_dim(y)", V, |x| {
            let y = x[0].exp()?;
            &y * ops::softmax_last_dim(&y)?
        })
        .instead("`adahessian::nn::ops::softmax_last_dim`"),
    ]
}

pub fn norms() -> Vec<Row> {
    const LAYER_NORM: &str = "`adahessian::nn::LayerNorm`, or `candle_nn::ops::layer_norm_slow`";
    const RMS_NORM: &str = "`adahessian::nn::RmsNorm`, or `RmsNorm::forward_diff`";
    vec![
        row("LayerNorm", NORM, |x| {
            LayerNorm::new(x[1].clone(), x[2].clone(), 1e-5).forward(&x[0])
        })
        .f32()
        .instead(LAYER_NORM),
        row("x + LayerNorm(x)", NORM, |x| {
            &x[0] + LayerNorm::new(x[1].clone(), x[2].clone(), 1e-5).forward(&x[0].exp()?)?
        })
        .f32()
        .instead(LAYER_NORM),
        row("LayerNorm in f64", NORM, |x| {
            LayerNorm::new(x[1].clone(), x[2].clone(), 1e-5).forward(&x[0])
        })
        .instead(LAYER_NORM),
        row("LayerNorm without bias (layer_norm_no_bias)", RMS, |x| {
            LayerNorm::new_no_bias(x[1].clone(), 1e-5).forward(&x[0])
        }),
        row("ops::layer_norm", NORM, |x| {
            ops::layer_norm(&x[0], &x[1], &x[2], 1e-5)
        })
        .f32()
        .instead(LAYER_NORM),
        row("ops::layer_norm_slow", NORM, |x| {
            ops::layer_norm_slow(&x[0], &x[1], &x[2], 1e-5)
        }),
        row("RmsNorm", RMS, |x| {
            RmsNorm::new(x[1].clone(), 1e-5).forward(&x[0])
        })
        .f32()
        .instead(RMS_NORM),
        row("RmsNorm::forward_diff", RMS, |x| {
            RmsNorm::new(x[1].clone(), 1e-5).forward_diff(&x[0])
        }),
        row("ops::rms_norm", RMS, |x| ops::rms_norm(&x[0], &x[1], 1e-5))
            .f32()
            .instead(RMS_NORM),
        row("ops::rms_norm_slow", RMS, |x| {
            ops::rms_norm_slow(&x[0], &x[1], 1e-5)
        }),
        row("GroupNorm", IMAGE, |x| {
            GroupNorm::new(x[1].clone(), x[2].clone(), 4, 2, 1e-5)?.forward(&x[0])
        }),
        row("BatchNorm, training", IMAGE, |x| {
            batch_norm(x)?.forward_train(&x[0])
        }),
        row("BatchNorm, evaluation", IMAGE, |x| {
            batch_norm(x)?.forward_t(&x[0], false)
        }),
    ]
}

fn batch_norm(x: &[Tensor]) -> Result<BatchNorm> {
    let (mean, variance) = (x[1].zeros_like()?, x[1].ones_like()?);
    let (mean, variance) = (Var::from_tensor(&mean)?, Var::from_tensor(&variance)?);
    BatchNorm::new(
        4,
        mean.as_tensor().clone(),
        variance.as_tensor().clone(),
        x[1].clone(),
        x[2].clone(),
        1e-5,
    )
}

fn angles(x: &Tensor, positions: usize, width: usize) -> Result<(Tensor, Tensor)> {
    let count = positions * width;
    let angles = Tensor::arange(0f64, count as f64, &Device::Cpu)?.affine(0.3, 0.1)?;
    let angles = angles.reshape((positions, width))?.to_dtype(x.dtype())?;
    Ok((angles.cos()?, angles.sin()?))
}

pub fn positions() -> Vec<Row> {
    const X: &[&[usize]] = &[&[1, 2, 3, 4]];
    const SLOW: &str = "`adahessian::nn::rotary_emb::rope`";
    vec![
        row("rotary_emb::rope", X, |x| {
            let (cos, sin) = angles(&x[0], 3, 2)?;
            rotary_emb::rope(&x[0], &cos, &sin)
        })
        .instead(SLOW),
        row("rotary_emb::rope_slow", X, |x| {
            let (cos, sin) = angles(&x[0], 3, 2)?;
            rotary_emb::rope_slow(&x[0], &cos, &sin)
        }),
        row("rotary_emb::rope_i", X, |x| {
            let (cos, sin) = angles(&x[0], 3, 2)?;
            rotary_emb::rope_i(&x[0], &cos, &sin)
        })
        .instead("`adahessian::nn::rotary_emb::rope_i`"),
        row("rotary_emb::rope_i_slow", X, |x| {
            let (cos, sin) = angles(&x[0], 3, 2)?;
            rotary_emb::rope_i_slow(&x[0], &cos, &sin)
        }),
        row("rotary_emb::rope_thd", X, |x| {
            let (cos, sin) = angles(&x[0], 2, 2)?;
            rotary_emb::rope_thd(&x[0], &cos, &sin)
        })
        .instead("`adahessian::nn::rotary_emb::rope_thd`"),
    ]
}

pub fn layers() -> Vec<Row> {
    const OUR_LINEAR: &str = "`.contiguous()` on the input, or `adahessian::nn::Linear`: candle's value itself is \
                              wrong here";
    const CONV1D: &str = "as `conv1d` of tensors";
    const LINEAR: &[&[usize]] = &[&[2, 3, 2], &[3, 2], &[3]];
    vec![
        row("Linear", &[&[3, 4], &[2, 4], &[2]], |x| {
            Linear::new(x[1].clone(), Some(x[2].clone())).forward(&x[0])
        }),
        row("Linear, batches", LINEAR, |x| {
            Linear::new(x[1].clone(), Some(x[2].clone())).forward(&x[0])
        }),
        row(
            "Linear, batches that are transposed",
            &[&[2, 2, 3], &[3, 2], &[3]],
            |x| Linear::new(x[1].clone(), Some(x[2].clone())).forward(&x[0].transpose(1, 2)?),
        )
        .instead(OUR_LINEAR),
        row("Embedding", V, |x| {
            let ids = Tensor::new(&[[0u32, 2], [2, 1]], &Device::Cpu)?;
            Embedding::new(x[0].clone(), 4).forward(&ids)
        }),
        row("Conv1d, several samples", &[&[3, 2, 4], &[2, 2, 3]], |x| {
            let config = Conv1dConfig {
                padding: 1,
                ..Default::default()
            };
            Conv1d::new(x[1].clone(), None, config).forward(&x[0])
        })
        .instead(CONV1D),
        row("Conv2d", &[&[1, 2, 3, 3], &[2, 2, 2, 2], &[2]], |x| {
            Conv2d::new(x[1].clone(), Some(x[2].clone()), Conv2dConfig::default()).forward(&x[0])
        }),
        row("LSTM", &[&[1, 2, 2], &[8, 2], &[8, 2], &[8]], |x| {
            recurrent(x, true)
        }),
        row("GRU", &[&[1, 2, 2], &[6, 2], &[6, 2], &[6]], |x| {
            recurrent(x, false)
        }),
        row("ops::pixel_shuffle", &[&[1, 4, 2, 2]], |x| {
            ops::pixel_shuffle(&x[0], 2)
        }),
        row("ops::pixel_unshuffle", &[&[1, 1, 4, 4]], |x| {
            ops::pixel_unshuffle(&x[0], 2)
        }),
        row("ops::replication_pad2d", &[&[1, 1, 2, 2]], |x| {
            ops::replication_pad2d(&x[0], 1)
        }),
        row(
            "attention by matmul and softmax",
            &[&[1, 2, 3], &[1, 2, 3], &[1, 2, 3]],
            |x| ops::softmax(&x[0].matmul(&x[1].t()?)?, D::Minus1)?.matmul(&x[2]),
        ),
        row(
            "attention::flash_attn_varlen_unfused",
            &[&[2, 1, 3], &[2, 1, 3], &[2, 1, 3]],
            |x| {
                let lengths = Tensor::new(&[2u32], &Device::Cpu)?;
                candle_nn::attention::varlen::flash_attn_varlen_unfused(
                    &x[0], &x[1], &x[2], None, &lengths, &lengths, 2, 2, 1.0, true, None, None,
                )
            },
        )
        .f32()
        .instead("`adahessian::nn::MultiHeadAttention`, or `adahessian::nn::ops::sdpa`"),
        row(
            "attention::flash_attn (CPU)",
            &[&[1, 2, 1, 3], &[1, 2, 1, 3], &[1, 2, 1, 3]],
            |x| {
                let mask = candle_nn::attention::AttnMask::None;
                candle_nn::attention::flash_attn::<f32>(&x[0], &x[1], &x[2], 1.0, mask, None, None)
            },
        )
        .f32()
        .instead("`adahessian::nn::MultiHeadAttention`, or `adahessian::nn::ops::sdpa`"),
    ]
}

/// Two steps of a recurrent layer on given weights: input, hidden, bias (of both parts).
fn recurrent(x: &[Tensor], lstm: bool) -> Result<Tensor> {
    let tensors = [
        ("weight_ih_l0", &x[1]),
        ("weight_hh_l0", &x[2]),
        ("bias_ih_l0", &x[3]),
        ("bias_hh_l0", &x[3]),
    ];
    let tensors = tensors
        .into_iter()
        .map(|(name, t)| (name.to_string(), t.clone()))
        .collect();
    let builder = candle_nn::VarBuilder::from_tensors(tensors, x[0].dtype(), &Device::Cpu);
    match lstm {
        true => {
            let layer = candle_nn::lstm(2, 2, Default::default(), builder)?;
            layer.states_to_tensor(&layer.seq(&x[0])?)
        }
        false => {
            let layer = candle_nn::gru(2, 2, Default::default(), builder)?;
            layer.states_to_tensor(&layer.seq(&x[0])?)
        }
    }
}

pub fn losses() -> Vec<Row> {
    vec![
        row("loss::cross_entropy", V, |x| {
            loss::cross_entropy(&x[0], &targets()?)
        })
        .last(),
        row("loss::cross_entropy, then nonlinear (focal loss)", V, |x| {
            loss::cross_entropy(&x[0], &targets()?)?.exp()
        })
        .instead("`adahessian::nn::loss::cross_entropy`"),
        row("loss::nll", V, |x| {
            loss::nll(&ops::log_softmax(&x[0], 1)?, &targets()?)
        })
        .last(),
        row("loss::mse", &[&[3, 4], &[3, 4]], |x| {
            loss::mse(&x[0], &x[1])
        }),
        row("loss::binary_cross_entropy_with_logit", V, |x| {
            loss::binary_cross_entropy_with_logit(
                &x[0],
                &x[0].detach().gt(0.2)?.to_dtype(x[0].dtype())?,
            )
        }),
        row("loss::huber", &[&[3, 4], &[3, 4]], |x| {
            loss::huber(&x[0], &x[1], 0.8)
        }),
    ]
}
