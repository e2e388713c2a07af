//! Gathering and scattering by an index, exact whatever follows.
//!
//! candle's `Tensor::gather` fails or is silently wrong at the second order as soon as something that is
//! not linear follows, its `scatter` and `scatter_add` at the first. Here the entries are picked from the
//! flattened tensor by `index_select` and put there by `index_add`, which are each other's derivatives.
//! Indices are read and checked on the CPU.

use super::wrong;
use crate::numeric::summable;
use crate::ops::Activation;
use candle_core::shape::Dim;
use candle_core::{DType, Device, Result, Tensor};
use std::collections::HashMap;

/// `y[i, j, k] = x[i, index[i, j, k], k]`, for `dim` 1, and alike for others: `Tensor::gather`.
///
/// `index` are integers, of any size along `dim` and of at most the sizes of `x` along the others; the
/// result has its shape.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes that do not fit or an index that is not in the tensor.
pub fn gather<D: Dim>(x: &Tensor, index: &Tensor, dim: D) -> Result<Tensor> {
    let dim = dim.to_index(x.shape(), "gather")?;
    let places = on_device(places(x.dims(), index, dim)?, x.device())?;
    let picked = flat(x)?.index_select(&places, 0)?;
    picked.reshape(index.shape())?.to_dtype(x.dtype())
}

/// `x` with `source[i, j, k]` added at `x[i, index[i, j, k], k]`, for `dim` 1, and alike for others:
/// `Tensor::scatter_add`.
///
/// `index` and `source` have one shape, as in [`gather`]; the result has that of `x`. Integers are summed in their own
/// type, which has to hold the sums.
///
/// # Errors
/// As [`gather`].
pub fn scatter_add<D: Dim>(x: &Tensor, index: &Tensor, source: &Tensor, dim: D) -> Result<Tensor> {
    let dim = dim.to_index(x.shape(), "scatter_add")?;
    same_shape(index, source)?;
    let places = on_device(places(x.dims(), index, dim)?, x.device())?;
    let sum = flat(x)?.index_add(&places, &flat(source)?, 0)?;
    sum.reshape(x.shape())?.to_dtype(x.dtype())
}

/// `x` with `source[i, j, k]` in the place of `x[i, index[i, j, k], k]`, for `dim` 1, and alike for others:
/// `Tensor::scatter`. Of several for one place the last stays.
///
/// # Errors
/// As [`gather`].
pub fn scatter<D: Dim>(x: &Tensor, index: &Tensor, source: &Tensor, dim: D) -> Result<Tensor> {
    let dim = dim.to_index(x.shape(), "scatter")?;
    same_shape(index, source)?;
    let places = places(x.dims(), index, dim)?;
    let last: HashMap<i64, i64> = (0..).zip(&places).map(|(from, to)| (*to, from)).collect();
    let mut pairs: Vec<(i64, i64)> = last.into_iter().collect();
    pairs.sort_unstable();
    let (to, from): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let mut kept = vec![1u8; x.elem_count()];
    to.iter().for_each(|place| kept[*place as usize] = 0);
    let kept = Tensor::from_vec(kept, x.shape(), &Device::Cpu)?.to_device(x.device())?;
    let rest = kept.where_cond(x, &x.detach().zeros_like()?)?;
    let (to, from) = (on_device(to, x.device())?, on_device(from, x.device())?);
    let source = source.flatten_all()?.contiguous()?.index_select(&from, 0)?;
    let flat = rest.flatten_all()?;
    flat.index_add(&to, &source, 0)?.reshape(x.shape())
}

/// Entries of a dimension, each as often as it is named.
pub(super) fn repeat_rows(
    x: &Tensor,
    dim: usize,
    rows: impl Iterator<Item = usize>,
) -> Result<Tensor> {
    let rows: Vec<i64> = rows.map(|row| row as i64).collect();
    let rows = on_device(rows, x.device())?;
    let picked = summable(x)?.contiguous()?.index_select(&rows, dim)?;
    picked.to_dtype(x.dtype())
}

/// All entries in a row. What is picked several times has a sum for its gradient, and a place may be named several times:
/// half precision has too few digits for these sums.
fn flat(x: &Tensor) -> Result<Tensor> {
    summable(x)?.flatten_all()?.contiguous()
}

fn on_device(places: Vec<i64>, device: &Device) -> Result<Tensor> {
    let count = places.len();
    Tensor::from_vec(places, count, &Device::Cpu)?.to_device(device)
}

fn same_shape(index: &Tensor, source: &Tensor) -> Result<()> {
    match index.dims() == source.dims() {
        true => Ok(()),
        false => {
            let expected = format!("{:?}, as the index", index.dims());
            wrong("source of a scatter", expected, source.dims())
        }
    }
}

/// Where in the flattened tensor each index points.
fn places(dims: &[usize], index: &Tensor, dim: usize) -> Result<Vec<i64>> {
    let shape = index.dims();
    let smaller = |(at, (size, of)): (usize, (&usize, &usize))| at == dim || size <= of;
    let fits = shape.len() == dims.len() && shape.iter().zip(dims).enumerate().all(smaller);
    if !fits || !index.dtype().is_int() {
        let expected = format!("integers that fit {dims:?} but in dimension {dim}");
        return wrong("index", expected, (shape, index.dtype()));
    }
    let values = index.to_device(&Device::Cpu)?.flatten_all()?;
    let values = values.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let mut at = vec![0; shape.len()];
    let mut places = Vec::with_capacity(values.len());
    for value in values {
        let row = match usize::try_from(value) {
            Ok(row) if row < dims[dim] => row,
            _ => return wrong("index", format!("0 to {}, excluded", dims[dim]), value),
        };
        let place = (0..dims.len()).fold(0, |place, d| {
            place * dims[d] + if d == dim { row } else { at[d] }
        });
        places.push(place as i64);
        advance(&mut at, shape);
    }
    Ok(places)
}

/// The next position of a shape, the last dimension fastest.
fn advance(at: &mut [usize], shape: &[usize]) {
    for (position, size) in at.iter_mut().zip(shape).rev() {
        *position += 1;
        if *position < *size {
            return;
        }
        *position = 0;
    }
}

/// A change of both sides of an image by constant matrices: [N, C, H, W] to [N, C, OH, OW] with
/// `rows` [OH, H] and `columns` [OW, W], row by row.
pub(super) fn by_sides(
    x: &Tensor,
    rows: (&[f64], usize),
    columns: (&[f64], usize),
) -> Result<Tensor> {
    let mut x = x.clone();
    for (matrix, size) in [columns, rows] {
        let from = matrix.len() / size;
        let matrix = Tensor::from_slice(matrix, (size, from), &Device::Cpu)?;
        let matrix = matrix.to_dtype(x.dtype())?.to_device(x.device())?;
        x = crate::ops::linear(&x, &matrix, None, 1, Activation::Identity)?.transpose(2, 3)?;
    }
    Ok(x)
}
