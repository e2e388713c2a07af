//! Where a table's numbers lie: in memory, or in a file that is mapped into it.

use super::cell::Cell;
use crate::numeric::{Memory, Real};
use candle_core::CpuStorage;
use half::bf16;
use memmap2::MmapMut;

pub(crate) enum Store {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bf16(Vec<bf16>),
    Mapped(MmapMut),
}

/// Numbers from a function of the row, in parallel.
pub(crate) fn fill<C: Cell>(
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
pub(crate) fn copy<C: Cell>(storage: &CpuStorage, start: usize, to: &mut [C]) {
    let from = C::Number::slice(storage).unwrap_or(&[]);
    let pairs = to.iter_mut().zip(&from[start..]);
    pairs.for_each(|(to, &x)| *to = C::of(x));
}

/// The numbers of a map.
pub(crate) fn numbers(map: &MmapMut) -> &[f32] {
    // SAFETY: a map begins at a page, so it is aligned; every bit pattern is an f32. Little-endian is
    // the order of every machine that candle runs on.
    let (_, numbers, _) = unsafe { map.align_to::<f32>() };
    numbers
}

pub(crate) fn numbers_mut(map: &mut MmapMut) -> &mut [f32] {
    // SAFETY: as above.
    let (_, numbers, _) = unsafe { map.align_to_mut::<f32>() };
    numbers
}
