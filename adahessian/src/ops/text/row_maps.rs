//! Operations that are linear in their inputs: sums of table rows, dropout, picking a position.
//!
//! For y = M x: gx = Mᵀ g; the derivative of that in g is ḡ = M v_x, and x̄ = Mᵀ ȳ.

use super::mask::Mask;
use crate::error::Result;
use crate::ops::embedding::{check_tables, places};
use crate::ops::engine::{
    Array, Buffer, Fused, Gradients, Handle, Held, Inner, Inputs, Made, Op, Point, Real, apply,
};
use crate::ops::{self, Dropout, EmbeddingTables, wrong};
use candle_core::{DType, Tensor};
use rayon::prelude::*;

/// A linear map of several inputs.
pub(crate) trait Linear: Send + Sync + 'static {
    const NAME: &'static str;
    /// M x; an input that is `None` is zero.
    fn apply<T: Real>(&self, inputs: &[Option<&[T]>]) -> Buffer<T>;
    /// Mᵀ g for input number `input`, of this length.
    fn transposed<T: Real>(&self, g: &[T], input: usize, length: usize) -> Buffer<T>;
}

pub(crate) struct Map<M>(pub M);

impl<T: Real, M: Linear> Op<T> for Map<M> {
    type Saved = ();
    type Kept = ();
    type Deferred = ();

    fn name(&self) -> &'static str {
        M::NAME
    }

    fn reads(&self, _: usize) -> bool {
        false
    }

    fn forward(&self, inputs: &Inputs<T>, _: bool) -> (Made<T>, ()) {
        let inputs: Vec<_> = inputs.iter().map(|x| Some(&**x)).collect();
        (self.0.apply(&inputs).into(), ())
    }

    fn adjoint(
        &self,
        point: &Point<T, ()>,
        gradient: Option<&[T]>,
        _: Option<()>,
        wanted: &[bool],
        _: &mut Gradients<T>,
    ) -> (Gradients<T>, ()) {
        let inputs = point.lengths.iter().zip(wanted).enumerate();
        let gradients = inputs.map(|(i, (length, wanted))| {
            let g = gradient.filter(|_| *wanted)?;
            Some(self.0.transposed(g, i, *length))
        });
        (gradients.collect(), ())
    }

    fn second_adjoint(
        &self,
        _: &Point<T, ()>,
        _: &Array<T>,
        _: &(),
        cotangents: &[Option<Held<T>>],
    ) -> (Made<T>, ()) {
        let views: Vec<_> = cotangents
            .iter()
            .map(|v| v.as_ref().map(Held::view))
            .collect();
        let inputs: Vec<_> = views.iter().map(Option::as_deref).collect();
        (self.0.apply(&inputs).into(), ())
    }
}

/// For every row of y, its row in each table.
struct Rows {
    ids: Vec<Vec<usize>>,
    width: usize,
}

impl Linear for Rows {
    const NAME: &'static str = "embedding";

    fn apply<T: Real>(&self, tables: &[Option<&[T]>]) -> Buffer<T> {
        let width = self.width;
        let mut y = Buffer::scratch(self.ids[0].len() * width);
        let rows = y.par_chunks_exact_mut(width).enumerate().with_min_len(64);
        rows.for_each(|(row, y)| {
            y.fill(T::ZERO);
            for (table, ids) in tables.iter().zip(&self.ids) {
                let Some(table) = table else { continue };
                let from = &table[ids[row] * width..][..width];
                y.iter_mut().zip(from).for_each(|(y, &x)| *y += x);
            }
        });
        y
    }

    /// Adds the rows up in their order, every thread in columns of its own.
    fn transposed<T: Real>(&self, g: &[T], input: usize, length: usize) -> Buffer<T> {
        let (width, ids) = (self.width, &self.ids[input]);
        let mut table = Buffer::zeroed(length);
        // The rows of y that each row of the table went to; by table row, so that threads part them.
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|row| ids[*row]); // stable: in the order of y within a table row
        let groups: Vec<&[usize]> = order.chunk_by(|a, b| ids[*a] == ids[*b]).collect();
        let mut rest = &mut table[..];
        let mut done = 0;
        let mut work = Vec::with_capacity(groups.len());
        for group in groups {
            let start = ids[group[0]] * width;
            let (_, from) = std::mem::take(&mut rest).split_at_mut(start - done);
            let (row, after) = from.split_at_mut(width);
            work.push((group, row));
            (rest, done) = (after, start + width);
        }
        work.into_par_iter().for_each(|(group, to)| {
            for &row in group {
                let from = &g[row * width..][..width];
                to.iter_mut().zip(from).for_each(|(to, &x)| *to += x);
            }
        });
        table
    }
}

/// The sum of the word's, the type's and the position's rows, before the norm of BERT's first layer:
/// [B, T, D] from `ids` and `types` [B, T]. The positions are 0 to T - 1.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit, or an id outside its table; candle's errors.
pub fn embedding_sum(ids: &Tensor, types: &Tensor, tables: &EmbeddingTables) -> Result<Handle> {
    let (_, length) = check_tables(ids, types, tables)?;
    let words = tables.words;
    match (words.device().is_cpu(), words.dtype()) {
        (true, DType::F32) => Ok(fused_sum::<f32>(ids, types, tables, length)?.into()),
        (true, DType::F64) => Ok(fused_sum::<f64>(ids, types, tables, length)?.into()),
        _ => Ok(Handle::composed(&ops::embedding::sum(ids, types, tables)?)),
    }
}

fn fused_sum<T: Real>(
    ids: &Tensor,
    types: &Tensor,
    tables: &EmbeddingTables,
    length: usize,
) -> Result<Fused<T>> {
    let width = tables.norm_weight.elem_count();
    let positions = (0..ids.elem_count()).map(|i| i % length.max(1)).collect();
    let op = Rows {
        ids: vec![
            places(ids, tables.words.dims()[0])?,
            places(types, tables.token_types.dims()[0])?,
            positions,
        ],
        width,
    };
    let [words, types, positions] =
        [tables.words, tables.token_types, tables.positions].map(Fused::<T>::enter);
    let (words, types, positions) = (words?, types?, positions?);
    let mut shape = ids.dims().to_vec();
    shape.push(width);
    apply(Map(op), &[&words, &types, &positions], &shape)
}

struct Dropped(Mask);

impl Linear for Dropped {
    const NAME: &'static str = "dropout";

    fn apply<T: Real>(&self, inputs: &[Option<&[T]>]) -> Buffer<T> {
        match inputs[0] {
            Some(x) => self.0.of(x),
            None => Buffer::zeroed(self.0.kept.len()),
        }
    }

    fn transposed<T: Real>(&self, g: &[T], _: usize, _: usize) -> Buffer<T> {
        self.0.of(g)
    }
}

/// Dropout: [`crate::ops::dropout()`] on handles, with the same masks.
///
/// # Errors
/// [`crate::Error::Setting`] for a probability outside [0, 1); candle's errors.
pub fn dropout(x: &Handle, dropout: &Dropout) -> Result<Handle> {
    let count = x.dims().iter().product();
    match x.inner() {
        Inner::Composed(x) => Ok(Handle::composed(&dropout.apply(x)?)),
        Inner::F32(fused) => match Mask::new(dropout, count)? {
            Some(mask) => Ok(apply(Map(Dropped(mask)), &[fused], x.dims())?.into()),
            None => Ok(x.clone()),
        },
        Inner::F64(fused) => match Mask::new(dropout, count)? {
            Some(mask) => Ok(apply(Map(Dropped(mask)), &[fused], x.dims())?.into()),
            None => Ok(x.clone()),
        },
    }
}

/// The first `count` positions of each sequence: [B, count, D] from [B, T, D].
struct First {
    batch: usize,
    length: usize,
    count: usize,
    width: usize,
}

impl Linear for First {
    const NAME: &'static str = "first positions";

    fn apply<T: Real>(&self, inputs: &[Option<&[T]>]) -> Buffer<T> {
        let part = self.count * self.width;
        let mut y = Buffer::zeroed(self.batch * part);
        if let Some(x) = inputs[0] {
            let sequences = x.chunks_exact(self.length * self.width);
            let rows = y.chunks_exact_mut(part).zip(sequences);
            rows.for_each(|(y, x)| y.copy_from_slice(&x[..part]));
        }
        y
    }

    fn transposed<T: Real>(&self, g: &[T], _: usize, length: usize) -> Buffer<T> {
        let part = self.count * self.width;
        let mut x = Buffer::zeroed(length);
        let sequences = x.chunks_exact_mut(self.length * self.width);
        let rows = sequences.zip(g.chunks_exact(part));
        rows.for_each(|(x, g)| x[..part].copy_from_slice(g));
        x
    }
}

/// The first `count` positions of every sequence, [B, count, D] from [B, T, D]: where only they are
/// asked for, a network's last layer need not be computed for the others.
///
/// # Errors
/// [`crate::Error::Setting`] for another shape or a count that does not fit; candle's errors.
pub fn first_positions(x: &Handle, count: usize) -> Result<Handle> {
    first(x, count, |batch, width| vec![batch, count, width])
}

/// The vector at the first position of every sequence, [B, D] from [B, T, D]: what BERT's pooler sees.
///
/// # Errors
/// [`crate::Error::Setting`] for another shape; candle's errors.
pub fn first_position(x: &Handle) -> Result<Handle> {
    first(x, 1, |batch, width| vec![batch, width])
}

fn first(x: &Handle, count: usize, shape: impl Fn(usize, usize) -> Vec<usize>) -> Result<Handle> {
    let &[batch, length, width] = x.dims() else {
        let got = format!("{:?}", x.dims());
        return wrong("hidden states", "[batch, positions, width]", got);
    };
    if x.dims().contains(&0) {
        return wrong("hidden states", "no size of 0", format!("{:?}", x.dims()));
    }
    if count == 0 || count > length {
        let expected = format!("1 to {length}, the positions there are");
        return wrong("number of positions", expected, count.to_string());
    }
    let op = Map(First {
        batch,
        length,
        count,
        width,
    });
    let shape = shape(batch, width);
    match x.inner() {
        Inner::Composed(x) => Ok(Handle::composed(&x.narrow(1, 0, count)?.reshape(shape)?)),
        Inner::F32(x) => Ok(apply(op, &[x], &shape)?.into()),
        Inner::F64(x) => Ok(apply(op, &[x], &shape)?.into()),
    }
}
