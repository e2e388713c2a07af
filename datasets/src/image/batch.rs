//! The tensors of a batch of pictures.

use candle_core::Tensor;

use crate::error::{Error, Result};

/// The tensors of one batch of `N` pictures.
#[derive(Debug, Clone)]
pub struct ImageBatch {
    /// Normalised values, `[N, 3, H, W]`, f32.
    pub pixels: Tensor,
    /// Class numbers, `[N]`, u32.
    pub labels: Tensor,
    /// How many corrupt pictures were met and replaced, see [`OnCorrupt::SkipAndCount`](super::OnCorrupt::SkipAndCount).
    pub replaced: usize,
}

impl ImageBatch {
    /// The number of pictures `N`.
    pub fn len(&self) -> usize {
        self.labels.elem_count()
    }

    /// Whether the batch has no pictures.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pictures `start .. start + len` as a batch of their own, for micro-batches; `replaced`
    /// stays that of the whole batch.
    ///
    /// # Errors
    /// If the range does not lie within the batch.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let batch = self.len();
        if len == 0 || start.checked_add(len).is_none_or(|end| end > batch) {
            return Err(Error::Batch {
                reason: format!(
                    "pictures {start} .. {start} + {len} of a batch of {batch}; choose a non-empty range inside it"
                ),
            });
        }
        Ok(Self {
            pixels: self.pixels.narrow(0, start, len)?,
            labels: self.labels.narrow(0, start, len)?,
            replaced: self.replaced,
        })
    }
}
