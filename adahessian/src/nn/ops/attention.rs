//! Scaled dot-product attention, after `candle_nn::ops::sdpa` (which is Metal's, and has no derivative).

use super::softmax_last_dim;
use crate::nn::wrong;
use crate::numeric::{hidden_score, widened};
use candle_core::{Device, Result, Tensor};

/// softmax(s q kᵀ + mask) v, or with a cap c ≠ 1 softmax(c tanh(s q kᵀ/c) + mask) v, composed.
///
/// `q` is [B, heads, T, D], `k` [B, kv heads, S, D], `v` [B, kv heads, S, E]; every key head serves
/// heads/kv heads queries. `mask` broadcasts to [B, heads, T, S] and is added: 0 for what is seen and a
/// large negative number, or -∞, for what is not. With `do_causal` a query sees the keys up to its own position,
/// the last query being at the last key, and no later one even where the mask hides all others. The result is
/// [B, heads, T, E]. Half precision is computed with in f32: scores before they are scaled, and the large numbers of masks,
/// are beyond what f16 holds.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit, and a cap that is not above 0; candle's for a mask that does not fit.
pub fn sdpa(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    do_causal: bool,
    scale: f32,
    softcapping: f32,
) -> Result<Tensor> {
    let repeats = check(q, k, v, do_causal)?;
    if !softcapping.is_finite() || softcapping <= 0.0 {
        return wrong("softcapping", "above 0; 1 is none", softcapping);
    }
    let dtype = v.dtype();
    let (q, k, v) = (widened(q)?, widened(k)?, widened(v)?);
    let (k, v) = (repeat_heads(&k, repeats)?, repeat_heads(&v, repeats)?);
    let scores = q.contiguous()?.matmul(&k.transpose(2, 3)?.contiguous()?)?;
    let scores = (scores * f64::from(scale))?;
    let cap = f64::from(softcapping);
    let scores = match cap == 1.0 {
        true => scores,
        false => ((scores * (1.0 / cap))?.tanh()? * cap)?,
    };
    let scores = match mask {
        // Of a row that the mask hides as a whole by -∞ the softmax would be no number.
        Some(mask) => {
            let mask = mask.to_dtype(scores.dtype())?;
            scores.broadcast_add(&mask.maximum(hidden_score(scores.dtype()))?)?
        }
        None => scores,
    };
    let (t, s) = (q.dim(2)?, k.dim(2)?);
    let later = match do_causal {
        true => Some(later(t, s, q.device())?),
        false => None,
    };
    let hide = |scores: &Tensor, later: &Tensor, with: f64| {
        let with = Tensor::full(with, (t, s), scores.device())?.to_dtype(scores.dtype())?;
        let shape = scores.shape();
        later
            .broadcast_as(shape)?
            .where_cond(&with.broadcast_as(shape)?, scores)
    };
    let weights = match &later {
        // A weight that underflows.
        Some(later) => softmax_last_dim(&hide(&scores, later, hidden_score(scores.dtype()))?)?,
        None => softmax_last_dim(&scores)?,
    };
    let weights = match (&later, mask) {
        // Where the mask hides all keys that are not later, the later ones would have the largest scores.
        (Some(later), Some(_)) => hide(&weights, later, 0.0)?,
        _ => weights,
    };
    weights.matmul(&v)?.to_dtype(dtype)
}

/// How many queries a key head serves.
fn check(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Result<usize> {
    if let (&[b, heads, t, d], &[kb, kv, s, kd], &[vb, vh, vs, _]) = (q.dims(), k.dims(), v.dims())
        && (kb, kd, vb, vh, vs) == (b, d, b, kv, s)
        && kv > 0
        && heads.is_multiple_of(kv)
        && s > 0
        && (t <= s || !causal)
    {
        return Ok(heads / kv);
    }
    wrong(
        "attention",
        "q [B, heads, T, D], k [B, kv heads, S, D], v [B, kv heads, S, E], whole numbers of heads for a \
         key head, and T at most S where it is causal",
        (q.dims(), k.dims(), v.dims()),
    )
}

/// [B, H, S, D] to [B, H repeats, S, D], every head `repeats` times in a row.
fn repeat_heads(x: &Tensor, repeats: usize) -> Result<Tensor> {
    let (b, h, s, d) = x.dims4()?;
    let wide = x.unsqueeze(2)?.broadcast_as((b, h, repeats, s, d))?;
    wide.contiguous()?.reshape((b, h * repeats, s, d))
}

/// 1 for the keys behind a query's position, [T, S].
fn later(t: usize, s: usize, device: &Device) -> Result<Tensor> {
    let later = (0..t).flat_map(|i| (0..s).map(move |j| u8::from(j > i + s - t)));
    Tensor::from_vec(later.collect(), (t, s), &Device::Cpu)?.to_device(device)
}
