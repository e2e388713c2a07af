//! Where a table's numbers lie: in memory, in a file that is mapped into it, or on a GPU.

use super::cell::Cell;
use super::mapped::Mapped;
use super::table::Precision;
use crate::numeric::Real;
use crate::numeric::parallel;
use candle_core::Tensor;
use half::bf16;
use memmap2::MmapMut;

pub(crate) enum Store {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bf16(Vec<bf16>),
    Mapped(Mapped),
    /// [rows, width] on a CUDA device, in the type that they are stored in.
    Device(Tensor, Precision),
}

impl Store {
    /// What its numbers are stored as.
    pub fn precision(&self) -> Precision {
        match self {
            Store::F32(_) | Store::Mapped(_) => Precision::F32,
            Store::F64(_) => Precision::F64,
            Store::Bf16(_) => Precision::Bf16,
            Store::Device(_, precision) => *precision,
        }
    }
}

/// Numbers from a function of the row, in parallel.
pub(crate) fn fill<C: Cell>(
    data: &mut [C],
    width: usize,
    value: &(impl Fn(usize, &mut [f64]) + Sync),
) {
    const ROWS: usize = 1 << 10;
    parallel::each(data.chunks_mut(ROWS * width), |piece, data| {
        let mut numbers = vec![0.0; width];
        for (row, to) in data.chunks_exact_mut(width).enumerate() {
            numbers.fill(0.0);
            value(piece * ROWS + row, &mut numbers);
            let pairs = to.iter_mut().zip(&numbers);
            pairs.for_each(|(to, &x)| *to = C::of(C::Number::from_f64(x)));
        }
    });
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
