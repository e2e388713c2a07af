//! Scaled dot-product attention with several heads (Vaswani et al. 2017) and masks.

mod cpu;
mod heads;
mod score_rows;
mod tensors;

use super::dropout::Mask;
use super::{Dropout, wrong};
use crate::engine::{Handle, Kernels, Op, Operand, call};
use crate::error::Result;
use crate::numeric::{hidden_score, widened};
use candle_core::{D, Device, Tensor};

/// dropout(softmax(q kᵀ / √d + M)) v for every head, on vectors that hold all heads side by side.
///
/// `q` is [B, T, D]; `k` and `v` are [B, S, D], D = heads·d; `key_mask` is [B, S] of any dtype, 1 for
/// a key that may be attended to and 0 for padding; the result is [B, T, D]. With `causal` (T = S) a
/// query sees its own and earlier positions only. M is 0 for visible keys and -∞ for the others (a
/// large, finite number where it is composed), whose weight is exactly 0. A query that sees **no key at
/// all** gives zeros, and no gradient.
///
/// Where it is composed the softmax is `candle_nn::ops::softmax`, since `softmax_last_dim` and candle's
/// fused attention cut the graph. The heads are made contiguous before the products: candle multiplies
/// some strided operands wrongly, and a GPU refuses others.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes or a probability that do not fit; candle's errors.
pub fn attention<X: Operand>(
    [q, k, v]: [&X; 3],
    heads: usize,
    key_mask: Option<&Tensor>,
    causal: bool,
    dropout: &Dropout,
) -> Result<X> {
    X::of(on([q, k, v], heads, key_mask, causal, dropout)?)
}

fn on(
    qkv: [&dyn Operand; 3],
    heads: usize,
    key_mask: Option<&Tensor>,
    causal: bool,
    dropout: &Dropout,
) -> Result<Handle> {
    let op = Attention {
        heads,
        key_mask: key_mask.map(Tensor::detach),
        causal,
        mask: Mask::of(dropout)?,
    };
    call(op, &qkv)
}

struct Attention {
    heads: usize,
    key_mask: Option<Tensor>,
    causal: bool,
    mask: Option<Mask>,
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
        let &[batch, queries, all] = q else {
            return wrong("queries", "[batch, positions, width]", format!("{q:?}"));
        };
        if q.contains(&0) {
            return wrong("queries", "no size of 0", format!("{q:?}"));
        }
        if self.heads == 0 || all % self.heads != 0 {
            let expected = format!("a divisor of the width {all}");
            return wrong("heads", expected, self.heads.to_string());
        }
        let keys = k.get(1).copied().unwrap_or(0);
        if k != [batch, keys, all] || v != k || keys == 0 {
            let expected = format!("both [{batch}, positions, {all}] as the queries are");
            return wrong("keys and values", expected, format!("{k:?} and {v:?}"));
        }
        if self.causal && keys != queries {
            let expected = format!("{queries}, as many as queries");
            return wrong("keys of causal attention", expected, keys.to_string());
        }
        match &self.key_mask {
            Some(mask) if mask.dims() != [batch, keys] => {
                let expected = format!("[{batch}, {keys}]");
                wrong("key mask", expected, format!("{:?}", mask.dims()))
            }
            _ => Ok(q.to_vec()),
        }
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let dtypes = [0, 1, 2].map(|i| inputs[i].dtype());
        if dtypes.iter().any(|dtype| *dtype != dtypes[0]) {
            return wrong(
                "queries, keys and values",
                "one type",
                format!("{dtypes:?}"),
            );
        }
        let (batch, queries, all) = inputs[0].dims3()?;
        let (keys, width) = (inputs[1].dim(1)?, all / self.heads);
        let split = |x: &Tensor, length: usize| -> Result<Tensor> {
            // Half precision has too few digits for the scores, and for the sums over all keys.
            let x = widened(x)?.reshape((batch, length, self.heads, width))?;
            Ok(x.transpose(1, 2)?.contiguous()?) // [B, heads, length, d]
        };
        let q = (split(&inputs[0], queries)? * (1.0 / (width as f64).sqrt()))?;
        let (k, v) = (split(&inputs[1], keys)?, split(&inputs[2], keys)?);
        let scores = q.matmul(&k.t()?)?; // [B, heads, T, S]
        let visible = self.visible((batch, queries, keys), &scores)?;
        let scores = match &visible {
            Some(visible) => {
                let mask = ((1.0 - visible)? * hidden_score(scores.dtype()))?;
                scores.broadcast_add(&mask)?
            }
            None => scores,
        };
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let weights = match &self.mask {
            Some(mask) => mask.composed(&weights)?,
            None => weights,
        };
        let context = weights.matmul(&v)?; // [B, heads, T, d]
        let context = match (&visible, &self.key_mask) {
            // Without a key mask every query sees at least itself.
            (Some(visible), Some(_)) => {
                let any = visible.max_keepdim(D::Minus1)?; // [B, 1, T or 1, 1]
                context.broadcast_mul(&any)?
            }
            _ => context,
        };
        let context = context.transpose(1, 2)?.reshape((batch, queries, all))?;
        Ok(context.to_dtype(inputs[0].dtype())?)
    }

    fn kernels() -> Kernels<Self> {
        Kernels::everywhere()
    }
}

impl Attention {
    /// 1 where a query sees a key, 0 elsewhere: [B or 1, 1, T or 1, S], a constant.
    fn visible(
        &self,
        (batch, queries, keys): (usize, usize, usize),
        like: &Tensor,
    ) -> Result<Option<Tensor>> {
        let by_key = match &self.key_mask {
            Some(mask) => {
                // Whatever is not 0 is seen, as on the CPU: numbers of packed texts, say.
                let mask = mask
                    .ne(0.0)?
                    .to_dtype(like.dtype())?
                    .to_device(like.device())?;
                Some(mask.reshape((batch, 1, 1, keys))?)
            }
            None => None,
        };
        if !self.causal {
            return Ok(by_key);
        }
        let row = |i| (0..keys).map(move |j| f32::from(u8::from(j <= i)));
        let triangle = (0..queries).flat_map(row).collect();
        let triangle = Tensor::from_vec(triangle, (1, 1, queries, keys), &Device::Cpu)?;
        let triangle = triangle.to_dtype(like.dtype())?.to_device(like.device())?;
        Ok(Some(match by_key {
            Some(by_key) => triangle.broadcast_mul(&by_key)?,
            None => triangle,
        }))
    }
}
