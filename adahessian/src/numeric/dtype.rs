//! What number types can hold, and work in the type that numbers have. Apart from the engine, which
//! chooses kernels, nobody else asks which type it is.

use super::Real;
use crate::error::Result;
use candle_core::{DType, Tensor};

/// Work that is written for any [`Real`].
pub(crate) trait ByType {
    type Output;
    fn run<T: Real>(self) -> Result<Option<Self::Output>>;
}

/// Does the work in this type; `None` where it is neither f32 nor f64.
pub(crate) fn by_type<W: ByType>(dtype: DType, work: W) -> Result<Option<W::Output>> {
    match dtype {
        DType::F32 => work.run::<f32>(),
        DType::F64 => work.run::<f64>(),
        _ => Ok(None),
    }
}

/// The type in which numbers of this type are computed with and summed: half precision has too few
/// digits for a mean that takes a thousand steps, and f16 too small a range for squares.
pub(crate) fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// The tensor in the type of [`wide`].
pub(crate) fn widened(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_dtype(wide(tensor.dtype()))?)
}

/// The tensor in a type that sums of its entries are right in; integers as they are, whose digits f32 has not all.
pub(crate) fn summable(tensor: &Tensor) -> Result<Tensor> {
    match tensor.dtype().is_float() {
        true => widened(tensor),
        false => Ok(tensor.clone()),
    }
}

/// Half precision.
pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16)
}

/// The distance from 1 to the next number.
pub(crate) fn precision(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        DType::F32 => f64::from(f32::EPSILON),
        DType::F16 => 2f64.powi(-10),
        _ => 2f64.powi(-7),
    }
}

/// A number below every other that is not infinite.
pub(crate) fn lowest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MIN,
        _ => f64::from(f32::MIN),
    }
}

/// A score whose softmax weight is 0 beside any other, and which is finite.
pub(crate) fn hidden_score(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => -3e4,
        _ => -1e9,
    }
}
