//! Rows of a table by their numbers, after `candle_nn::embedding`.

use super::{Init, VarBuilder, variable, wrong};
use crate::Kind;
use candle_core::{Module, Result, Tensor};

/// A table [V, D] whose rows are looked up.
///
/// The input are integers [..] below V, the result is [.., D]. Every number is checked before it is looked up: a GPU that
/// meets a wrong one gives up for the rest of the program. candle's "no row", the largest number of the type, is none here.
#[derive(Clone, Debug)]
pub struct Embedding {
    embeddings: Tensor,
    hidden_size: usize,
}

impl Embedding {
    /// Of a table `embeddings` [V, hidden_size].
    pub fn new(embeddings: Tensor, hidden_size: usize) -> Self {
        Self {
            embeddings,
            hidden_size,
        }
    }

    /// The table.
    pub fn embeddings(&self) -> &Tensor {
        &self.embeddings
    }

    /// The length of a row.
    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }
}

impl Module for Embedding {
    fn forward(&self, indexes: &Tensor) -> Result<Tensor> {
        match *self.embeddings.dims() {
            [_, width] if width == self.hidden_size => {
                Ok(crate::ops::embedding(indexes, &self.embeddings)?)
            }
            ref got => {
                let expected = format!("[entries, {}]", self.hidden_size);
                wrong("table of an embedding", expected, got)
            }
        }
    }
}

/// With the variable `weight` [in_size, out_size], standard normal numbers at first.
///
/// # Errors
/// The builder's.
pub fn embedding(in_size: usize, out_size: usize, vb: VarBuilder) -> Result<Embedding> {
    let normal = Init::Randn {
        mean: 0.0,
        stdev: 1.0,
    };
    embedding_with(in_size, out_size, normal, vb)
}

/// [`embedding()`] with numbers of `init` at first.
///
/// # Errors
/// The builder's.
pub fn embedding_with(
    in_size: usize,
    out_size: usize,
    init: Init,
    vb: VarBuilder,
) -> Result<Embedding> {
    let table = variable(&vb, (in_size, out_size), "weight", init, Kind::Table)?;
    Ok(Embedding::new(table, out_size))
}
