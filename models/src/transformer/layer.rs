//! The parts of a transformer's layers, and the two layers.
//!
//! ```text
//! part(x) = x + dropout(f(LayerNorm(x)))          normalising before
//! part(x) = LayerNorm(x + dropout(f(x)))          normalising after
//! ```

use super::Config;
use crate::error::Result;
use adahessian::engine::Handle;
use adahessian::nn::{self, Init, LayerNorm, Linear, LinearConfig, VarBuilder, init};
use adahessian::ops::{self, Activation, Dropout, Mode};
use candle_core::Tensor;

/// Uniform within gain·√(6/(inputs + outputs)) (Glorot and Bengio 2010), biases 0.
fn linear(inputs: usize, outputs: usize, gain: f64, vb: VarBuilder) -> Result<Linear> {
    let bound = gain * (6.0 / (inputs + outputs) as f64).sqrt();
    let weight = Init::Uniform {
        lo: -bound,
        up: bound,
    };
    let config = LinearConfig::new(weight, init::ZERO);
    Ok(nn::linear_with(inputs, outputs, config, vb)?)
}

/// One pass: whether dropout drops, and with which masks.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub mode: &'a Mode,
    /// The name of the layer, which its places of dropout begin with.
    pub layer: &'a str,
}

impl Pass<'_> {
    /// The name of a place.
    fn place(&self, part: &str) -> String {
        format!("{}.{part}", self.layer)
    }
}

/// The norm and the sum around a part of a layer.
#[derive(Clone, Debug)]
struct Around {
    norm: LayerNorm, // [D]
    before: bool,
    dropout: f64,
}

impl Around {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            norm: nn::layer_norm(config.d_model, config.layer_norm_eps, vb)?,
            before: config.normalize_before,
            dropout: config.dropout,
        })
    }

    /// What the part is given.
    fn enter(&self, x: &Handle) -> Result<Handle> {
        match self.before {
            true => Ok(self.norm.normalise(x)?),
            false => Ok(x.clone()),
        }
    }

    /// What it adds to the hidden state x.
    fn leave(&self, x: &Handle, f: &Handle, pass: Pass, part: &str) -> Result<Handle> {
        let place = pass.place(part);
        let dropout = Dropout::new(self.dropout, &place, pass.mode);
        Ok(match self.before {
            true => ops::residual(x, f, &dropout)?,
            false => self.norm.forward_residual(f, x, &dropout)?,
        })
    }
}

/// The keys and values of positions, for one attention: [B, S, D] each.
#[derive(Clone)]
pub(super) struct Seen {
    pub keys: Handle,
    pub values: Handle,
}

/// Multi-head attention with its norm and its sum.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    around: Around,
    query: Linear,  // [D, D]
    key: Linear,    // [D, D]
    value: Linear,  // [D, D]
    output: Linear, // [D, D]
    heads: usize,
    dropout: f64,
    name: &'static str,
}

impl Attention {
    fn new(config: &Config, name: &'static str, vb: &VarBuilder) -> Result<Self> {
        let (d, maps) = (config.d_model, vb.pp(name));
        // Queries, keys and values begin as one map of the three would.
        let third = 0.5f64.sqrt();
        Ok(Self {
            around: Around::new(config, vb.pp(format!("{name}_layer_norm")))?,
            query: linear(d, d, third, maps.pp("q_proj"))?,
            key: linear(d, d, third, maps.pp("k_proj"))?,
            value: linear(d, d, third, maps.pp("v_proj"))?,
            output: linear(d, d, 1.0, maps.pp("out_proj"))?,
            heads: config.attention_heads,
            dropout: config.attention_dropout,
            name,
        })
    }

    /// What this attention sees of the states [B, S, D] of another stack.
    pub fn see(&self, states: &Handle) -> Result<Seen> {
        let plain = Activation::Identity;
        Ok(Seen {
            keys: self.key.forward_activation(states, plain)?,
            values: self.value.forward_activation(states, plain)?,
        })
    }

    /// Of x [B, T, D] to what was seen elsewhere.
    pub fn across(
        &self,
        x: &Handle,
        seen: &Seen,
        mask: Option<&Tensor>, // [B, S]
        pass: Pass,
    ) -> Result<Handle> {
        self.attend(x, &self.around.enter(x)?, seen, (mask, false), pass)
    }

    /// Of x [B, T, D] to itself; with `causal`, to earlier positions only.
    pub fn within(
        &self,
        x: &Handle,
        mask: Option<&Tensor>, // [B, T]
        causal: bool,
        pass: Pass,
    ) -> Result<Handle> {
        let entered = self.around.enter(x)?;
        let seen = self.see(&entered)?;
        self.attend(x, &entered, &seen, (mask, causal), pass)
    }

    /// Of new positions x [B, 1, D] to themselves and earlier ones, which `join` knows.
    pub fn after(
        &self,
        x: &Handle,
        join: &mut dyn FnMut(Seen) -> Result<Seen>,
        pass: Pass,
    ) -> Result<Handle> {
        let entered = self.around.enter(x)?;
        let seen = join(self.see(&entered)?)?;
        self.attend(x, &entered, &seen, (None, false), pass)
    }

    fn attend(
        &self,
        x: &Handle,
        entered: &Handle,
        seen: &Seen,
        (mask, causal): (Option<&Tensor>, bool),
        pass: Pass,
    ) -> Result<Handle> {
        let plain = Activation::Identity;
        let q = self.query.forward_activation(entered, plain)?; // [B, T, D]
        let place = pass.place(&format!("{}.weights", self.name));
        let dropout = Dropout::new(self.dropout, &place, pass.mode);
        let qkv = [&q, &seen.keys, &seen.values];
        let context = ops::attention(qkv, self.heads, mask, causal, &dropout)?; // [B, T, D]
        let attended = self.output.forward_activation(&context, plain)?; // [B, T, D]
        self.around.leave(x, &attended, pass, self.name)
    }
}

/// The wide part of a layer, with its norm and its sum.
#[derive(Clone, Debug)]
pub(super) struct FeedForward {
    around: Around,
    wide: Linear,   // [F, D]
    narrow: Linear, // [D, F]
    dropout: f64,
}

impl FeedForward {
    fn new(config: &Config, vb: &VarBuilder) -> Result<Self> {
        let (d, wide) = (config.d_model, config.ffn_dim);
        Ok(Self {
            around: Around::new(config, vb.pp("final_layer_norm"))?,
            wide: linear(d, wide, 1.0, vb.pp("fc1"))?,
            narrow: linear(wide, d, 1.0, vb.pp("fc2"))?,
            dropout: config.activation_dropout,
        })
    }

    fn forward(&self, x: &Handle, pass: Pass) -> Result<Handle> {
        let entered = self.around.enter(x)?;
        let wide = self.wide.forward_activation(&entered, Activation::Relu)?; // [B, T, F]
        let place = pass.place("activation");
        let wide = ops::dropout(&wide, &Dropout::new(self.dropout, &place, pass.mode))?;
        let narrow = self
            .narrow
            .forward_activation(&wide, Activation::Identity)?; // [B, T, D]
        self.around.leave(x, &narrow, pass, "output")
    }
}

/// A layer of the encoder.
#[derive(Clone, Debug)]
pub(super) struct EncoderLayer {
    self_attention: Attention,
    feed_forward: FeedForward,
}

impl EncoderLayer {
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            self_attention: Attention::new(config, "self_attn", &vb)?,
            feed_forward: FeedForward::new(config, &vb)?,
        })
    }

    pub fn forward(&self, x: &Handle, mask: Option<&Tensor>, pass: Pass) -> Result<Handle> {
        let x = self.self_attention.within(x, mask, false, pass)?; // [B, S, D]
        self.feed_forward.forward(&x, pass)
    }
}

/// A layer of the decoder.
#[derive(Clone, Debug)]
pub(super) struct DecoderLayer {
    pub self_attention: Attention,
    pub encoder_attention: Attention,
    pub feed_forward: FeedForward,
}

impl DecoderLayer {
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            self_attention: Attention::new(config, "self_attn", &vb)?,
            encoder_attention: Attention::new(config, "encoder_attn", &vb)?,
            feed_forward: FeedForward::new(config, &vb)?,
        })
    }

    /// Of the whole target.
    pub fn forward(
        &self,
        x: &Handle,                                        // [B, T, D]
        encoded: &Handle,                                  // [B, S, D]
        (own, source): (Option<&Tensor>, Option<&Tensor>), // [B, T], [B, S]
        pass: Pass,
    ) -> Result<Handle> {
        let x = self.self_attention.within(x, own, true, pass)?; // [B, T, D]
        let seen = self.encoder_attention.see(encoded)?;
        self.rest(&x, &seen, source, pass)
    }

    /// Of its next positions.
    pub fn next(
        &self,
        x: &Handle, // [B, 1, D]
        join: &mut dyn FnMut(Seen) -> Result<Seen>,
        (encoded, source): (&Seen, Option<&Tensor>),
        pass: Pass,
    ) -> Result<Handle> {
        let x = self.self_attention.after(x, join, pass)?; // [B, 1, D]
        self.rest(&x, encoded, source, pass)
    }

    fn rest(&self, x: &Handle, seen: &Seen, mask: Option<&Tensor>, pass: Pass) -> Result<Handle> {
        let x = self.encoder_attention.across(x, seen, mask, pass)?;
        self.feed_forward.forward(&x, pass)
    }
}
