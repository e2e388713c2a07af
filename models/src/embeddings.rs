//! What a stack of layers begins with: dropout(LayerNorm(word + type + position)).

use crate::architecture::Text;
use crate::error::Result;
use crate::parts::normal;
use adahessian::engine::Handle;
use adahessian::nn::{self, LayerNorm, VarBuilder};
use adahessian::ops::{self, Dropout, Mode};
use candle_core::{Device, Tensor};

/// The tables, under the names that all families give them.
#[derive(Clone, Debug)]
pub(crate) struct Embeddings {
    pub words: Tensor,           // [V, D]
    token_types: Option<Tensor>, // [K, D]
    positions: Tensor,           // [P, D]
    norm: LayerNorm,             // [D]
    dropout: f64,
}

/// What they are made of.
pub(crate) struct Settings {
    pub words: usize,
    /// 0 where there are none.
    pub token_types: usize,
    pub positions: usize,
    pub width: usize,
    /// The standard deviation of their numbers at first.
    pub deviation: f64,
    pub eps: f64,
    pub dropout: f64,
}

impl Embeddings {
    pub fn new(settings: &Settings, vb: VarBuilder) -> Result<Self> {
        let width = settings.width;
        let table = |rows, name| -> Result<Tensor> {
            let table = nn::embedding_with(rows, width, normal(settings.deviation), vb.pp(name))?;
            Ok(table.embeddings().clone())
        };
        Ok(Self {
            words: table(settings.words, "word_embeddings")?,
            token_types: match settings.token_types {
                0 => None,
                types => Some(table(types, "token_type_embeddings")?),
            },
            positions: table(settings.positions, "position_embeddings")?,
            norm: nn::layer_norm(width, settings.eps, vb.pp("LayerNorm"))?,
            dropout: settings.dropout,
        })
    }

    /// The hidden state [B, T, D] in front of the first layer, at positions [B, T], 0 to T - 1 where none
    /// are given.
    pub fn forward(&self, text: &Text, positions: Option<Tensor>, mode: &Mode) -> Result<Handle> {
        let (batch, length) = text.ids.dims2()?;
        let positions = match positions {
            Some(positions) => positions,
            None => {
                Tensor::arange(0u32, length as u32, &Device::Cpu)?.broadcast_as((batch, length))?
            }
        };
        let types = self.token_types.as_ref().map(|table| (&text.types, table));
        let mut parts = vec![(&text.ids, &self.words)];
        parts.extend(types);
        parts.push((&positions, &self.positions));
        let sum = ops::sum_of_rows(&parts)?; // [B, T, D]
        let hidden = self.norm.normalise(&sum)?;
        let dropout = Dropout::new(self.dropout, "embeddings", mode);
        Ok(ops::dropout(&hidden, &dropout)?)
    }
}
