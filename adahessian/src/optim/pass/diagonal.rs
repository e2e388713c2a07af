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
    /// The least magnitude of the averaged D, as a share of the mean of |D| over the variable.
    pub floor: f64,
}

impl Diagonal {
    /// D averaged over its blocks, and not nearer to 0 than its floor.
    pub fn averaged(&self) -> Result<Tensor> {
        let averaged = match self.average {
            Average::Absolute => self.block.average(&self.tensor.abs()?)?,
            Average::Signed => self.block.average(&self.tensor)?,
        };
        if self.floor == 0.0 {
            return Ok(averaged);
        }
        let mean = sum_f64(&self.tensor.abs()?)? / self.tensor.elem_count().max(1) as f64;
        let least = averaged.abs()?.maximum(self.floor * mean)?;
        match self.average {
            Average::Absolute => Ok(least),
            // A negative one stays negative, as long as it is: rules that square it would take a floor above it for
            // a small curvature.
            Average::Signed => Ok(averaged.lt(0.0)?.where_cond(&least.neg()?, &least)?),
        }
    }

    /// The least magnitude that the averaged D may have.
    pub(super) fn least<T: Real>(&self, diagonal: &[T]) -> Option<T> {
        if self.floor == 0.0 {
            return None;
        }
        let sums = pieces(PIECE, [], [diagonal], &|_, [], [part]| sizes(part)[0]);
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
