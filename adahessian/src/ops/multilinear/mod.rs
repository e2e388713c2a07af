//! Multi-linear attention, the block-term form of the tensorized transformer (Ma et al. 2019): every query meets pairs of
//! a key and a value, and what it finds there is mapped at once, without a softmax.

mod cpu;
mod pairs;
mod tensors;
mod work;

use super::wrong;
use crate::engine::{Handle, Kernels, Op, Operand, call};
use crate::error::Result;
use crate::numeric::widened;
use candle_core::{DType, Device, Tensor};
use pairs::Sizes;

/// y_i = Σ_{j,k} W_{·,(j,k)} T_{ijk} with T_{ijk} = Σ_h a_{ih} m_{jh} v_{kh} + s_{jk}, over all pairs (j, k) of positions,
/// or with `causal` over those with j ≤ i and k ≤ i.
///
/// `a`, `m` and `v` are [B, T, R], `s` is [B, T, T], `weight` [D, L·L] for windows of up to L ≥ T positions, its column
/// jL + k being the pair's; the result is [B, T, D].
///
/// With a core G, queries q, keys k, values v and relative positions r, block-term attention is this with a = G ⊙ q,
/// m = k + r and s = (k ⊙ G ⊙ u + r ⊙ G ⊙ w) vᵀ.
///
/// On the CPU T is made for a few queries at a time and never held: memory grows with T², and time, causal, with
/// T³ (D + R) / 3 products. Ma et al.'s own code gives every query all pairs, and with them the tokens to be foretold.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit; candle's errors.
pub fn multilinear_attention<X: Operand>(
    [a, m, v]: [&X; 3],
    s: &X,
    weight: &Tensor,
    causal: bool,
) -> Result<X> {
    X::of(on([a, m, v, s], weight, causal)?)
}

fn on<X: Operand>([a, m, v, s]: [&X; 4], weight: &Tensor, causal: bool) -> Result<Handle> {
    call(MultilinearAttention { causal }, &[a, m, v, s, weight])
}

struct MultilinearAttention {
    causal: bool,
}

impl Op for MultilinearAttention {
    fn name(&self) -> &'static str {
        "multi-linear attention"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let sizes = Sizes::of(inputs, self.causal)?;
        Ok(vec![sizes.batch, sizes.length, sizes.outputs])
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let shapes: Vec<&[usize]> = inputs.iter().map(Tensor::dims).collect();
        let Sizes {
            batch,
            length,
            rank,
            outputs,
            window,
            ..
        } = Sizes::of(&shapes, self.causal)?;
        let [a, m, v, s, weight] = inputs else {
            return wrong("inputs", "five", inputs.len().to_string());
        };
        // Gradients of m, v and s are sums over positions, which half precision has too few digits for.
        let dtype = a.dtype();
        let (a, m, v, s) = (widened(a)?, widened(m)?, widened(v)?, widened(s)?);
        let pairs = m.unsqueeze(2)?.broadcast_mul(&v.unsqueeze(1)?)?; // [B, T, T, R]
        let pairs = pairs.reshape((batch, length * length, rank))?;
        let pairs = pairs.transpose(1, 2)?.contiguous()?; // [B, R, T²]
        let s = s.reshape((batch, 1, length * length))?;
        let all = a.contiguous()?.matmul(&pairs)?.broadcast_add(&s)?; // [B, T, T²]
        let all = match self.causal {
            true => all.broadcast_mul(&visible(length, a.dtype(), a.device())?)?,
            false => all,
        };
        let weight = match window == length {
            true => weight.clone(),
            false => {
                let columns = columns(length, window, a.device())?;
                weight.contiguous()?.index_select(&columns, 1)?
            }
        };
        let rows = all.to_dtype(dtype)?;
        let rows = rows.reshape((batch * length, length * length))?;
        Ok(rows
            .matmul(&weight.t()?)?
            .reshape((batch, length, outputs))?)
    }

    fn kernels() -> Kernels<Self> {
        Kernels::everywhere()
    }
}

/// 1 for the pairs that a query may see, [T, T²].
fn visible(length: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let pairs = |i| {
        (0..length * length).map(move |p| f32::from(u8::from(p / length <= i && p % length <= i)))
    };
    let visible: Vec<f32> = (0..length).flat_map(pairs).collect();
    let visible = Tensor::from_vec(visible, (length, length * length), &Device::Cpu)?;
    Ok(visible.to_dtype(dtype)?.to_device(device)?)
}

/// The columns of the pairs of the first positions of a window.
fn columns(length: usize, window: usize, device: &Device) -> Result<Tensor> {
    let pairs = (0..length * length).map(|p| (p / length * window + p % length) as u32);
    let columns = Tensor::from_vec(pairs.collect::<Vec<_>>(), length * length, &Device::Cpu)?;
    Ok(columns.to_device(device)?)
}
