//! Maps, norms and convolutions.

use super::case::{Case, case};
use adahessian::nn::{self, Module, ModuleT};
use candle_core::{Device, Tensor};
use candle_nn as theirs;

pub fn maps() -> Vec<Case> {
    vec![
        case("linear", &[2, 3, 4], |vb, x| {
            nn::linear(4, 5, vb)?.forward(x)
        })
        .like(|vb, x| theirs::linear(4, 5, vb)?.forward(x)),
        case("linear_no_bias of a matrix", &[3, 4], |vb, x| {
            nn::linear_no_bias(4, 5, vb)?.forward(x)
        })
        .like(|vb, x| theirs::linear_no_bias(4, 5, vb)?.forward(x)),
        case("linear_b of images", &[2, 2, 3, 4], |vb, x| {
            nn::linear_b(4, 5, true, vb)?.forward(x)
        })
        .like(|vb, x| theirs::linear_b(4, 5, true, vb)?.forward(x)),
        case("linear of a transposed batch", &[2, 4, 3], |vb, x| {
            nn::linear(4, 5, vb)?.forward(&x.transpose(1, 2)?)
        })
        .like(|vb, x| theirs::linear(4, 5, vb)?.forward(&x.transpose(1, 2)?.contiguous()?)),
        case("linear_grouped", &[2, 3, 4], |vb, x| {
            nn::linear_grouped(4, 6, 2, vb)?.forward(x)
        }),
        case("linear with a gelu", &[3, 4], |vb, x| {
            let gelu = adahessian::ops::Activation::Gelu;
            Ok(nn::linear(4, 5, vb)?.forward_activation(x, gelu)?)
        }),
        case("embedding", &[], |vb, ids| {
            nn::embedding(5, 3, vb)?.forward(ids)
        })
        .like(|vb, ids| theirs::embedding(5, 3, vb)?.forward(ids))
        .of(Tensor::new(&[[4u32, 0, 4], [1, 2, 3]], &Device::Cpu).expect("a constant")),
        case("prelu, one slope", &[3, 4], |vb, x| {
            nn::prelu(None, vb)?.forward(x)
        })
        .like(|vb, x| theirs::prelu(None, vb)?.forward(x)),
        case("prelu, a slope a channel", &[2, 3, 4], |vb, x| {
            nn::prelu(Some(3), vb)?.forward(x)
        })
        .like(|vb, x| theirs::prelu(Some(3), vb)?.forward(x)),
        case("sequential", &[3, 4], |vb, x| {
            let first = nn::linear(4, 5, vb.pp("first"))?;
            nn::seq().add(first).add(nn::Activation::Silu).forward(x)
        })
        .like(|vb, x| {
            let first = theirs::linear(4, 5, vb.pp("first"))?;
            theirs::seq()
                .add(first)
                .add(theirs::Activation::Silu)
                .forward(x)
        }),
    ]
}

pub fn norms() -> Vec<Case> {
    const IMAGE: &[usize] = &[2, 4, 2, 3];
    vec![
        case("layer_norm", &[2, 3, 4], |vb, x| {
            nn::layer_norm(4, 1e-5, vb)?.forward(x)
        })
        .like(|vb, x| {
            // Its own fast path knows no f64.
            let norm = theirs::layer_norm(4, 1e-5, vb)?;
            let no_bias = theirs::LayerNorm::new_no_bias(norm.weight().clone(), 1e-5);
            no_bias
                .forward(x)?
                .broadcast_add(norm.bias().expect("a bias"))
        }),
        case("layer_norm_no_bias", &[3, 4], |vb, x| {
            nn::layer_norm_no_bias(4, 1e-5, vb)?.forward(x)
        })
        .like(|vb, x| theirs::layer_norm_no_bias(4, 1e-5, vb)?.forward(x)),
        case("layer_norm, the mean left in", &[3, 4], |vb, x| {
            nn::layer_norm(4, config(false), vb)?.forward(x)
        })
        .like(|vb, x| theirs::layer_norm(4, config(false), vb)?.forward(x)),
        case("rms_norm", &[2, 3, 4], |vb, x| {
            nn::rms_norm(4, 1e-6, vb)?.forward(x)
        })
        .like(|vb, x| theirs::rms_norm(4, 1e-6, vb)?.forward_diff(x)),
        case("group_norm", IMAGE, |vb, x| {
            nn::group_norm(2, 4, 1e-5, vb)?.forward(x)
        })
        .like(|vb, x| theirs::group_norm(2, 4, 1e-5, vb)?.forward(x)),
        case("batch_norm in training", IMAGE, |vb, x| {
            nn::batch_norm(4, 1e-5, vb)?.forward_t(x, true)
        })
        .like(|vb, x| theirs::batch_norm(4, 1e-5, vb)?.forward_t(x, true)),
        case("batch_norm of a matrix", &[5, 4], |vb, x| {
            nn::batch_norm(4, 1e-5, vb)?.forward_t(x, true)
        })
        .like(|vb, x| theirs::batch_norm(4, 1e-5, vb)?.forward_t(x, true)),
        case("batch_norm, the mean left in", IMAGE, |vb, x| {
            nn::batch_norm(4, batch_config(), vb)?.forward_t(x, true)
        })
        .like(|vb, x| theirs::batch_norm(4, batch_config(), vb)?.forward_t(x, true)),
        case("batch_norm in evaluation", IMAGE, |vb, x| {
            nn::batch_norm(4, 1e-5, vb)?.forward_t(x, false)
        })
        .like(|vb, x| theirs::batch_norm(4, 1e-5, vb)?.forward_t(x, false)),
    ]
}

fn config(remove_mean: bool) -> nn::LayerNormConfig {
    nn::LayerNormConfig {
        remove_mean,
        ..Default::default()
    }
}

fn batch_config() -> nn::BatchNormConfig {
    nn::BatchNormConfig {
        remove_mean: false,
        affine: false,
        ..Default::default()
    }
}

fn conv1d(padding: usize, stride: usize, dilation: usize, groups: usize) -> nn::Conv1dConfig {
    nn::Conv1dConfig {
        padding,
        stride,
        dilation,
        groups,
        ..Default::default()
    }
}

fn conv2d(padding: usize, stride: usize, groups: usize) -> nn::Conv2dConfig {
    nn::Conv2dConfig {
        padding,
        stride,
        groups,
        ..Default::default()
    }
}

pub fn convolutions() -> Vec<Case> {
    const SEQUENCE: &[usize] = &[2, 4, 7];
    const IMAGE: &[usize] = &[2, 4, 5, 6];
    vec![
        case("conv1d", SEQUENCE, |vb, x| {
            nn::conv1d(4, 3, 3, conv1d(1, 1, 1, 1), vb)?.forward(x)
        })
        .like(|vb, x| theirs::conv1d(4, 3, 3, conv1d(1, 1, 1, 1), vb)?.forward(x)),
        case("conv1d, stride, dilation, groups", SEQUENCE, |vb, x| {
            nn::conv1d(4, 6, 3, conv1d(2, 2, 2, 2), vb)?.forward(x)
        })
        .like(|vb, x| theirs::conv1d(4, 6, 3, conv1d(2, 2, 2, 2), vb)?.forward(x)),
        case("conv1d_no_bias", SEQUENCE, |vb, x| {
            nn::conv1d_no_bias(4, 3, 2, Default::default(), vb)?.forward(x)
        })
        .like(|vb, x| theirs::conv1d_no_bias(4, 3, 2, Default::default(), vb)?.forward(x)),
        case("conv2d", IMAGE, |vb, x| {
            nn::conv2d(4, 3, 3, conv2d(1, 1, 1), vb)?.forward(x)
        })
        .like(|vb, x| theirs::conv2d(4, 3, 3, conv2d(1, 1, 1), vb)?.forward(x)),
        case("conv2d, stride, groups", IMAGE, |vb, x| {
            nn::conv2d(4, 6, 3, conv2d(1, 2, 2), vb)?.forward(x)
        })
        .like(|vb, x| theirs::conv2d(4, 6, 3, conv2d(1, 2, 2), vb)?.forward(x)),
        case("conv2d_no_bias", IMAGE, |vb, x| {
            nn::conv2d_no_bias(4, 3, 2, Default::default(), vb)?.forward(x)
        })
        .like(|vb, x| theirs::conv2d_no_bias(4, 3, 2, Default::default(), vb)?.forward(x)),
        // candle's own is wrong for batches.
        case("conv_transpose1d", &[1, 4, 5], |vb, x| {
            nn::conv_transpose1d(4, 3, 3, transpose1d(1), vb)?.forward(x)
        })
        .like(|vb, x| theirs::conv_transpose1d(4, 3, 3, transpose1d(1), vb)?.forward(x)),
        case("conv_transpose1d, groups, batch", &[2, 4, 5], |vb, x| {
            nn::conv_transpose1d(4, 6, 3, transpose1d(2), vb)?.forward(x)
        }),
        case("conv_transpose1d_no_bias", &[1, 4, 5], |vb, x| {
            nn::conv_transpose1d_no_bias(4, 3, 2, Default::default(), vb)?.forward(x)
        })
        .like(|vb, x| {
            theirs::conv_transpose1d_no_bias(4, 3, 2, Default::default(), vb)?.forward(x)
        }),
        case("conv_transpose2d", &[2, 3, 3, 4], |vb, x| {
            nn::conv_transpose2d(3, 2, 3, transpose2d(), vb)?.forward(x)
        })
        .like(|vb, x| theirs::conv_transpose2d(3, 2, 3, transpose2d(), vb)?.forward(x)),
        case("conv_transpose2d_no_bias", &[2, 3, 3, 4], |vb, x| {
            nn::conv_transpose2d_no_bias(3, 2, 2, Default::default(), vb)?.forward(x)
        })
        .like(|vb, x| {
            theirs::conv_transpose2d_no_bias(3, 2, 2, Default::default(), vb)?.forward(x)
        }),
        case("conv2d with its batch norm", IMAGE, |vb, x| {
            let norm = nn::batch_norm(3, 1e-5, vb.pp("norm"))?;
            nn::conv2d(4, 3, 3, conv2d(1, 1, 1), vb.pp("conv"))?
                .absorb_bn(&norm)?
                .forward(x)
        })
        .like(|vb, x| {
            let norm = theirs::batch_norm(3, 1e-5, vb.pp("norm"))?;
            theirs::conv2d(4, 3, 3, conv2d(1, 1, 1), vb.pp("conv"))?
                .absorb_bn(&norm)?
                .forward(x)
        }),
    ]
}

fn transpose1d(groups: usize) -> nn::ConvTranspose1dConfig {
    nn::ConvTranspose1dConfig {
        padding: 1,
        output_padding: 1,
        stride: 2,
        dilation: 1,
        groups,
    }
}

fn transpose2d() -> nn::ConvTranspose2dConfig {
    nn::ConvTranspose2dConfig {
        padding: 1,
        output_padding: 1,
        stride: 2,
        dilation: 1,
    }
}
