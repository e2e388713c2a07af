//! The transformer for translation (Vaswani et al. 2017), as fairseq has it: an encoder, a decoder, and one
//! table of embeddings for source, target and output.
//!
//! ```text
//! h₀     = dropout(√D E[source] + P)                       [B, S, D]   P: sines and cosines
//! hᵢ₊₁   = encoder layerᵢ(hᵢ)                              [B, S, D]   see `layer`
//! g₀     = dropout(√D E[previous] + P)                     [B, T, D]
//! gᵢ₊₁   = decoder layerᵢ(gᵢ, h)                           [B, T, D]
//! logits = g Eᵀ                                            [B, T, V]
//! ```
//! Where layers normalise what goes in, h and g are normalised once more. Variables have fairseq's names
//! (`decoder.layers.0.encoder_attn.k_proj.weight`); the table is `encoder.embed_tokens.weight`.
//!
//! Padding changes nothing: it is not attended to, and positions are counted without it, from 2, as in
//! fairseq, where they begin behind the padding's id, 1.

mod config;
mod decode;
mod layer;

pub use config::{Config, MODEL_TYPE};
pub use decode::Decoding;

use crate::config::to_json;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::parts::normal;
use crate::weights::{self, LoadReport, Start, Variables};
use adahessian::engine::Handle;
use adahessian::nn::{self, LayerNorm, VarBuilder};
use adahessian::ops::{self, Activation, Dropout, Mode};
use adahessian::{Block, Kind};
use candle_core::{DType, Device, Tensor};
use layer::{DecoderLayer, EncoderLayer, Pass};
use serde_json::Value;
use std::path::Path;

/// The table of embeddings.
const WORDS: &str = "encoder.embed_tokens";
/// What fairseq calls it as the target's and the output's, where it saves it more than once.
const OTHER_TABLES: [&str; 3] = [
    "decoder.embed_tokens.weight",
    "decoder.output_projection.weight",
    "decoder.embed_out",
];
/// The position of a sentence's first token.
const FIRST: u32 = 2;

/// A translator.
#[derive(Clone)]
pub struct Transformer {
    config: Config,
    json: Value,
    network: Network,
    variables: Variables,
}

#[derive(Clone)]
struct Network {
    words: Tensor,     // [V, D]
    positions: Tensor, // [P, D], a constant
    encoder: Vec<EncoderLayer>,
    encoder_norm: Option<LayerNorm>,
    decoder: Vec<DecoderLayer>,
    decoder_norm: Option<LayerNorm>,
}

impl Network {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (v, d) = (config.vocab_size, config.d_model);
        let deviation = normal((d as f64).powf(-0.5));
        let table = nn::embedding_with(v, d, deviation, vb.pp(WORDS))?;
        let norm = |side: &str| -> Result<Option<LayerNorm>> {
            let vb = vb.pp(side).pp("layer_norm");
            match config.normalize_before {
                true => Ok(Some(nn::layer_norm(d, config.layer_norm_eps, vb)?)),
                false => Ok(None),
            }
        };
        let (encoder, decoder) = (vb.pp("encoder.layers"), vb.pp("decoder.layers"));
        let encoder = (0..config.encoder_layers).map(|i| EncoderLayer::new(config, encoder.pp(i)));
        let decoder = (0..config.decoder_layers).map(|i| DecoderLayer::new(config, decoder.pp(i)));
        Ok(Self {
            words: table.embeddings().clone(),
            positions: sinusoids(config.max_position_embeddings, d)?
                .to_dtype(vb.dtype())?
                .to_device(vb.device())?,
            encoder: encoder.collect::<Result<_>>()?,
            encoder_norm: norm("encoder")?,
            decoder: decoder.collect::<Result<_>>()?,
            decoder_norm: norm("decoder")?,
        })
    }
}

/// The positions of a sentence, [count + 2, d] in f64: sin(p ω_i) in the first half of a row and cos(p ω_i)
/// in the second, ω_i = 10000^(-i/(d/2 - 1)); row p is position p, and row 0, padding's, is zero.
fn sinusoids(count: usize, d: usize) -> Result<Tensor> {
    let (rows, half) = (count + FIRST as usize, d / 2);
    let decay = 10_000f64.ln() / (half as f64 - 1.0);
    let mut table = vec![0.0; rows * d];
    for (p, row) in table.chunks_exact_mut(d).enumerate().skip(1) {
        for i in 0..half {
            let angle = p as f64 * (-(i as f64) * decay).exp();
            (row[i], row[half + i]) = angle.sin_cos();
        }
    }
    Ok(Tensor::from_vec(table, (rows, d), &Device::Cpu)?)
}

impl Transformer {
    /// A translator with random weights, each a function of the seed and its name.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes that do not fit; candle's errors.
    pub fn new(config: &Config, start: &Start) -> Result<Self> {
        config.check()?;
        let (network, variables) = weights::draw(start, |vb| Network::new(config, vb))?;
        let model = Self::with(config, network, variables)?;
        model.silence_padding()?;
        Ok(model)
    }

    /// A translator from a folder that [`Model::save`] wrote, or that has fairseq's variables in a
    /// `model.safetensors` beside a config.json of [`Config`].
    ///
    /// # Errors
    /// Those of [`Config::read`] and [`weights::load`]; [`Error::Config`] for fairseq's models whose target or output has a
    /// table of its own.
    pub fn load(folder: &Path, start: &Start) -> Result<(Self, LoadReport)> {
        let config = Config::read(folder)?;
        let make = |vb| Network::new(&config, vb);
        let (network, variables, report) = weights::load(folder, "", start, make)?;
        let model = Self::with(&config, network, variables)?;
        for other in OTHER_TABLES.map(String::from) {
            if report.unused.contains(&other) {
                model.expect_the_same(&other, &weights::read(folder, &other)?)?;
            }
        }
        Ok((model, report))
    }

    /// Refuses a table of another use that is not the one that there is for all.
    fn expect_the_same(&self, name: &str, other: &Tensor) -> Result<()> {
        let words = self.vars();
        let words = words.get(&format!("{WORDS}.weight"))?.as_detached_tensor();
        let same = other.dims() == words.dims() && {
            let other = other.to_dtype(words.dtype())?.to_device(words.device())?;
            let differs = words.ne(&other)?.to_dtype(DType::F64)?;
            differs.sum_all()?.to_scalar::<f64>()? == 0.0
        };
        match same {
            true => Ok(()),
            false => Err(Error::Config {
                field: "share_all_embeddings",
                expected:
                    "one table for source, target and output (fairseq's --share-all-embeddings)"
                        .into(),
                got: format!("`{name}` with numbers of its own"),
            }),
        }
    }

    fn with(config: &Config, network: Network, variables: Variables) -> Result<Self> {
        Ok(Self {
            config: config.clone(),
            json: to_json(config, MODEL_TYPE)?,
            network,
            variables,
        })
    }

    /// The padding's row begins at zero: it is never looked up, but it is an output like any other.
    fn silence_padding(&self) -> Result<()> {
        let vars = self.vars();
        let words = vars.get(&format!("{WORDS}.weight"))?;
        let keep = (0..self.config.vocab_size as u32).map(|id| id != self.config.pad_token_id);
        let keep: Vec<f32> = keep.map(|keep| f32::from(u8::from(keep))).collect();
        let keep = Tensor::from_vec(keep, (self.config.vocab_size, 1), &Device::Cpu)?;
        let keep = keep.to_dtype(words.dtype())?.to_device(words.device())?;
        words.set(&words.as_detached_tensor().broadcast_mul(&keep)?)?;
        Ok(())
    }

    /// The logits [B, T, V] of the next token behind each of `previous` [B, T], for `source` [B, S]; both of
    /// u32 or i64, padded with the padding's id at either end.
    ///
    /// # Errors
    /// [`Error::Input`] for other shapes or dtypes, ids beyond the vocabulary, sentences longer than the
    /// positions reach.
    pub fn forward(&self, source: &Tensor, previous: &Tensor, mode: &Mode) -> Result<Tensor> {
        self.logits(&self.decoded(source, previous, mode)?)
    }

    /// The mean of -log p of `targets` [B, T], the tokens behind each of `previous` [B, T], in nats: those that are not
    /// `ignore_index`. `label_smoothing` spreads that share of the mass over the vocabulary. The logits are never there all
    /// at once ([`ops::linear_cross_entropy`]).
    ///
    /// # Errors
    /// As [`Transformer::forward`], and for targets of another shape or beyond the vocabulary.
    pub fn loss(
        &self,
        (source, previous, targets): (&Tensor, &Tensor, &Tensor),
        label_smoothing: f64,
        ignore_index: Option<i64>,
        mode: &Mode,
    ) -> Result<Tensor> {
        let x = self.decoded(source, previous, mode)?;
        let words = &self.network.words;
        let loss =
            ops::linear_cross_entropy(&x, words, None, targets, label_smoothing, ignore_index)?;
        Ok(loss.exit()?)
    }

    /// The decoder's last state, [B, T, D].
    fn decoded(&self, source: &Tensor, previous: &Tensor, mode: &Mode) -> Result<Handle> {
        let source = Side::read("source", source, &self.config)?;
        let previous = Side::read("previous", previous, &self.config)?;
        if source.batch() != previous.batch() {
            let expected = format!("{}, as many as sources", source.batch());
            return wrong(
                "sentences of previous",
                expected,
                previous.batch().to_string(),
            );
        }
        let encoded = self.encode(&source, mode)?; // [B, S, D]
        let masks = (previous.mask.as_ref(), source.mask.as_ref());
        let mut x = self.embed(&previous, "decoder.embeddings", mode)?; // [B, T, D]
        for (i, layer) in self.network.decoder.iter().enumerate() {
            let name = format!("decoder.{i}");
            let pass = Pass { mode, layer: &name };
            x = layer.forward(&x, &encoded, masks, pass)?; // [B, T, D]
        }
        normalised(&self.network.decoder_norm, &x)
    }

    /// Its sizes and settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The encoder's last state, [B, S, D].
    fn encode(&self, source: &Side, mode: &Mode) -> Result<Handle> {
        let mut x = self.embed(source, "encoder.embeddings", mode)?; // [B, S, D]
        for (i, layer) in self.network.encoder.iter().enumerate() {
            let name = format!("encoder.{i}");
            let pass = Pass { mode, layer: &name };
            x = layer.forward(&x, source.mask.as_ref(), pass)?; // [B, S, D]
        }
        normalised(&self.network.encoder_norm, &x)
    }

    fn embed(&self, side: &Side, place: &str, mode: &Mode) -> Result<Handle> {
        let network = &self.network;
        let scale = (self.config.d_model as f64).sqrt();
        let x = ops::scaled_sum_of_rows(&[
            (&side.ids, &network.words, scale),
            (&side.positions, &network.positions, 1.0),
        ])?; // [B, T, D]
        Ok(ops::dropout(
            &x,
            &Dropout::new(self.config.dropout, place, mode),
        )?)
    }

    fn logits(&self, decoded: &Handle) -> Result<Tensor> {
        let words = &self.network.words;
        let logits = ops::linear(decoded, words, None, 1, Activation::Identity)?; // [B, T, V]
        Ok(logits.exit()?)
    }
}

fn normalised(norm: &Option<LayerNorm>, x: &Handle) -> Result<Handle> {
    match norm {
        Some(norm) => Ok(norm.normalise(x)?),
        None => Ok(x.clone()),
    }
}

impl Model for Transformer {
    fn variables(&self) -> &Variables {
        &self.variables
    }

    fn config(&self) -> Value {
        self.json.clone()
    }

    /// Matrices and the table in runs of 32 entries, the rest single, as in the paper's experiments.
    fn block(&self, kind: Kind) -> Block {
        match kind {
            Kind::Matrix | Kind::Table => Block::Chunks(32),
            _ => Block::Single,
        }
    }
}

/// The sentences of one side of a batch, checked.
struct Side {
    ids: Tensor,          // [B, T], u32, CPU
    positions: Tensor,    // [B, T], u32, CPU
    mask: Option<Tensor>, // [B, T], u32, 1 for text; none without padding
}

impl Side {
    /// The ids are looked at on the CPU: one copy from a GPU.
    fn read(what: &'static str, ids: &Tensor, config: &Config) -> Result<Self> {
        let &[batch, length] = ids.dims() else {
            return wrong(what, "[sentences, tokens]", format!("{:?}", ids.dims()));
        };
        let positions = config.max_position_embeddings;
        if batch == 0 || length == 0 || length > positions {
            let expected = format!("at least one sentence of 1 to {positions} tokens");
            return wrong(what, expected, format!("{:?}", ids.dims()));
        }
        if !matches!(ids.dtype(), DType::U32 | DType::I64) {
            return wrong(what, "dtype U32 or I64", format!("{:?}", ids.dtype()));
        }
        let rows = ids
            .to_device(&Device::Cpu)?
            .to_dtype(DType::I64)?
            .to_vec2::<i64>()?;
        let mut all = Vec::with_capacity(batch * length);
        let mut places = Vec::with_capacity(batch * length);
        for (sentence, row) in rows.iter().enumerate() {
            let mut next = FIRST;
            for (token, &id) in row.iter().enumerate() {
                let id = u32::try_from(id)
                    .ok()
                    .filter(|&id| (id as usize) < config.vocab_size);
                let Some(id) = id else {
                    let got = format!("{} in sentence {sentence} at token {token}", row[token]);
                    return wrong(what, format!("ids below {}", config.vocab_size), got);
                };
                let is_text = id != config.pad_token_id;
                all.push(id);
                places.push(if is_text { next } else { 0 });
                next += u32::from(is_text);
            }
        }
        let padded = places.contains(&0);
        let mask = places
            .iter()
            .map(|&place| u32::from(place > 0))
            .collect::<Vec<_>>();
        let tensor = |data| Tensor::from_vec(data, (batch, length), &Device::Cpu);
        Ok(Self {
            ids: tensor(all)?,
            positions: tensor(places)?,
            mask: padded.then(|| tensor(mask)).transpose()?,
        })
    }

    fn batch(&self) -> usize {
        self.ids.dims()[0]
    }
}

fn wrong<T>(what: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Result<T> {
    Err(Error::Input {
        what,
        expected: expected.into(),
        got: got.into(),
    })
}
