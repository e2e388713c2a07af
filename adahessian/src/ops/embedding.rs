//! Embeddings: rows of a table by their ids.

use super::{Dropout, layer_norm, wrong};
use crate::error::Result;
use candle_core::{DType, Device, Tensor};

/// The rows of `weight` [V, D] at `ids` [..] (integers, u32 or i64 as a rule): [.., D].
///
/// By `index_select`, whose derivative is `index_add` and whose second derivative is right;
/// `gather` fails at second order.
///
/// The ids are checked on the CPU, as a GPU that meets a wrong one gives up for the rest of the program.
/// Ids that are on the CPU are moved to the table's device afterwards; those that are on a GPU already
/// are copied once, which waits for the GPU.
///
/// # Errors
/// [`crate::Error::Setting`] if the table is not a matrix, for ids that are no integers, and for an id
/// that is not in the table.
pub fn embedding(ids: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let &[rows, width] = weight.dims() else {
        return wrong(
            "embedding table",
            "[entries, width]",
            format!("{:?}", weight.dims()),
        );
    };
    places(ids, rows)?;
    let mut shape = ids.dims().to_vec();
    shape.push(width);
    let flat = ids
        .to_device(weight.device())?
        .flatten_all()?
        .contiguous()?;
    Ok(weight.index_select(&flat, 0)?.reshape(shape)?)
}

/// The ids as places among this many rows, read on the CPU.
pub(super) fn places(ids: &Tensor, rows: usize) -> Result<Vec<usize>> {
    if !ids.dtype().is_int() {
        return wrong(
            "ids of an embedding",
            "integers",
            format!("{:?}", ids.dtype()),
        );
    }
    let ids = ids.to_device(&Device::Cpu)?.flatten_all()?;
    let ids = ids.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let places = ids.into_iter().map(|id| match usize::try_from(id) {
        Ok(place) if place < rows => Ok(place),
        _ => wrong(
            "id of an embedding",
            format!(
                "0 to {}, the rows of the table (are the ids of another vocabulary?)",
                rows.saturating_sub(1)
            ),
            id.to_string(),
        ),
    });
    places.collect()
}

/// The tables and the norm of BERT's first layer.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingTables<'a> {
    /// A row for every token of the vocabulary: [V, D].
    pub words: &'a Tensor,
    /// A row for every position: [P, D].
    pub positions: &'a Tensor,
    /// A row for every token type (first or second sentence): [K, D].
    pub token_types: &'a Tensor,
    /// The layer norm's weight: `[D]`.
    pub norm_weight: &'a Tensor,
    /// The layer norm's bias: `[D]`.
    pub norm_bias: &'a Tensor,
    /// The layer norm's ε.
    pub eps: f64,
}

/// `dropout(LayerNorm(words[ids] + token_types[types] + positions[0..T]))`: the first layer of BERT,
/// as one function.
///
/// `ids` and `types` are [B, T], the result is [B, T, D]. The positions are the first T rows of
/// their table, taken by `narrow` and broadcast over the batch.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit, more positions than there are rows among
/// them.
pub fn embedding_layer_norm(
    ids: &Tensor,
    types: &Tensor,
    tables: &EmbeddingTables,
    dropout: &Dropout,
) -> Result<Tensor> {
    check_tables(ids, types, tables)?;
    let sum = sum(ids, types, tables)?;
    dropout.apply(&layer_norm(
        &sum,
        tables.norm_weight,
        tables.norm_bias,
        tables.eps,
    )?)
}

/// The sum of the three tables' rows: [B, T, D].
pub(super) fn sum(ids: &Tensor, types: &Tensor, tables: &EmbeddingTables) -> Result<Tensor> {
    let (_, length) = ids.dims2()?;
    let words = embedding(ids, tables.words)?; // [B, T, D]
    let sum = (words + embedding(types, tables.token_types)?)?;
    Ok(sum.broadcast_add(&tables.positions.narrow(0, 0, length)?)?)
}

/// Whether ids, types and tables fit; the batch and the length.
pub(super) fn check_tables(
    ids: &Tensor,
    types: &Tensor,
    tables: &EmbeddingTables,
) -> Result<(usize, usize)> {
    let &[batch, length] = ids.dims() else {
        return wrong(
            "token ids",
            "[batch, positions]",
            format!("{:?}", ids.dims()),
        );
    };
    if types.dims() != ids.dims() {
        return wrong(
            "token types",
            format!("{:?}, as the ids", ids.dims()),
            format!("{:?}", types.dims()),
        );
    }
    let width = tables.norm_weight.elem_count();
    if width == 0 {
        return wrong("norm of an embedding", "a width of at least 1", "0");
    }
    for table in [tables.words, tables.positions, tables.token_types] {
        if table.rank() != 2 || table.dims()[1] != width {
            return wrong(
                "embedding table",
                format!("[entries, {width}], the norm's width"),
                format!("{:?}", table.dims()),
            );
        }
    }
    let rows = tables.positions.dims()[0];
    match length > rows {
        true => wrong(
            "sequence length",
            format!("at most {rows} positions"),
            length.to_string(),
        ),
        false => Ok((batch, length)),
    }
}
