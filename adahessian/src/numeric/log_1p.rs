//! log(1 + e) of candle's tensors.

use crate::error::Result;
use candle_core::Tensor;

/// log(1 + e) for e at least 0, small ones with all their digits, which candle has no operation for: 1 + e
/// is u, rounded, and log(u) + (e - (u - 1))/u is right but for the square of the rounding (Goldberg 1991). The
/// correction is a constant of both derivatives, those of log(u).
pub(crate) fn log_1p(e: &Tensor) -> Result<Tensor> {
    let u = (e + 1.0)?;
    let (whole, part) = (u.detach(), e.detach());
    let lost = ((part - (&whole - 1.0)?)? / whole)?;
    Ok((u.log()? + lost)?)
}
