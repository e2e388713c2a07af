//! The encoder: from ids to the last hidden state, whatever its family.

use crate::architecture::{Architecture, Body, Text};
use crate::config;
use crate::error::{Error, Result};
use crate::layer::{Pass, Reach};
use adahessian::engine::Handle;
use adahessian::nn::VarBuilder;
use adahessian::ops::Mode;
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::sync::Arc;

/// What an encoder is given: `ids`, `types` (zeros where none) and `mask` (ones where none), all [B, T].
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub ids: &'a Tensor,
    pub types: Option<&'a Tensor>,
    pub mask: Option<&'a Tensor>,
}

/// Embeddings and layers.
#[derive(Clone, Debug)]
pub struct Encoder {
    architecture: Architecture,
    body: Arc<dyn Body>,
}

impl Encoder {
    /// The encoder over a builder's variables, which have the names of a Hub checkpoint.
    ///
    /// # Errors
    /// The builder's.
    pub fn new(architecture: &Architecture, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            body: architecture.family.body(architecture.layers, vb)?,
            architecture: architecture.clone(),
        })
    }

    /// With what a checkpoint's config.json says beyond [`Config`](crate::auto::Config), to be saved again.
    pub(crate) fn with_fields(mut self, others: &Value, keeps_head: bool) -> Self {
        config::extend(&mut self.architecture.config, others, keeps_head);
        self
    }

    /// Its sizes and settings.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The word embedding [V, D].
    pub(crate) fn words(&self) -> &Tensor {
        self.body.words()
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
        let inputs = Inputs {
            ids: input_ids,
            types: token_type_ids,
            mask: attention_mask,
        };
        let mut states = Vec::with_capacity(self.architecture.layers + 1);
        self.run(inputs, Reach::All, mode, |state| {
            states.push(state.exit()?);
            Ok(())
        })?;
        Ok(states)
    }

    /// The last hidden state at the positions that `reach` asks for; `each` sees all states.
    pub(crate) fn run(
        &self,
        inputs: Inputs,
        reach: Reach,
        mode: &Mode,
        mut each: impl FnMut(&Handle) -> Result<()>,
    ) -> Result<Handle> {
        // On the CPU, where they are looked at, here and by what they are given to: one copy from a GPU.
        let ids = inputs.ids.to_device(&Device::Cpu)?;
        let types = match (inputs.types, self.architecture.token_types) {
            (None, _) | (_, 0) => None,
            (Some(types), _) => Some(types.to_device(&Device::Cpu)?),
        };
        self.check(&ids, types.as_ref(), inputs.mask)?;
        let types = match types {
            Some(types) => types,
            None => ids.zeros_like()?,
        };
        let mut pass = Pass {
            mode,
            reach,
            mask: inputs.mask,
            each: &mut each,
        };
        self.body.forward(&Text { ids, types }, &mut pass)
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
