//! Rows of a matrix, added up by lists of them: what bags of a table's rows are, and the gradient of an embedding.
//!
//! candle's `index_add` gives each column to one thread of a GPU, which walks through all rows: as many steps in a row
//! as there are, however wide the device is. Here every number of the result has a thread, which adds up its list's
//! entries in their order. Lists longer than [`LONGEST`] are cut in pieces of that length, and the pieces' sums are
//! added up in turn, so that the order depends on the lists alone.

#[cfg(any(test, feature = "cuda"))]
mod ptx;
#[cfg(test)]
mod tests;

use crate::error::Result;
use candle_core::{Device, Tensor};

/// Entries that a thread adds up one after the other.
#[cfg(any(test, feature = "cuda"))]
const LONGEST: usize = 32;

/// What rows are multiplied with before they are added up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Weights {
    /// All with this number.
    All(f64),
    /// Each with its own, in the order of the lists' entries.
    Each(Vec<f64>),
}

/// For each row of a result, which rows of a matrix it is the sum of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lists {
    /// Where each list begins among `rows`, and where the last one ends.
    starts: Vec<u32>,
    rows: Vec<u32>,
    weights: Weights,
}

impl Lists {
    /// List number i is `rows[starts[i]..starts[i + 1]]`.
    pub fn new(starts: Vec<u32>, rows: Vec<u32>, weights: Weights) -> Self {
        Self {
            starts,
            rows,
            weights,
        }
    }

    /// List number i has the places of `ids` that are i, in their order; ids are below `count`.
    pub fn by_id(ids: impl Iterator<Item = usize> + Clone, count: usize, weights: Weights) -> Self {
        let mut starts = vec![0_u32; count + 1];
        ids.clone().for_each(|id| starts[id + 1] += 1);
        for i in 0..count {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut rows = vec![0; starts[count] as usize];
        for (place, id) in ids.enumerate() {
            rows[next[id] as usize] = place as u32;
            next[id] += 1;
        }
        let weights = match weights {
            Weights::Each(weights) => {
                Weights::Each(rows.iter().map(|row| weights[*row as usize]).collect())
            }
            all => all,
        };
        Self::new(starts, rows, weights)
    }

    /// The lists with `of[row]` in the place of each row.
    pub fn through(mut self, of: &[u32]) -> Self {
        self.rows
            .iter_mut()
            .for_each(|row| *row = of[*row as usize]);
        self
    }

    fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The sums [lists, width] of rows of `x` [rows, width].
    ///
    /// # Errors
    /// candle's, and those of the driver.
    pub fn sums(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(sums) = on_device::sums(self, x)? {
            return Ok(sums);
        }
        self.composed(x)
    }

    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let device = x.device();
        let sums = Tensor::zeros((self.count(), x.dim(1)?), x.dtype(), device)?;
        if self.rows.is_empty() {
            return Ok(sums);
        }
        let here = |numbers: &[u32]| Tensor::new(numbers, &Device::Cpu)?.to_device(device);
        let picked = x.contiguous()?.index_select(&here(&self.rows)?, 0)?;
        let picked = match &self.weights {
            Weights::All(1.0) => picked,
            Weights::All(weight) => (picked * *weight)?,
            Weights::Each(weights) => {
                let weights = Tensor::from_slice(weights, (weights.len(), 1), &Device::Cpu)?;
                picked.broadcast_mul(&weights.to_dtype(x.dtype())?.to_device(device)?)?
            }
        };
        let lists = self.starts.windows(2).enumerate();
        let owners = lists.flat_map(|(i, ends)| (ends[0]..ends[1]).map(move |_| i as u32));
        let owners: Vec<u32> = owners.collect();
        Ok(sums.index_add(&here(&owners)?, &picked, 0)?)
    }

    #[cfg(any(test, feature = "cuda"))]
    fn longest(&self) -> usize {
        let lengths = self.starts.windows(2).map(|ends| ends[1] - ends[0]);
        lengths.max().unwrap_or(0) as usize
    }

    /// Lists of at most so many entries, and lists of their sums.
    #[cfg(any(test, feature = "cuda"))]
    fn cut(&self, longest: usize) -> (Self, Self) {
        let (mut starts, mut lists) = (vec![0], vec![0]);
        for ends in self.starts.windows(2) {
            starts.extend((ends[0]..ends[1]).step_by(longest).skip(1));
            if ends[0] < ends[1] {
                starts.push(ends[1]);
            }
            lists.push(starts.len() as u32 - 1);
        }
        let pieces = (0..starts.len() as u32 - 1).collect();
        (
            Self::new(starts, self.rows.clone(), self.weights.clone()),
            Self::new(lists, pieces, Weights::All(1.0)),
        )
    }
}

#[cfg(feature = "cuda")]
mod on_device {
    use super::{LONGEST, Lists, Weights, ptx};
    use crate::error::Result;
    use crate::numeric::cuda::{self, Kernels, address, type_of, written_address};
    use crate::numeric::traced::assembly::{F64, Type};
    use candle_core::cuda::cudarc::driver::{CudaSlice, LaunchConfig, PushKernelArg};
    use candle_core::{CudaDevice, Tensor};

    static KERNELS: Kernels<(bool, Type)> = Kernels::new("adahessian-listed");

    /// None where there is no kernel for this matrix.
    pub fn sums(lists: &Lists, x: &Tensor) -> Result<Option<Tensor>> {
        let (Some(device), Some(of)) = (cuda::device(x), type_of(x.dtype())) else {
            return Ok(None);
        };
        let count = lists.count() * x.dim(1)?;
        if !(1..1 << 31).contains(&count) {
            return Ok(None);
        }
        let longest = lists.longest();
        if longest <= LONGEST {
            return run(lists, x, device, of).map(Some);
        }
        let (pieces, of_pieces) = lists.cut(LONGEST);
        if pieces.count() * x.dim(1)? >= 1 << 31 {
            return run(lists, x, device, of).map(Some); // slower, and right
        }
        sums(&of_pieces, &run(&pieces, x, device, of)?)
    }

    /// The weights of each entry, in the type of the numbers.
    enum Each {
        F32(CudaSlice<f32>),
        F64(CudaSlice<f64>),
    }

    fn run(lists: &Lists, x: &Tensor, device: &CudaDevice, of: Type) -> Result<Tensor> {
        let x = x.contiguous()?;
        let (count, width) = (lists.count(), x.dim(1)?);
        // SAFETY: the kernel writes each of its numbers.
        let y = unsafe { Tensor::empty((count, width), x.dtype(), x.device())? };
        let table = [&lists.starts[..], &lists.rows].concat();
        let table = device.clone_htod(&table)?;
        let (scale, each) = match &lists.weights {
            Weights::All(scale) => (*scale, None),
            Weights::Each(weights) => (
                1.0,
                Some(match of == F64 {
                    true => Each::F64(device.clone_htod(weights)?),
                    false => {
                        let narrow: Vec<f32> = weights.iter().map(|w| *w as f32).collect();
                        Each::F32(device.clone_htod(&narrow)?)
                    }
                }),
            ),
        };
        let key = (each.is_some(), of);
        let name = |_: &(bool, Type)| format!("listed_rows_{}", of.name);
        let kernel = KERNELS.kernel(key, name, |(weighted, of)| ptx::sums(*weighted, *of));
        let function =
            device.get_or_load_custom_func(&kernel.name, &kernel.module, &kernel.text)?;
        let (from, to) = (address(&x)?, written_address(&y)?);
        let sizes = [count, width].map(|size| size as u32);
        let narrow = scale as f32;
        let mut launch = function.builder();
        launch.arg(&from).arg(&to).arg(&table);
        launch.arg(&sizes[0]).arg(&sizes[1]);
        match (&each, of == F64) {
            (Some(Each::F32(weights)), _) => launch.arg(weights),
            (Some(Each::F64(weights)), _) => launch.arg(weights),
            (None, true) => launch.arg(&scale),
            (None, false) => launch.arg(&narrow),
        };
        let threads = LaunchConfig::for_num_elems((count * width) as u32);
        // SAFETY: the parameters are those that the text names, in its order. The table has `count` + 1 starts, rising
        // to the number of rows behind them, each of which is one of x; all live till after the launch.
        unsafe { launch.launch(threads) }.map_err(cuda::driver)?;
        address(&x)?;
        written_address(&y)?;
        Ok(y)
    }
}
