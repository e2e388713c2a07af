//! Dropout masks, as bytes and as tensors.

use super::{Dropout, Mode};
use crate::error::Result;
use crate::numeric::parallel;
use crate::numeric::{Buffer, Real};
use crate::ops::wrong;
use crate::random::Stream;
use candle_core::Tensor;
use std::sync::{Mutex, OnceLock};

/// A mask: a function of seed, step, micro-batch and name, drawn when it is first needed.
pub(crate) struct Mask {
    stream: Stream,
    /// p
    probability: f64,
    /// Which entries are kept (1) and dropped (0).
    kept: OnceLock<Vec<u8>>,
    /// The same as numbers, on a device.
    there: Mutex<Option<Tensor>>,
}

impl Mask {
    /// `None` where nothing is dropped.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a probability outside [0, 1).
    pub fn of(dropout: &Dropout) -> Result<Option<Self>> {
        let probability = dropout.probability;
        if !(0.0..1.0).contains(&probability) {
            let got = probability.to_string();
            return wrong("dropout probability", "at least 0 and below 1", got);
        }
        Ok(match dropout.mode {
            Mode::Train { seed, step, micro } if probability > 0.0 => Some(Self {
                stream: Stream::new(seed, &format!("dropout/{}", dropout.name), step, micro),
                probability,
                kept: OnceLock::new(),
                there: Mutex::new(None),
            }),
            _ => None,
        })
    }

    /// What the entries that are kept are multiplied with.
    fn scale(&self) -> f64 {
        1.0 / (1.0 - self.probability)
    }

    /// x ⊙ mask, in candle's operations.
    pub fn composed(&self, x: &Tensor) -> Result<Tensor> {
        Ok((x * self.factors(x)?)?)
    }

    /// What the entries of x are multiplied with, on its device, drawn or sent there once.
    pub fn factors(&self, x: &Tensor) -> Result<Tensor> {
        let mut there = self.there.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(mask) = there.as_ref()
            && mask.dtype() == x.dtype()
            && mask.device().same_device(x.device())
            && mask.elem_count() == x.elem_count()
        {
            return Ok(mask.reshape(x.shape())?);
        }
        let odds = (1.0 - self.probability, self.scale());
        let mask = self
            .stream
            .decisions_tensor(x.dims(), odds, x.dtype(), x.device())?;
        *there = Some(mask.clone());
        Ok(mask)
    }

    /// The mask of an array of this many entries, the same in every call.
    pub fn drawn(&self, count: usize) -> Drawn<'_> {
        let draw = || self.stream.decisions(count, 1.0 - self.probability);
        Drawn {
            kept: self.kept.get_or_init(draw),
            scale: self.scale(),
        }
    }
}

/// A mask as bytes.
#[derive(Clone, Copy)]
pub(crate) struct Drawn<'a> {
    kept: &'a [u8],
    scale: f64,
}

impl Drawn<'_> {
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
        const PIECE: usize = 1 << 14;
        let mut masked = Buffer::copy_of(x);
        parallel::each(masked.chunks_mut(PIECE), |i, piece| {
            self.apply(i * PIECE, piece);
        });
        masked
    }
}
