//! Attention and recurrent layers.

use super::case::{Case, case};
use adahessian::nn::{self, Module, RNN};
use candle_core::{Result, Tensor};
use candle_nn as theirs;

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
