//! Multi-head attention (Vaswani et al. 2017), of which candle_nn has no layer.

use super::{Linear, VarBuilder, dropout, linear_b, wrong};
use crate::ops;
use candle_core::{Module, Result, Tensor};

/// What a [`MultiHeadAttention`] is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MultiHeadAttentionConfig {
    /// The heads of the queries; they divide the width.
    pub num_heads: usize,
    /// The heads of keys and values, each serving num_heads/num_kv_heads queries in a row (grouped queries,
    /// Ainslie et al. 2023).
    pub num_kv_heads: usize,
    /// Whether the four maps have a bias.
    pub bias: bool,
    /// Whether a query sees its own and earlier positions only.
    pub causal: bool,
    /// The probability with which a weight is dropped in training; see [`Dropout`](super::Dropout).
    pub dropout: f32,
}

impl MultiHeadAttentionConfig {
    /// As many heads for the keys, with biases, not causal, without dropout.
    pub fn new(num_heads: usize) -> Self {
        Self {
            num_heads,
            num_kv_heads: num_heads,
            bias: true,
            causal: false,
            dropout: 0.0,
        }
    }
}

/// out_proj(attention(q_proj(x), k_proj(y), v_proj(y))), with softmax(q kᵀ/√d) v for each head of d entries.
///
/// One fused operation for each of the four maps and one for the attention, on the CPU.
#[derive(Clone, Debug)]
pub struct MultiHeadAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    config: MultiHeadAttentionConfig,
}

impl MultiHeadAttention {
    /// Of four maps: `q_proj` and `out_proj` from the width to the width, `k_proj` and `v_proj` to
    /// width · num_kv_heads/num_heads.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for maps or heads that do not fit.
    pub fn new(
        [q_proj, k_proj, v_proj, out_proj]: [Linear; 4],
        config: MultiHeadAttentionConfig,
    ) -> Result<Self> {
        let width = q_proj.weight().dims().first().copied().unwrap_or(0);
        let kv = kv_width(width, &config)?;
        let outputs = |map: &Linear| map.weight().dims().first().copied();
        let inputs = out_proj.weight().dims().get(1).copied();
        if [outputs(&k_proj), outputs(&v_proj), inputs] != [Some(kv), Some(kv), Some(width)] {
            let expected =
                format!("outputs of {kv} for keys and values, inputs of {width} at the end");
            let got = (outputs(&k_proj), outputs(&v_proj), inputs);
            return wrong("maps of an attention", expected, got);
        }
        Ok(Self {
            q_proj,
            k_proj,
            v_proj,
            out_proj,
            config,
        })
    }

    /// Heads, dropout and the like.
    pub fn config(&self) -> &MultiHeadAttentionConfig {
        &self.config
    }

    /// What the positions of `x` [B, T, in] see of those of `source` [B, S, in]: [B, T, out].
    ///
    /// `key_mask` is [B, S] of any dtype, 1 for a position that may be seen and 0 for padding; a query that
    /// sees none gets zeros. Causal attention wants T = S.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for shapes that do not fit, and with `train` as
    /// [`Dropout::forward`](super::Dropout::forward).
    pub fn attend(
        &self,
        x: &Tensor,
        source: &Tensor,
        key_mask: Option<&Tensor>,
        train: bool,
    ) -> Result<Tensor> {
        let config = &self.config;
        let q = self.q_proj.forward(x)?;
        let k = self.repeat(&self.k_proj.forward(source)?)?;
        let v = self.repeat(&self.v_proj.forward(source)?)?;
        let (mode, place) = match train {
            true => dropout::place(config.dropout, None)?,
            false => Default::default(),
        };
        let dropout = ops::Dropout::new(f64::from(config.dropout), &place, &mode);
        let (heads, causal) = (config.num_heads, config.causal);
        let context = crate::ops::attention([&q, &k, &v], heads, key_mask, causal, &dropout)?;
        self.out_proj.forward(&context)
    }

    /// Every head of keys or values as often as there are queries for it: [B, S, out].
    fn repeat(&self, x: &Tensor) -> Result<Tensor> {
        let (kv, repeats) = (
            self.config.num_kv_heads,
            self.config.num_heads / self.config.num_kv_heads,
        );
        let &[b, s, width] = x.dims() else {
            return wrong("source of an attention", "[B, S, in]", x.dims());
        };
        if repeats == 1 {
            return Ok(x.clone());
        }
        let heads = x.reshape((b, s, kv, 1, width / kv))?;
        let heads = heads.broadcast_as((b, s, kv, repeats, width / kv))?;
        heads.contiguous()?.reshape((b, s, width * repeats))
    }
}

/// The width of keys and values, if the heads fit.
fn kv_width(width: usize, config: &MultiHeadAttentionConfig) -> Result<usize> {
    let (heads, kv) = (config.num_heads, config.num_kv_heads);
    let fits = kv > 0 && heads > 0 && heads.is_multiple_of(kv) && width.is_multiple_of(heads);
    match fits && width > 0 {
        true => Ok(width / heads * kv),
        false => {
            let expected =
                format!("heads that divide the width {width}, heads of keys that divide them");
            wrong("heads of an attention", expected, (heads, kv))
        }
    }
}

impl Module for MultiHeadAttention {
    /// Self-attention without dropout.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.attend(x, x, None, false)
    }
}

/// With the maps `q_proj`, `k_proj`, `v_proj` and `out_proj`, each of a `weight` and, if asked for, a `bias`,
/// named and shaped as in Hugging Face's models: from and to `width` entries, keys and values of
/// width · num_kv_heads/num_heads.
///
/// # Errors
/// [`crate::Error::Setting`] for heads that do not fit; the builder's.
pub fn multi_head_attention(
    width: usize,
    config: MultiHeadAttentionConfig,
    vb: VarBuilder,
) -> Result<MultiHeadAttention> {
    let kv = kv_width(width, &config)?;
    let map = |name: &str, to: usize| linear_b(width, to, config.bias, vb.pp(name));
    let maps = [
        map("q_proj", width)?,
        map("k_proj", kv)?,
        map("v_proj", kv)?,
        map("out_proj", width)?,
    ];
    MultiHeadAttention::new(maps, config)
}
