//! A layer: attention to earlier words, and a wide part.
//!
//! ```text
//! block-term:  q, k, v = thirds of x Wᵀ       r = P Rᵀ           G: mean over the cores
//!              T_ijk = Σ_h G_h ((q_i + u)_h k_jh + (q_i + w)_h r_jh) v_kh      for j, k ≤ i
//!              y_i = Σ_jk O_(jk) T_ijk
//! ```

use super::config::{Attention, Config};
use crate::error::{Error, Result};
use crate::parts::normal;
use adahessian::Kind;
use adahessian::engine::Handle;
use adahessian::nn::{self, Init, LayerNorm, Linear, LinearConfig, VarBuilder, init};
use adahessian::ops::{self, Activation, Dropout, Mode};
use candle_core::{Device, Tensor};

/// The standard deviation of matrices at first.
pub(super) const DEVIATION: f64 = 0.02;

fn map(inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Linear> {
    let config = LinearConfig::new(normal(DEVIATION), init::ZERO);
    Ok(nn::linear_with(inputs, outputs, config, vb)?)
}

fn plain_map(inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Linear> {
    let shape = (outputs, inputs);
    let weight = nn::variable(&vb, shape, "weight", normal(DEVIATION), Kind::Matrix)?;
    Ok(Linear::new(weight, None))
}

/// What all layers share.
#[derive(Clone)]
pub(super) struct Shared {
    /// [L, D] where positions are added inside of the attention.
    pub positions: Tensor,
    /// u and w, [R].
    pub biases: Option<[Tensor; 2]>,
}

/// One pass.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub shared: &'a Shared,
    pub mode: &'a Mode,
    pub number: usize,
}

impl Pass<'_> {
    fn place(&self, part: &str) -> String {
        format!("layer.{}.{part}", self.number)
    }
}

#[derive(Clone)]
pub(super) struct Layer {
    attend: Attend,
    attention_norm: LayerNorm, // [D]
    wide: Linear,              // [F, D]
    narrow: Linear,            // [D, F]
    output_norm: LayerNorm,    // [D]
    before: bool,
    dropout: f64,
}

impl Layer {
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (d, eps) = (config.d_model, config.layer_norm_eps);
        Ok(Self {
            attend: Attend::new(config, vb.pp("attention"))?,
            attention_norm: nn::layer_norm(d, eps, vb.pp("attention_norm"))?,
            wide: map(d, config.ffn_dim, vb.pp("wide"))?,
            narrow: map(config.ffn_dim, d, vb.pp("narrow"))?,
            output_norm: nn::layer_norm(d, eps, vb.pp("output_norm"))?,
            before: config.normalize_before,
            dropout: config.dropout,
        })
    }

    /// x [B, T, D] to [B, T, D].
    pub fn forward(&self, x: &Handle, pass: Pass) -> Result<Handle> {
        let x = self.around(x, &self.attention_norm, pass, "attention", |x| {
            self.attend.forward(x, self.dropout, pass)
        })?;
        self.around(&x, &self.output_norm, pass, "output", |x| {
            let wide = self.wide.forward_activation(x, Activation::Relu)?; // [B, T, F]
            let place = pass.place("wide");
            let wide = ops::dropout(&wide, &Dropout::new(self.dropout, &place, pass.mode))?;
            Ok(self
                .narrow
                .forward_activation(&wide, Activation::Identity)?)
        })
    }

    /// A part of the layer with its norm and its sum.
    fn around(
        &self,
        x: &Handle,
        norm: &LayerNorm,
        pass: Pass,
        part: &str,
        f: impl FnOnce(&Handle) -> Result<Handle>,
    ) -> Result<Handle> {
        let place = pass.place(part);
        let dropout = Dropout::new(self.dropout, &place, pass.mode);
        Ok(match self.before {
            true => ops::residual(x, &f(&norm.normalise(x)?)?, &dropout)?,
            false => norm.forward_residual(&f(x)?, x, &dropout)?,
        })
    }
}

#[derive(Clone)]
enum Attend {
    BlockTerm(BlockTermAttention),
    Standard(Standard),
}

impl Attend {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        Ok(match config.attention {
            Attention::BlockTerm => Self::BlockTerm(BlockTermAttention::new(config, vb)?),
            Attention::Standard => Self::Standard(Standard::new(config, vb)?),
        })
    }

    fn forward(&self, x: &Handle, dropout: f64, pass: Pass) -> Result<Handle> {
        match self {
            Self::BlockTerm(attention) => {
                let shared = pass.shared;
                attention.forward(x, &shared.positions, shared.biases.as_ref())
            }
            Self::Standard(attention) => attention.forward(x, dropout, pass),
        }
    }
}

/// Block-term attention: multi-linear, of one head, its cores averaged.
#[derive(Clone, Debug)]
pub struct BlockTermAttention {
    maps: Linear,     // [3R, D]
    relative: Linear, // [R, D]
    core: Tensor,     // [cores, R]
    output: Tensor,   // [D, L²]
    rank: usize,
    causal: bool,
}

impl BlockTermAttention {
    /// With the variables `query_key_value.weight` [3R, D], `relative.weight` [R, D], `core` [cores, R] and `output.weight`
    /// [D, L²].
    ///
    /// # Errors
    /// If a variable has another shape, or is not there.
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (d, rank, window) = (config.d_model, config.rank, config.window);
        let core = Init::Const(1.0 / rank as f64);
        let output = (d, window * window);
        Ok(Self {
            maps: plain_map(d, 3 * rank, vb.pp("query_key_value"))?,
            relative: plain_map(d, rank, vb.pp("relative"))?,
            core: nn::variable(&vb, (config.cores, rank), "core", core, Kind::Vector)?,
            output: nn::variable(
                &vb.pp("output"),
                output,
                "weight",
                normal(DEVIATION),
                Kind::Matrix,
            )?,
            rank,
            causal: !config.reference_unmasked,
        })
    }

    /// x [B, T, D] to [B, T, D], with positions [L, D] and the biases u and w, `[R]`, of content and positions.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(
        &self,
        x: &Handle,
        positions: &Tensor,
        biases: Option<&[Tensor; 2]>,
    ) -> Result<Handle> {
        let &[_, length, _] = x.dims() else {
            return Err(Error::Input {
                what: "input of block-term attention",
                expected: "[B, T, D]".into(),
                got: format!("{:?}", x.dims()),
            });
        };
        let plain = Activation::Identity;
        let maps = self.maps.forward_activation(x, plain)?; // [B, T, 3R]
        let third = |i| ops::narrow(&maps, 2, i * self.rank, self.rank);
        let (q, k, v) = (third(0)?, third(1)?, third(2)?); // [B, T, R]
        let positions = Handle::enter(&positions.narrow(0, 0, length)?)?;
        let relative = self.relative.forward_activation(&positions, plain)?; // [T, R]
        let core = self.mean_core()?; // [R]
        let along = match biases {
            None => ops::multiply_columns(&k, &core)?,
            Some([u, w]) => {
                let [of_keys, of_positions] =
                    [u, w].map(|bias| ops::multiply_columns(&Handle::enter(bias)?, &core));
                let keys = ops::multiply_columns(&k, &of_keys?)?;
                let positions = ops::multiply_columns(&relative, &of_positions?)?;
                ops::add_rows(&keys, &positions)? // [B, T, R]
            }
        };
        let s = ops::products_of_rows(&along, &v)?; // [B, T, T]
        let a = ops::multiply_columns(&q, &core)?;
        let m = ops::add_rows(&k, &relative)?;
        let factors = [&a, &m, &v];
        Ok(ops::multilinear_attention(
            factors,
            &s,
            &self.output,
            self.causal,
        )?)
    }
}

impl BlockTermAttention {
    /// The mean over the cores, [R].
    fn mean_core(&self) -> Result<Handle> {
        let &[cores, rank] = self.core.dims() else {
            return Ok(Handle::enter(&self.core)?); // the constructor has seen to it
        };
        let ids = (0..cores as u32).map(|core| Tensor::new(&[core], &Device::Cpu));
        let ids = ids.collect::<candle_core::Result<Vec<_>>>()?;
        let all = ids.iter().map(|id| (id, &self.core, 1.0 / cores as f64));
        let mean = ops::scaled_sum_of_rows(&all.collect::<Vec<_>>())?; // [1, R]
        Ok(ops::reshape(&mean, &[rank])?)
    }
}

/// Attention with a softmax.
#[derive(Clone)]
struct Standard {
    query: Linear,  // [D, D]
    key: Linear,    // [D, D]
    value: Linear,  // [D, D]
    output: Linear, // [D, D]
    heads: usize,
}

impl Standard {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let d = config.d_model;
        Ok(Self {
            query: map(d, d, vb.pp("query"))?,
            key: map(d, d, vb.pp("key"))?,
            value: map(d, d, vb.pp("value"))?,
            output: map(d, d, vb.pp("output"))?,
            heads: config.attention_heads,
        })
    }

    fn forward(&self, x: &Handle, dropout: f64, pass: Pass) -> Result<Handle> {
        let plain = Activation::Identity;
        let q = self.query.forward_activation(x, plain)?;
        let k = self.key.forward_activation(x, plain)?;
        let v = self.value.forward_activation(x, plain)?;
        let place = pass.place("attention.weights");
        let dropout = Dropout::new(dropout, &place, pass.mode);
        let seen = ops::attention([&q, &k, &v], self.heads, None, true, &dropout)?; // [B, T, D]
        Ok(self.output.forward_activation(&seen, plain)?)
    }
}
