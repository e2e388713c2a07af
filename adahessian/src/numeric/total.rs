//! The sum of a tensor's entries on any device, with more digits than its type has.

use super::dtype::widened;
use super::end_to_end::in_memory;
use crate::error::Result;
use candle_core::{DType, Tensor};

/// How many entries candle sums in the tensor's own type before f64 takes over: few enough for the
/// rounding of f32, many enough for speed.
const SUM_RUN: usize = 4096;

/// The sum of all entries as f64.
pub(crate) fn sum_f64(tensor: &Tensor) -> Result<f64> {
    let mut sums = Totals::default();
    sums.add(tensor)?;
    Ok(sums.read()?.iter().sum())
}

/// The largest entry of a tensor, on its device: first of runs, for a GPU has one group of threads for each of them.
pub(crate) fn largest_entry(tensor: &Tensor) -> Result<Tensor> {
    let flat = tensor.flatten_all()?;
    let whole = flat.elem_count() - flat.elem_count() % SUM_RUN;
    if whole == 0 || in_memory(&flat) {
        return Ok(flat.max_all()?);
    }
    let runs = flat.narrow(0, 0, whole)?;
    let mut of_runs = runs.reshape((whole / SUM_RUN, SUM_RUN))?.max(1)?;
    if whole < flat.elem_count() {
        let rest = flat.narrow(0, whole, flat.elem_count() - whole)?;
        of_runs = Tensor::cat(&[of_runs, rest], 0)?;
    }
    Ok(of_runs.max_all()?)
}

/// The sum of all entries where they are: [1]. Of runs first, as [`largest_entry`].
pub(crate) fn total_on_device(tensor: &Tensor) -> Result<Tensor> {
    let flat = tensor.flatten_all()?;
    let whole = flat.elem_count() - flat.elem_count() % SUM_RUN;
    let mut parts = Vec::with_capacity(2);
    if whole > 0 {
        let runs = flat.narrow(0, 0, whole)?;
        parts.push(runs.reshape((whole / SUM_RUN, SUM_RUN))?.sum(1)?);
    }
    if whole < flat.elem_count() {
        let rest = flat.narrow(0, whole, flat.elem_count() - whole)?;
        parts.push(rest.sum_keepdim(0)?);
    }
    Ok(Tensor::cat(&parts, 0)?.sum_keepdim(0)?)
}

/// Sums of several tensors, which are read from their device all at once: a copy to the host waits for everything
/// that the device has been asked for.
#[derive(Default)]
pub(crate) struct Totals {
    /// Short vectors whose entries are yet to be added, each with the number of its sum.
    parts: Vec<(usize, Tensor)>,
    count: usize,
}

impl Totals {
    /// Adds the sum of all entries of a tensor.
    pub fn add(&mut self, tensor: &Tensor) -> Result<()> {
        let flat = widened(tensor)?.flatten_all()?;
        let whole = flat.elem_count() - flat.elem_count() % SUM_RUN;
        if whole > 0 {
            let runs = flat
                .narrow(0, 0, whole)?
                .reshape((whole / SUM_RUN, SUM_RUN))?;
            self.parts.push((self.count, runs.sum(1)?));
        }
        if whole < flat.elem_count() {
            let rest = flat.narrow(0, whole, flat.elem_count() - whole)?;
            self.parts.push((self.count, rest.sum_keepdim(0)?));
        }
        self.count += 1;
        Ok(())
    }

    /// The sums, in the order of their tensors.
    pub fn read(self) -> Result<Vec<f64>> {
        let mut sums = vec![0.0; self.count];
        let alike = |(_, a): &(usize, Tensor), (_, b): &(usize, Tensor)| {
            a.device().same_device(b.device()) && a.dtype() == b.dtype()
        };
        for parts in self.parts.chunk_by(alike) {
            let vectors: Vec<&Tensor> = parts.iter().map(|(_, vector)| vector).collect();
            let values = match vectors.as_slice() {
                [one] => (*one).clone(),
                all => Tensor::cat(all, 0)?,
            };
            let values = values.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            let mut values = values.into_iter();
            for (number, vector) in parts {
                sums[*number] += values.by_ref().take(vector.elem_count()).sum::<f64>();
            }
        }
        Ok(sums)
    }
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
        let mut both = Totals::default();
        both.add(&scalar).unwrap();
        both.add(&Tensor::new(&[1.5f64, 2.0], &Device::Cpu).unwrap())
            .unwrap();
        both.add(&scalar).unwrap();
        assert_eq!(both.read().unwrap(), [2.5, 3.5, 2.5]);
    }
}
