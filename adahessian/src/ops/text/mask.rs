//! Dropout masks as bytes.

use crate::error::Result;
use crate::ops::dropout::{Dropout, Mode, check_probability};
use crate::ops::engine::{Buffer, Real};
use crate::random::Stream;

/// Which entries are kept (1) and dropped (0), and what the kept ones are multiplied with. The same
/// decisions as [`crate::ops::dropout()`] makes for a tensor of this many entries.
pub(crate) struct Mask {
    pub kept: Vec<u8>,
    pub scale: f64,
}

impl Mask {
    /// `None` where nothing is dropped.
    pub fn new(dropout: &Dropout, count: usize) -> Result<Option<Self>> {
        let p = dropout.probability;
        check_probability(p)?;
        Ok(match dropout.mode {
            Mode::Train { seed, step, micro } if p > 0.0 => {
                let stream = Stream::new(seed, &format!("dropout/{}", dropout.name), step, micro);
                Some(Self {
                    kept: stream.decisions(count, 1.0 - p),
                    scale: 1.0 / (1.0 - p),
                })
            }
            _ => None,
        })
    }

    /// Multiplies entries from number `start` on.
    #[inline(always)]
    pub fn apply<T: Real>(&self, start: usize, entries: &mut [T]) {
        let scale = T::from_f64(self.scale);
        let kept = &self.kept[start..][..entries.len()];
        let pairs = entries.iter_mut().zip(kept);
        pairs.for_each(|(x, &kept)| *x = *x * scale * T::from_byte(kept));
    }

    /// x ⊙ mask.
    pub fn of<T: Real>(&self, x: &[T]) -> Buffer<T> {
        use rayon::prelude::*;
        const PIECE: usize = 1 << 14;
        let mut masked = Buffer::copy_of(x);
        let pieces = masked.par_chunks_mut(PIECE).enumerate();
        pieces.for_each(|(i, piece)| self.apply(i * PIECE, piece));
        masked
    }
}
