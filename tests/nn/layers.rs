//! The layers.

use super::case::{Case, case};
use adahessian::nn::{self, Module, ModuleT, RNN};
use candle_core::{Device, Result, Tensor};
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
            nn::linear(4, 5, vb)?.forward_activation(x, adahessian::ops::Activation::Gelu)
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

fn heads(num_heads: usize, num_kv_heads: usize, causal: bool) -> nn::MultiHeadAttentionConfig {
    nn::MultiHeadAttentionConfig {
        num_kv_heads,
        causal,
        ..nn::MultiHeadAttentionConfig::new(num_heads)
    }
}

/// The same attention head by head, by products and a softmax.
fn by_hand(vb: theirs::VarBuilder, x: &Tensor, kv: usize, causal: bool) -> Result<Tensor> {
    let map = |name: &str, to: usize, x: &Tensor| theirs::linear(8, to, vb.pp(name))?.forward(x);
    let (q, k, v) = (
        map("q_proj", 8, x)?,
        map("k_proj", 2 * kv, x)?,
        map("v_proj", 2 * kv, x)?,
    );
    let (batch, time, _) = x.dims3()?;
    let hidden =
        (0..time).flat_map(|i| (0..time).map(move |j| if j > i && causal { -1e9 } else { 0f64 }));
    let hidden = Tensor::from_vec(hidden.collect(), (1, time, time), x.device())?;
    let head = |head: usize| {
        let of = head / (4 / kv);
        let q = q.narrow(2, 2 * head, 2)?.contiguous()?;
        let k = k.narrow(2, 2 * of, 2)?.transpose(1, 2)?.contiguous()?;
        let scores = (q.matmul(&k)? / 2f64.sqrt())?.broadcast_add(&hidden)?;
        theirs::ops::softmax(&scores, 2)?.matmul(&v.narrow(2, 2 * of, 2)?.contiguous()?)
    };
    let all = (0..4).map(head).collect::<Result<Vec<_>>>()?;
    assert_eq!(all[0].dims(), [batch, time, 2]);
    map("out_proj", 8, &Tensor::cat(&all, 2)?)
}

pub fn attention() -> Vec<Case> {
    const X: &[usize] = &[2, 3, 8];
    vec![
        case("multi_head_attention", X, |vb, x| {
            nn::multi_head_attention(8, heads(4, 4, false), vb)?.forward(x)
        })
        .like(|vb, x| by_hand(vb, x, 4, false)),
        case("multi_head_attention, causal", X, |vb, x| {
            nn::multi_head_attention(8, heads(4, 4, true), vb)?.forward(x)
        })
        .like(|vb, x| by_hand(vb, x, 4, true)),
        case("multi_head_attention, grouped queries", X, |vb, x| {
            nn::multi_head_attention(8, heads(4, 2, false), vb)?.forward(x)
        })
        .like(|vb, x| by_hand(vb, x, 2, false)),
        case(
            "multi_head_attention across, with a key mask",
            X,
            |vb, x| {
                let source = vb.get((2, 4, 8), "source")?;
                let mask = Tensor::new(&[[1u32, 1, 0, 0], [0, 1, 1, 1]], x.device())?;
                nn::multi_head_attention(8, heads(2, 1, false), vb)?.attend(
                    x,
                    &source,
                    Some(&mask),
                    false,
                )
            },
        ),
        case(
            "ops::sdpa, causal, grouped queries",
            &[2, 4, 2, 3],
            |vb, q| {
                let (k, v) = (vb.get((2, 2, 3, 3), "k")?, vb.get((2, 2, 3, 5), "v")?);
                nn::ops::sdpa(q, &k, &v, None, true, 0.5, 1.0)
            },
        ),
        case("ops::sdpa, a cap and a mask", &[2, 4, 2, 3], |vb, q| {
            let (k, v) = (vb.get((2, 4, 3, 3), "k")?, vb.get((2, 4, 3, 5), "v")?);
            let mask = Tensor::new(&[[0f32, -1e9, 0.0], [0.0, 0.0, -2.0]], q.device())?;
            nn::ops::sdpa(q, &k, &v, Some(&mask), false, 0.5, 3.0)
        }),
    ]
}

pub fn recurrent() -> Vec<Case> {
    const X: &[usize] = &[2, 3, 4];
    vec![
        case("lstm", X, |vb, x| {
            let lstm = nn::lstm(4, 3, Default::default(), vb)?;
            lstm.states_to_tensor(&lstm.seq(x)?)
        })
        .like(|vb, x| {
            let lstm = theirs::lstm(4, 3, Default::default(), vb)?;
            lstm.states_to_tensor(&lstm.seq(x)?)
        }),
        case("gru", X, |vb, x| {
            let gru = nn::gru(4, 3, Default::default(), vb)?;
            gru.states_to_tensor(&gru.seq(x)?)
        })
        .like(|vb, x| {
            let gru = theirs::gru(4, 3, Default::default(), vb)?;
            gru.states_to_tensor(&gru.seq(x)?)
        }),
    ]
}
