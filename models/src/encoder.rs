//! The encoder: embeddings and layers, up to the last hidden state.

use crate::architecture::{Architecture, Map};
use crate::error::{Error, Result};
use crate::parts::{Linear, Norm, tensor};
use adahessian::NamedVars;
use adahessian::engine::Handle;
use adahessian::ops::{self, Activation, Dropout, EmbeddingTables, Mode};
use candle_core::{DType, Device, Tensor};

#[derive(Clone, Debug)]
struct Layer {
    name: String,
    query: Linear,
    key: Linear,
    value: Linear,
    post_attention: Linear,
    post_attention_norm: Norm,
    intermediate: Linear,
    output: Linear,
    output_norm: Norm,
}

impl Layer {
    fn new(vars: &NamedVars, architecture: &Architecture, layer: usize) -> Result<Self> {
        let prefix = architecture.layer_prefix(layer);
        let linear = |map: Map| Linear::new(vars, &format!("{prefix}.{}", map.name), map.groups);
        let norm =
            |name: &str| Norm::new(vars, &format!("{prefix}.{name}"), architecture.layer_eps);
        let [query, key, value, post_attention, intermediate, output] = architecture.maps();
        Ok(Self {
            query: linear(query)?,
            key: linear(key)?,
            value: linear(value)?,
            post_attention: linear(post_attention)?,
            post_attention_norm: norm(architecture.names.post_attention_norm)?,
            intermediate: linear(intermediate)?,
            output: linear(output)?,
            output_norm: norm(architecture.names.output_norm)?,
            name: format!("layer.{layer}"),
        })
    }

    /// Its output for `positions`, which are all or the first of `hidden`; every position of `hidden`
    /// is attended to.
    fn forward(
        &self,
        hidden: &Handle,    // [B, T, D]
        positions: &Handle, // [B, Q, D]
        key_mask: Option<&Tensor>,
        architecture: &Architecture,
        mode: &Mode,
    ) -> Result<Handle> {
        let plain = Activation::Identity;
        let place = |part: &str| format!("{}.{part}", self.name);
        let (a, b, c) = (
            place("attention.weights"),
            place("attention"),
            place("output"),
        );
        let weights = Dropout::new(architecture.attention_dropout, &a, mode);
        let q = self.query.forward(positions, plain)?; // [B, Q, D]
        let k = self.key.forward(hidden, plain)?; // [B, T, D]
        let v = self.value.forward(hidden, plain)?;
        let heads = architecture.heads;
        let context = ops::attention([&q, &k, &v], heads, key_mask, false, &weights)?; // [B, Q, D]
        let attended = self.post_attention.forward(&context, plain)?;
        let dropout = Dropout::new(architecture.dropout, &b, mode);
        let norm = &self.post_attention_norm;
        let attended = norm.forward(&attended, Some(positions), &dropout)?;
        let wide = self
            .intermediate
            .forward(&attended, architecture.activation)?; // [B, Q, I]
        let narrow = self.output.forward(&wide, plain)?; // [B, Q, D]
        let dropout = Dropout::new(architecture.dropout, &c, mode);
        self.output_norm.forward(&narrow, Some(&attended), &dropout)
    }
}

/// What an encoder reads: `ids`, `types` (zeros where none) and `mask` (ones where none), all [B, T].
pub(crate) struct Inputs<'a> {
    pub ids: &'a Tensor,
    pub types: Option<&'a Tensor>,
    pub mask: Option<&'a Tensor>,
}

/// The positions of which the last hidden state is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    All,
    /// The first alone, [B, 1, D]: the last layer is computed for no other, which saves all of its
    /// products but those of keys and values.
    First,
}

/// Embeddings and layers.
#[derive(Clone, Debug)]
pub struct Encoder {
    architecture: Architecture,
    words: Tensor,
    positions: Tensor,
    token_types: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
}

impl Encoder {
    /// The encoder over these variables, which have the names of a Hub checkpoint.
    ///
    /// # Errors
    /// [`adahessian::Error::UnknownVariable`] for a variable that is not there.
    pub fn new(vars: &NamedVars, architecture: &Architecture) -> Result<Self> {
        let name = |part: &str| format!("{}.embeddings.{part}", architecture.names.prefix);
        let layers = (0..architecture.layers).map(|i| Layer::new(vars, architecture, i));
        Ok(Self {
            words: tensor(vars, &name("word_embeddings.weight"))?,
            positions: tensor(vars, &name("position_embeddings.weight"))?,
            token_types: tensor(vars, &name("token_type_embeddings.weight"))?,
            norm: Norm::new(vars, &name("LayerNorm"), architecture.eps)?,
            layers: layers.collect::<Result<_>>()?,
            architecture: architecture.clone(),
        })
    }

    /// Its sizes and settings.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The word embedding [V, D].
    pub(crate) fn words(&self) -> &Tensor {
        &self.words
    }

    /// The embeddings' output and every layer's: `layers + 1` tensors of [B, T, D].
    ///
    /// `input_ids`, `token_type_ids` (zeros where none) and `attention_mask` (ones where none; 1 =
    /// text, 0 = padding) are [B, T] of u32 or i64.
    ///
    /// # Errors
    /// [`Error::Input`] for shapes or dtypes that do not fit, sequences longer than the position
    /// table, ids outside their tables.
    pub fn hidden_states(
        &self,
        input_ids: &Tensor,
        token_type_ids: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
        mode: &Mode,
    ) -> Result<Vec<Tensor>> {
        let mut states = Vec::with_capacity(self.layers.len() + 1);
        let inputs = Inputs {
            ids: input_ids,
            types: token_type_ids,
            mask: attention_mask,
        };
        self.run(&inputs, Reach::All, mode, |state| {
            states.push(state.exit()?);
            Ok(())
        })?;
        Ok(states)
    }

    /// The last hidden state at the positions that `reach` asks for; `each` sees all states.
    pub(crate) fn run(
        &self,
        inputs: &Inputs,
        reach: Reach,
        mode: &Mode,
        mut each: impl FnMut(&Handle) -> Result<()>,
    ) -> Result<Handle> {
        // On the CPU, where they are looked at, here and by what they are given to: one copy from a GPU.
        let input_ids = &inputs.ids.to_device(&Device::Cpu)?;
        let types = inputs.types.map(|types| types.to_device(&Device::Cpu));
        let types = types.transpose()?;
        let attention_mask = inputs.mask;
        self.check(input_ids, types.as_ref(), attention_mask)?;
        let types = match types {
            Some(types) => types,
            None => input_ids.zeros_like()?,
        };
        let tables = EmbeddingTables {
            words: &self.words,
            positions: &self.positions,
            token_types: &self.token_types,
        };
        let sum = ops::embedding_sum(input_ids, &types, &tables)?; // [B, T, D]
        let hidden = self.norm.forward(&sum, None, &Dropout::none())?;
        let dropout = Dropout::new(self.architecture.dropout, "embeddings", mode);
        let mut hidden = ops::dropout(&hidden, &dropout)?;
        each(&hidden)?;
        let last = self.layers.len().saturating_sub(1);
        for (number, layer) in self.layers.iter().enumerate() {
            let positions = match reach {
                Reach::First if number == last => ops::first_positions(&hidden, 1)?,
                _ => hidden.clone(),
            };
            let architecture = &self.architecture;
            hidden = layer.forward(&hidden, &positions, attention_mask, architecture, mode)?;
            each(&hidden)?;
        }
        Ok(hidden)
    }

    fn check(&self, ids: &Tensor, types: Option<&Tensor>, mask: Option<&Tensor>) -> Result<()> {
        let architecture = &self.architecture;
        let &[batch, length] = ids.dims() else {
            return wrong(
                "input_ids",
                "[batch, positions]",
                format!("shape {:?}", ids.dims()),
            );
        };
        if batch == 0 || length == 0 || length > architecture.positions {
            let expected = format!(
                "at least one sequence of 1 to {} positions (max_position_embeddings): truncate the text",
                architecture.positions
            );
            return wrong("input_ids", expected, format!("shape {:?}", ids.dims()));
        }
        check_ids("input_ids", ids, architecture.vocabulary)?;
        if let Some(types) = types {
            same_shape("token_type_ids", types, ids)?;
            check_ids("token_type_ids", types, architecture.token_types)?;
        }
        match mask {
            Some(mask) => same_shape("attention_mask", mask, ids),
            None => Ok(()),
        }
    }
}

fn wrong<T>(what: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Result<T> {
    Err(Error::Input {
        what,
        expected: expected.into(),
        got: got.into(),
    })
}

fn same_shape(what: &'static str, tensor: &Tensor, ids: &Tensor) -> Result<()> {
    match tensor.dims() == ids.dims() {
        true => Ok(()),
        false => wrong(
            what,
            format!("{:?}, the shape of input_ids", ids.dims()),
            format!("{:?}", tensor.dims()),
        ),
    }
}

/// A GPU does not check indices, so this does, at the price of reading one small tensor.
fn check_ids(what: &'static str, ids: &Tensor, rows: usize) -> Result<()> {
    if !matches!(ids.dtype(), DType::U32 | DType::I64) {
        return wrong(what, "dtype U32 or I64", format!("{:?}", ids.dtype()));
    }
    let values = ids.to_dtype(DType::I64)?.to_vec2::<i64>()?;
    for (sequence, row) in values.iter().enumerate() {
        let outside = |id: &i64| !usize::try_from(*id).is_ok_and(|id| id < rows);
        if let Some(position) = row.iter().position(outside) {
            let got = format!(
                "{} in sequence {sequence} at position {position}",
                row[position]
            );
            return wrong(
                what,
                format!("ids from 0 to {}", rows.saturating_sub(1)),
                got,
            );
        }
    }
    Ok(())
}
