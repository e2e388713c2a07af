//! Translating token by token: what was computed for earlier positions is kept.

use super::layer::{Pass, Seen};
use super::{FIRST, Side, Transformer, normalised, wrong};
use crate::error::Result;
use adahessian::engine::Handle;
use adahessian::ops::Mode;
use adahessian::without_graph;
use candle_core::{Device, Tensor};

/// Sentences that are being translated: their encoder's states, and each decoder layer's keys and values of
/// the tokens so far. Values alone: nothing here has derivatives.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use models::{Start, transformer::{Config, Transformer}};
/// let model = Transformer::new(&Config::tiny(), &Start::default())?;
/// let source = Tensor::new(&[[5u32, 6, 2], [7, 2, 1]], &Device::Cpu)?;
/// let mut decoding = model.decode(&source)?;
/// let logits = decoding.step(&[2, 2])?; // of the first tokens, [2, 40]
/// decoding.select(&[1, 1, 0])?; // the second sentence in two hypotheses, the first in one
/// let logits = decoding.step(&[9, 8, 9])?; // of the second tokens, [3, 40]
/// # assert_eq!(logits.dims(), [3, 40]);
/// # Ok::<(), models::Error>(())
/// ```
pub struct Decoding<'a> {
    model: &'a Transformer,
    /// Of every layer: what it sees of the source, [B, S, D].
    source: Vec<Kept>,
    mask: Option<Tensor>, // [B, S]
    /// Of every layer: what it sees of the tokens so far, [B, T, D]; none at the start.
    target: Vec<Option<Kept>>,
    rows: usize,
    length: usize,
}

/// Keys and values without a graph.
#[derive(Clone)]
struct Kept {
    keys: Tensor,
    values: Tensor,
}

impl Kept {
    fn of(seen: &Seen) -> Result<Self> {
        Ok(Self {
            keys: seen.keys.exit()?.detach(),
            values: seen.values.exit()?.detach(),
        })
    }

    fn seen(&self) -> Result<Seen> {
        Ok(Seen {
            keys: Handle::enter(&self.keys)?,
            values: Handle::enter(&self.values)?,
        })
    }

    /// These, and behind them later positions.
    fn then(&self, later: &Self) -> Result<Self> {
        Ok(Self {
            keys: Tensor::cat(&[&self.keys, &later.keys], 1)?,
            values: Tensor::cat(&[&self.values, &later.values], 1)?,
        })
    }

    fn select(&mut self, rows: &Tensor) -> Result<()> {
        let rows = rows.to_device(self.keys.device())?;
        self.keys = self.keys.index_select(&rows, 0)?;
        self.values = self.values.index_select(&rows, 0)?;
        Ok(())
    }
}

impl Transformer {
    /// Reads the sentences `source` [B, S], and begins to translate them: a row each.
    ///
    /// # Errors
    /// As [`Transformer::forward`].
    pub fn decode(&self, source: &Tensor) -> Result<Decoding<'_>> {
        let source = Side::read("source", source, &self.config)?;
        let encoded = without_graph(|| self.encode(&source, &Mode::Eval))?;
        // One handle for all layers, cut off from the encoder.
        let encoded = Handle::enter(&encoded.exit()?.detach())?;
        let layers = self.network.decoder.iter();
        let seen = layers.map(|layer| Kept::of(&layer.encoder_attention.see(&encoded)?));
        Ok(Decoding {
            model: self,
            source: seen.collect::<Result<_>>()?,
            rows: source.batch(),
            mask: source.mask,
            target: vec![None; self.network.decoder.len()],
            length: 0,
        })
    }
}

impl Decoding<'_> {
    /// Takes the rows' next tokens (the first are ends of sentences), and gives the logits [rows, V] of those
    /// behind them.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) for another number of tokens than rows, one beyond the
    /// vocabulary, or more steps than there are positions.
    pub fn step(&mut self, tokens: &[u32]) -> Result<Tensor> {
        if tokens.len() != self.rows {
            let expected = format!("{}, one for each row", self.rows);
            return wrong("tokens of a step", expected, tokens.len().to_string());
        }
        let most = self.model.config.max_position_embeddings;
        if self.length >= most {
            return wrong(
                "steps",
                format!("at most {most}"),
                (self.length + 1).to_string(),
            );
        }
        let x = without_graph(|| self.decoded(tokens))?;
        self.length += 1;
        Ok(without_graph(|| self.model.logits(&x))?
            .detach()
            .squeeze(1)?)
    }

    /// The last state [B, 1, D] at the next position.
    fn decoded(&mut self, tokens: &[u32]) -> Result<Handle> {
        let ids = Tensor::from_vec(tokens.to_vec(), (self.rows, 1), &Device::Cpu)?;
        let mut side = Side::read("tokens of a step", &ids, &self.model.config)?;
        let position = FIRST + self.length as u32;
        side.positions = Tensor::full(position, (self.rows, 1), &Device::Cpu)?;
        let mut x = self.model.embed(&side, "", &Mode::Eval)?; // [B, 1, D]
        for (i, layer) in self.model.network.decoder.iter().enumerate() {
            let pass = Pass {
                mode: &Mode::Eval,
                layer: "",
            };
            let target = &mut self.target[i];
            let mut join = |new: Seen| {
                let new = Kept::of(&new)?;
                let all = match target.as_ref() {
                    Some(before) => before.then(&new)?,
                    None => new,
                };
                *target = Some(all.clone());
                all.seen()
            };
            let source = (&self.source[i].seen()?, self.mask.as_ref());
            x = layer.next(&x, &mut join, source, pass)?; // [B, 1, D]
        }
        normalised(&self.model.network.decoder_norm, &x)
    }

    /// Goes on with these of the rows, in this order; a row may be taken several times, or not at all.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) for none, or a row that is not there.
    pub fn select(&mut self, rows: &[usize]) -> Result<()> {
        if rows.is_empty() || rows.iter().any(|&row| row >= self.rows) {
            let expected = format!("at least one, each below {}", self.rows);
            return wrong("rows to go on with", expected, format!("{rows:?}"));
        }
        let index: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let index = Tensor::from_vec(index, rows.len(), &Device::Cpu)?;
        for kept in self
            .source
            .iter_mut()
            .chain(self.target.iter_mut().flatten())
        {
            kept.select(&index)?;
        }
        if let Some(mask) = &self.mask {
            self.mask = Some(mask.index_select(&index, 0)?);
        }
        self.rows = rows.len();
        Ok(())
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of steps so far.
    pub fn length(&self) -> usize {
        self.length
    }
}
