//! Steps of tables on a CUDA device: rows change in place, by one kernel, to the CPU's numbers.

#[cfg(any(test, feature = "cuda"))]
mod ptx;

use super::optimizer::setting;
use super::update::{Part, Row};
use crate::error::Result;
use crate::numeric::listed::{Lists, Weights};
use crate::numeric::sum_f64;
use crate::optim::reducer::RowSums;
use crate::optim::traced;
use crate::tables::rows;
use candle_core::{DType, Device, Tensor};

/// Rows that rise, and the mean gradient of each, on the device.
pub(super) struct Merged {
    rows: Vec<u32>,
    gradient: Tensor,
}

impl Merged {
    /// Σ w g / Σ w over the parts, in their order.
    pub fn of(parts: &[Part], weight: f64, device: &Device) -> Result<Self> {
        let share = |part: &Part| part.weight / weight;
        if let [part] = parts {
            let gradient = part.gradient.to_device(device)?;
            return Ok(Self {
                rows: part.rows.clone(),
                gradient: match part.weight == weight {
                    true => gradient,
                    false => (gradient * share(part))?,
                },
            });
        }
        let all = parts.iter().map(|part| part.gradient.to_device(device));
        let all = all.collect::<candle_core::Result<Vec<_>>>()?;
        if all.is_empty() {
            return Err(setting("gradients of a sparse table", "some", "none"));
        }
        let ids: Vec<u32> = parts.iter().flat_map(|p| p.rows.iter().copied()).collect();
        let (rows, places) = rows::unique(&ids);
        let shares = parts.iter().flat_map(|p| p.rows.iter().map(|_| share(p)));
        let shares = Weights::Each(shares.collect());
        let lists = Lists::by_id(places.iter().map(|p| *p as usize), rows.len(), shares);
        Ok(Self {
            gradient: lists.sums(&Tensor::cat(&all, 0)?)?,
            rows,
        })
    }

    /// For a reducer.
    pub fn sums(self) -> RowSums {
        RowSums {
            gradients: self.gradient,
            rows: self.rows,
        }
    }

    /// The sum of all squares, taken in f64.
    pub fn squares(&self) -> Result<f64> {
        match traced::squares(std::slice::from_ref(&self.gradient))? {
            Some(squares) => Ok(squares.iter().sum()),
            None => sum_f64(&self.gradient.to_dtype(DType::F64)?.sqr()?),
        }
    }

    /// Changes these rows of a table and their accumulators; the squared norm of the change.
    pub fn apply(&self, table: &Tensor, sums: &Tensor, row: Row<f64>) -> Result<f64> {
        launch::apply(self, table, sums, row)
    }
}

#[cfg(feature = "cuda")]
mod launch {
    use super::{Merged, ptx};
    use crate::error::Result;
    use crate::numeric::cuda::{self, Kernels, address, type_of, written_address};
    use crate::numeric::sum_f64;
    use crate::numeric::traced::assembly::F64;
    use crate::sparse::update::Row;
    use candle_core::cuda::cudarc::driver::{LaunchConfig, PushKernelArg};
    use candle_core::{DType, Tensor};

    static KERNELS: Kernels<ptx::Key> = Kernels::new("adahessian-rows");

    pub fn apply(merged: &Merged, table: &Tensor, sums: &Tensor, row: Row<f64>) -> Result<f64> {
        let gradient = merged.gradient.contiguous()?;
        let (count, width) = gradient.dims2()?;
        let (Some(device), Some(of)) = (cuda::device(table), type_of(gradient.dtype())) else {
            return Err(super::elsewhere());
        };
        let key = ptx::Key {
            rule: ptx::Rule::of(row.rule),
            half: table.dtype() == DType::BF16,
            of,
        };
        let name = |_: &ptx::Key| format!("table_rows_{}", of.name);
        let kernel = KERNELS.kernel(key, name, ptx::step);
        let function =
            device.get_or_load_custom_func(&kernel.name, &kernel.module, &kernel.text)?;
        let rows = device.clone_htod(&merged.rows)?;
        // SAFETY: the kernel writes each of its numbers.
        let changes = unsafe { Tensor::empty(count, DType::F64, table.device())? };
        let (to, accumulators) = (written_address(table)?, written_address(sums)?);
        let (from, left) = (address(&gradient)?, written_address(&changes)?);
        let sizes = [count, width].map(|size| size as u32);
        let numbers = [row.lr, row.eps, 1.0 / width as f64];
        let narrow = numbers.map(|x| x as f32);
        let mut launch = function.builder();
        launch.arg(&to).arg(&accumulators).arg(&rows);
        launch.arg(&from).arg(&left);
        launch.arg(&sizes[0]).arg(&sizes[1]);
        match of == F64 {
            true => numbers.iter().for_each(|number| {
                launch.arg(number);
            }),
            false => narrow.iter().for_each(|number| {
                launch.arg(number);
            }),
        }
        let threads = LaunchConfig::for_num_elems(count as u32);
        // SAFETY: the parameters are those that the text names, in its order. Rows are below the table's, as lookups
        // have seen to, each once; the gradient and `changes` have as many rows.
        unsafe { launch.launch(threads) }.map_err(cuda::driver)?;
        written_address(table)?;
        written_address(sums)?;
        address(&gradient)?;
        written_address(&changes)?;
        sum_f64(&changes)
    }
}

#[cfg(not(feature = "cuda"))]
mod launch {
    use super::{Merged, Result, Row, Tensor};

    pub fn apply(_: &Merged, _: &Tensor, _: &Tensor, _: Row<f64>) -> Result<f64> {
        Err(super::elsewhere())
    }
}

/// A table is on the CPU or on a CUDA device, see `SparseTable::to_device`.
fn elsewhere() -> crate::error::Error {
    setting(
        "gradient of a sparse table",
        "f32 or f64 on its table's device",
        "another",
    )
}

#[cfg(test)]
mod tests {
    use super::ptx::{Key, Rule, step};
    use crate::numeric::traced::assembly::{F32, F64, assembled};

    #[test]
    fn the_assembler_takes_steps_of_rows() {
        let mut texts = Vec::new();
        for rule in [Rule::Sgd, Rule::Elements, Rule::Rows] {
            for (half, of) in [(false, F32), (true, F32), (false, F64)] {
                texts.push(step(&Key { rule, half, of }));
            }
        }
        assembled(&texts);
    }
}
