//! Where a table's numbers lie: in memory, or in a file that is mapped into it.

use super::cell::Cell;
use crate::error::{Error, Result};
use crate::ops::engine::Real;
use candle_core::CpuStorage;
use half::bf16;
use memmap2::MmapMut;
use std::fs::OpenOptions;
use std::path::Path;

pub(super) enum Store {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bf16(Vec<bf16>),
    Mapped(MmapMut),
}

/// A file of so many bytes as memory, made if it is not there, and whether it was. `layout` says what it
/// holds.
pub(super) fn open(
    path: &Path,
    bytes: u64,
    layout: impl Fn() -> String,
) -> Result<(MmapMut, bool)> {
    let failed = |e: std::io::Error| Error::File {
        path: path.into(),
        what: e.to_string(),
    };
    let fresh = !path.exists();
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if fresh {
        options.create_new(true);
    }
    let file = options.open(path).map_err(failed)?;
    if fresh {
        file.set_len(bytes).map_err(failed)?;
    }
    let length = file.metadata().map_err(failed)?.len();
    if length != bytes {
        return Err(Error::File {
            path: path.into(),
            what: format!("{length} bytes, expected {bytes}: {}", layout()),
        });
    }
    // SAFETY: the map is sound as long as nobody cuts the file short or writes to it, for which
    // `SparseTable::mapped` asks.
    let map = unsafe { MmapMut::map_mut(&file) }.map_err(failed)?;
    Ok((map, fresh))
}

/// Numbers from a function of the row, in parallel.
pub(super) fn fill<C: Cell>(
    data: &mut [C],
    width: usize,
    value: &(impl Fn(usize, &mut [f64]) + Sync),
) {
    use rayon::prelude::*;
    const ROWS: usize = 1 << 10;
    let pieces = data.par_chunks_mut(ROWS * width).enumerate();
    pieces.for_each(|(piece, data)| {
        let mut numbers = vec![0.0; width];
        for (row, to) in data.chunks_exact_mut(width).enumerate() {
            numbers.fill(0.0);
            value(piece * ROWS + row, &mut numbers);
            let pairs = to.iter_mut().zip(&numbers);
            pairs.for_each(|(to, &x)| *to = C::of(C::Number::from_f64(x)));
        }
    });
}

/// Numbers of a tensor from this place on.
pub(super) fn copy<C: Cell>(storage: &CpuStorage, start: usize, to: &mut [C]) {
    let from = C::Number::slice(storage).unwrap_or(&[]);
    let pairs = to.iter_mut().zip(&from[start..]);
    pairs.for_each(|(to, &x)| *to = C::of(x));
}

/// The numbers of a map.
pub(super) fn numbers(map: &MmapMut) -> &[f32] {
    // SAFETY: a map begins at a page, so it is aligned; every bit pattern is an f32. Little-endian is
    // the order of every machine that candle runs on.
    let (_, numbers, _) = unsafe { map.align_to::<f32>() };
    numbers
}

pub(super) fn numbers_mut(map: &mut MmapMut) -> &mut [f32] {
    // SAFETY: as above.
    let (_, numbers, _) = unsafe { map.align_to_mut::<f32>() };
    numbers
}
