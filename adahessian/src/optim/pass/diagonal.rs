//! The estimated diagonal of one variable, averaged and floored.

use crate::block::Block;
use crate::error::Result;
use crate::numeric::in_place::{Averaging, PIECE, pieces, sizes};
use crate::numeric::{Real, sum_f64};
use crate::optim::Average;
use candle_core::Tensor;

/// D of one variable, and what is averaged in it.
#[derive(Clone)]
pub(crate) struct Diagonal {
    pub tensor: Tensor,
    pub block: Block,
    pub average: Average,
    /// The least of the averaged D, as a share of the mean of |D| over the variable.
    pub floor: f64,
}

impl Diagonal {
    /// D averaged over its blocks, and not below its floor.
    pub fn averaged(&self) -> Result<Tensor> {
        let averaged = match self.average {
            Average::Absolute => self.block.average(&self.tensor.abs()?)?,
            Average::Signed => self.block.average(&self.tensor)?,
        };
        if self.floor == 0.0 {
            return Ok(averaged);
        }
        let mean = sum_f64(&self.tensor.abs()?)? / self.tensor.elem_count().max(1) as f64;
        Ok(averaged.maximum(self.floor * mean)?)
    }

    /// The least that the averaged D may be.
    pub(super) fn least<T: Real>(&self, diagonal: &[T]) -> Option<T> {
        if self.floor == 0.0 {
            return None;
        }
        let sums = pieces(PIECE, [], [diagonal], |_, [], [part]| sizes(part)[0]);
        let mean = sums.iter().sum::<f64>() / diagonal.len() as f64;
        Some(T::from_f64(self.floor * mean))
    }

    #[cfg_attr(
        not(feature = "cuda"),
        expect(dead_code, reason = "the kernels' question")
    )]
    pub(crate) fn averages_as(&self) -> Option<Averaging> {
        (self.floor == 0.0).then(|| self.averaging())
    }

    pub(super) fn averaging(&self) -> Averaging {
        Averaging {
            run: self.block.run(self.tensor.dims()).max(1),
            absolute: self.average == Average::Absolute,
        }
    }
}
