//! Embeddings: rows of tables by their ids, and sums of such rows.

use super::wrong;
use crate::engine::{Handle, LinearMap, Operand, linear_map};
use crate::error::Result;
use crate::numeric::listed::{Lists, Weights};
use crate::numeric::parallel;
use crate::numeric::{Buffer, Real, widened};
use candle_core::{DType, Device, Tensor};

/// Rows that a thread does at a time, at the least.
const ROWS: usize = 64;

/// The rows of `weight` [V, D] at `ids` [..] (integers, u32 or i64 as a rule): [.., D].
///
/// By `index_select` where it is composed, whose derivative is `index_add` and whose second derivative is
/// right; `gather` fails at second order.
///
/// The ids are checked on the CPU, as a GPU that meets a wrong one gives up for the rest of the program.
/// Ids that are on the CPU are moved to the table's device afterwards; those that are on a GPU already
/// are copied once, which waits for the GPU.
///
/// # Errors
/// [`crate::Error::Setting`] if the table is not a matrix, for ids that are no integers, and for an id
/// that is not in the table; candle's errors.
pub fn embedding<X: Operand>(ids: &Tensor, weight: &X) -> Result<X> {
    X::of(on(ids, weight)?)
}

fn on(ids: &Tensor, weight: &dyn Operand) -> Result<Handle> {
    let &[rows, width] = weight.dims() else {
        let got = format!("{:?}", weight.dims());
        return wrong("embedding table", "[entries, width]", got);
    };
    let op = Rows {
        ids: vec![places(ids, rows)?],
        scales: vec![1.0],
        width,
        shape: ids.dims().to_vec(),
    };
    if ids.elem_count() == 0 {
        // Nothing to fuse: a result without entries, of the right shape.
        return Ok(Handle::composed(&op.composed(&[weight.tensor()?])?));
    }
    linear_map(op, &[weight])
}

/// The ids as places among this many rows, read on the CPU.
fn places(ids: &Tensor, rows: usize) -> Result<Vec<usize>> {
    if !ids.dtype().is_int() {
        let got = format!("{:?}", ids.dtype());
        return wrong("ids of an embedding", "integers", got);
    }
    // What candle takes for no id.
    let none = match ids.dtype() {
        DType::U8 => Some(u8::MAX.into()),
        DType::U32 => Some(u32::MAX.into()),
        DType::I64 => Some(i64::MAX),
        _ => None,
    };
    let ids = ids.to_device(&Device::Cpu)?.flatten_all()?;
    let ids = ids.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let places = ids.into_iter().map(|id| match usize::try_from(id) {
        Ok(place) if place < rows => Ok(place),
        _ => wrong(
            "id of an embedding",
            format!(
                "0 to {}, the rows of the table ({})",
                rows.saturating_sub(1),
                match Some(id) == none {
                    true =>
                        "candle takes this number for none, and gives zeros: multiply by a mask",
                    false => "are the ids of another vocabulary?",
                }
            ),
            id.to_string(),
        ),
    });
    places.collect()
}

/// The tables of BERT's first layer.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingTables<'a> {
    /// A row for every token of the vocabulary: [V, D].
    pub words: &'a Tensor,
    /// A row for every position: [P, D].
    pub positions: &'a Tensor,
    /// A row for every token type (first or second sentence): [K, D].
    pub token_types: &'a Tensor,
}

/// The sum of the word's, the type's and the position's rows, before the norm of BERT's first layer:
/// [B, T, D] from `ids` and `types` [B, T]. The positions are 0 to T - 1. A handle, as the layers that
/// follow take it.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit, more positions than there are rows among them,
/// or an id outside its table; candle's errors.
pub fn embedding_sum(ids: &Tensor, types: &Tensor, tables: &EmbeddingTables) -> Result<Handle> {
    let (width, length) = check_tables(ids, types, tables)?;
    let op = Rows {
        ids: vec![
            places(ids, tables.words.dims()[0])?,
            places(types, tables.token_types.dims()[0])?,
            (0..ids.elem_count()).map(|i| i % length.max(1)).collect(),
        ],
        scales: vec![1.0; 3],
        width,
        shape: ids.dims().to_vec(),
    };
    linear_map(op, &[tables.words, tables.token_types, tables.positions])
}

/// The sum of a row of each table, for tables of which each has its own ids: [.., D] from pairs of ids
/// [..] and a table [entries, D]. [`embedding_sum`] for positions that are not 0 to T - 1, or for other
/// tables than its three.
///
/// # Errors
/// [`crate::Error::Setting`] for no tables, shapes that do not fit, or an id outside its table; candle's
/// errors.
pub fn sum_of_rows(parts: &[(&Tensor, &Tensor)]) -> Result<Handle> {
    let once: Vec<_> = parts
        .iter()
        .map(|(ids, table)| (*ids, *table, 1.0))
        .collect();
    scaled_sum_of_rows(&once)
}

/// [`sum_of_rows`] of rows times a number for each table: √d E\[id\] + P\[position\] is what a translator's
/// layers begin with. Tables may be constants.
///
/// # Errors
/// As [`sum_of_rows`].
pub fn scaled_sum_of_rows(parts: &[(&Tensor, &Tensor, f64)]) -> Result<Handle> {
    let Some((first, table, _)) = parts.first() else {
        return wrong("tables of an embedding", "at least one", "none");
    };
    let width = table.dims().get(1).copied().unwrap_or(0);
    let mut all = Vec::with_capacity(parts.len());
    for (ids, table, _) in parts {
        if ids.dims() != first.dims() || ids.elem_count() == 0 {
            let expected = format!("{:?}, as the first ones, no size of 0", first.dims());
            return wrong("ids of an embedding", expected, format!("{:?}", ids.dims()));
        }
        if table.rank() != 2 || table.dims()[1] != width || width == 0 {
            let expected = format!("[entries, {}], the width of the first", width.max(1));
            return wrong("embedding table", expected, format!("{:?}", table.dims()));
        }
        all.push(places(ids, table.dims()[0])?);
    }
    let op = Rows {
        ids: all,
        scales: parts.iter().map(|(.., scale)| *scale).collect(),
        width,
        shape: first.dims().to_vec(),
    };
    let tables: Vec<&dyn Operand> = parts.iter().map(|(_, t, _)| *t as &dyn Operand).collect();
    linear_map(op, &tables)
}

/// Whether ids, types and tables fit; the width and the length.
fn check_tables(ids: &Tensor, types: &Tensor, tables: &EmbeddingTables) -> Result<(usize, usize)> {
    let &[_, length] = ids.dims() else {
        let got = format!("{:?}", ids.dims());
        return wrong("token ids", "[batch, positions]", got);
    };
    if types.dims() != ids.dims() {
        let expected = format!("{:?}, as the ids", ids.dims());
        return wrong("token types", expected, format!("{:?}", types.dims()));
    }
    let width = tables.words.dims().get(1).copied().unwrap_or(0);
    for table in [tables.words, tables.positions, tables.token_types] {
        if table.rank() != 2 || table.dims()[1] != width || width == 0 {
            let expected = format!("[entries, {}], the width of the words", width.max(1));
            return wrong("embedding table", expected, format!("{:?}", table.dims()));
        }
    }
    let rows = tables.positions.dims()[0];
    match length > rows {
        true => {
            let expected = format!("at most {rows} positions");
            wrong("sequence length", expected, length.to_string())
        }
        false => Ok((width, length)),
    }
}

/// For every row of y, its row in each table; the rows, times a number for each table, are added.
struct Rows {
    ids: Vec<Vec<usize>>,
    scales: Vec<f64>,
    width: usize,
    /// The shape of the ids.
    shape: Vec<usize>,
}

impl LinearMap for Rows {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn shape(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        let mut shape = self.shape.clone();
        shape.push(self.width);
        Ok(shape)
    }

    fn composed(&self, tables: &[Tensor]) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for ((table, ids), scale) in tables.iter().zip(&self.ids).zip(&self.scales) {
            let ids = ids.iter().map(|&id| id as u32).collect();
            let ids = Tensor::from_vec::<_, u32>(ids, self.ids[0].len(), &Device::Cpu)?;
            let (table, ids) = (table.contiguous()?, ids.to_device(table.device())?);
            // The gradient of a row that is often looked up is a sum for which half precision has too few digits.
            let rows = match table.track_op() {
                true => widened(&table)?.index_select(&ids, 0)?,
                false => widened(&table.index_select(&ids, 0)?)?,
            };
            let rows = match *scale == 1.0 {
                true => rows,
                false => (rows * *scale)?,
            };
            sum = Some(match sum {
                Some(sum) => (sum + rows)?,
                None => rows,
            });
        }
        match sum {
            Some(sum) => Ok(sum.reshape(self.shape(&[])?)?.to_dtype(tables[0].dtype())?),
            None => wrong("tables of an embedding", "at least one", "none"),
        }
    }

    fn apply<T: Real>(&self, tables: &[Option<&[T]>]) -> Buffer<T> {
        let width = self.width;
        let mut y = Buffer::scratch(self.ids[0].len() * width);
        parallel::each(y.chunks_mut(ROWS * width), |piece, y| {
            for (row, y) in (piece * ROWS..).zip(y.chunks_exact_mut(width)) {
                y.fill(T::ZERO);
                for ((table, ids), scale) in tables.iter().zip(&self.ids).zip(&self.scales) {
                    let (Some(table), scale) = (table, T::from_f64(*scale)) else {
                        continue;
                    };
                    let from = &table[ids[row] * width..][..width];
                    y.iter_mut().zip(from).for_each(|(y, &x)| *y += scale * x);
                }
            }
        });
        y
    }

    /// Adds the rows up in their order, every thread in columns of its own.
    fn transposed<T: Real>(&self, g: &[T], input: usize, length: usize) -> Buffer<T> {
        let (width, ids) = (self.width, &self.ids[input]);
        let scale = T::from_f64(self.scales[input]);
        let mut table = Buffer::zeroed(length);
        // The rows of y that each row of the table went to; by table row, so that threads part them.
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|row| ids[*row]); // stable: in the order of y within a table row
        let groups: Vec<&[usize]> = order.chunk_by(|a, b| ids[*a] == ids[*b]).collect();
        let mut rest = &mut table[..];
        let mut done = 0;
        let (mut pieces, mut piece, mut count) = (Vec::new(), Vec::new(), 0);
        for group in groups {
            let start = ids[group[0]] * width;
            let (_, from) = std::mem::take(&mut rest).split_at_mut(start - done);
            let (row, after) = from.split_at_mut(width);
            piece.push((group, row));
            (rest, done) = (after, start + width);
            count += group.len();
            // By the rows that are added, of which a frequent word has many.
            if count >= ROWS {
                pieces.push(std::mem::take(&mut piece));
                count = 0;
            }
        }
        pieces.push(piece);
        parallel::each(pieces, |_, piece| {
            for (group, to) in piece {
                for &row in group {
                    let from = &g[row * width..][..width];
                    let pairs = to.iter_mut().zip(from);
                    pairs.for_each(|(to, &x)| *to += scale * x);
                }
            }
        });
        table
    }

    const OF_TENSORS: bool = true;

    fn transposed_tensor(&self, g: &Tensor, input: usize, shape: &[usize]) -> Result<Tensor> {
        let rows = g.contiguous()?.reshape(((), self.width))?;
        let scale = Weights::All(self.scales[input]);
        Lists::by_id(self.ids[input].iter().copied(), shape[0], scale).sums(&rows)
    }
}
