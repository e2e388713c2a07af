//! Scaled dot-product attention (Vaswani et al. 2017) with masks.

use super::{Dropout, wrong};
use crate::error::Result;
use candle_core::{D, DType, Device, Tensor};

/// dropout(softmax(q kᵀ / √d + M)) v for every head.
///
/// `q` is [B, heads, T, d]; `k` and `v` are [B, heads, S, d]; `key_mask` is [B, S] of any dtype, 1
/// for a key that may be attended to and 0 for padding; the result is [B, heads, T, d]. With
/// `causal` (T = S) a query sees its own and earlier positions only. M is 0 for visible keys and a
/// large negative, finite number for the others, whose weight underflows to exactly 0. A query
/// that sees **no key at all** gives zeros, and no gradient: infinities would give not-a-number
/// there, and the finite number alone an average over the padding.
///
/// The softmax is `candle_nn::ops::softmax`, since `softmax_last_dim` and candle's fused attention
/// cut the graph. The heads are made contiguous before the products: candle multiplies some strided
/// operands wrongly, and a GPU refuses others.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    key_mask: Option<&Tensor>,
    causal: bool,
    dropout: &Dropout,
) -> Result<Tensor> {
    let (batch, queries, keys, width) = check_shapes(q, k, v, key_mask, causal)?;
    let q = (q.contiguous()? * (1.0 / (width as f64).sqrt()))?;
    let scores = q.matmul(&k.contiguous()?.t()?)?; // [B, heads, T, S]
    let visible = visible(key_mask, causal, (batch, queries, keys), &scores)?;
    let scores = match &visible {
        Some(visible) => {
            let mask = ((visible - 1.0)? * hidden_score(scores.dtype()))?;
            scores.broadcast_add(&mask)?
        }
        None => scores,
    };
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
    let context = dropout.apply(&weights)?.matmul(&v.contiguous()?)?; // [B, heads, T, d]
    match (&visible, key_mask) {
        // Without a key mask every query sees at least itself.
        (Some(visible), Some(_)) => {
            let any = visible.max_keepdim(D::Minus1)?; // [B, 1, T or 1, 1]
            Ok(context.broadcast_mul(&any)?)
        }
        _ => Ok(context),
    }
}

/// Large enough for the weight to underflow, small enough to be finite.
fn hidden_score(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 3e4,
        _ => 1e9,
    }
}

/// 1 where a query sees a key, 0 elsewhere: [B or 1, 1, T or 1, S], a constant.
fn visible(
    key_mask: Option<&Tensor>,
    causal: bool,
    (batch, queries, keys): (usize, usize, usize),
    like: &Tensor,
) -> Result<Option<Tensor>> {
    let by_key = match key_mask {
        Some(mask) => {
            let mask = mask.detach().to_dtype(like.dtype())?;
            Some(
                mask.to_device(like.device())?
                    .reshape((batch, 1, 1, keys))?,
            )
        }
        None => None,
    };
    if !causal {
        return Ok(by_key);
    }
    let triangle = (0..queries).flat_map(|i| (0..keys).map(move |j| f32::from(u8::from(j <= i))));
    let triangle = Tensor::from_vec(triangle.collect(), (1, 1, queries, keys), &Device::Cpu)?;
    let triangle = triangle.to_dtype(like.dtype())?.to_device(like.device())?;
    Ok(Some(match by_key {
        Some(by_key) => triangle.broadcast_mul(&by_key)?,
        None => triangle,
    }))
}

fn check_shapes(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    key_mask: Option<&Tensor>,
    causal: bool,
) -> Result<(usize, usize, usize, usize)> {
    let &[batch, heads, queries, width] = q.dims() else {
        return wrong(
            "queries",
            "[batch, heads, positions, width]",
            format!("{:?}", q.dims()),
        );
    };
    let keys = k.dims().get(2).copied().unwrap_or(0);
    if k.dims() != [batch, heads, keys, width] || v.dims() != k.dims() || keys == 0 {
        return wrong(
            "keys and values",
            format!("both [{batch}, {heads}, positions, {width}] as the queries are"),
            format!("{:?} and {:?}", k.dims(), v.dims()),
        );
    }
    if causal && keys != queries {
        return wrong(
            "keys of causal attention",
            format!("{queries}, as many as queries"),
            keys.to_string(),
        );
    }
    match key_mask {
        Some(mask) if mask.dims() != [batch, keys] => wrong(
            "key mask",
            format!("[{batch}, {keys}]"),
            format!("{:?}", mask.dims()),
        ),
        _ => Ok((batch, queries, keys, width)),
    }
}
