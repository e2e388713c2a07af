//! The sum of a tensor's entries on any device, with more digits than its type has.

use super::dtype::widened;
use crate::error::Result;
use candle_core::{DType, Tensor};

/// How many entries candle sums in the tensor's own type before f64 takes over: few enough for the
/// rounding of f32, many enough for speed.
const SUM_RUN: usize = 4096;

/// The sum of all entries as f64.
pub(crate) fn sum_f64(tensor: &Tensor) -> Result<f64> {
    let flat = widened(tensor)?.flatten_all()?;
    let whole = flat.elem_count() - flat.elem_count() % SUM_RUN;
    let mut sum = 0.0;
    if whole > 0 {
        let runs = flat
            .narrow(0, 0, whole)?
            .reshape((whole / SUM_RUN, SUM_RUN))?;
        sum += total(&runs.sum(1)?)?;
    }
    if whole < flat.elem_count() {
        let rest = flat.narrow(0, whole, flat.elem_count() - whole)?;
        sum += total(&rest.sum_keepdim(0)?)?;
    }
    Ok(sum)
}

/// The sum of a short vector, in f64.
fn total(vector: &Tensor) -> Result<f64> {
    let values = vector.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    Ok(values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn sums_of_any_size() {
        for count in [0usize, 1, 7, SUM_RUN, SUM_RUN + 1, 3 * SUM_RUN + 5] {
            let data: Vec<f32> = (0..count).map(|i| (i % 13) as f32).collect();
            let expected: f64 = data.iter().map(|x| f64::from(*x)).sum();
            let tensor = Tensor::from_vec(data, (count, 1), &Device::Cpu).unwrap();
            assert_eq!(sum_f64(&tensor).unwrap(), expected, "{count}");
            assert_eq!(sum_f64(&tensor.t().unwrap()).unwrap(), expected, "{count}");
        }
        let scalar = Tensor::new(2.5f32, &Device::Cpu).unwrap();
        assert_eq!(sum_f64(&scalar).unwrap(), 2.5);
    }
}
