//! What number types can hold. Nobody else asks which type it is.

use candle_core::DType;

/// The type in which numbers of this type are computed with and summed: half precision has too few
/// digits for a mean that takes a thousand steps, and f16 too small a range for squares.
pub(crate) fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
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
