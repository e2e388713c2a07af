//! A table with what its optimizer keeps of it.

use super::device;
use super::update::{Accumulator, Merged, Part, Row, SparseRule};
use crate::error::{Error, Result};
use crate::optim::guard;
use crate::optim::reducer::RowSums;
use crate::tables::store::{Store, numbers_mut};
use crate::tables::{Leaf, SparseTable};
use candle_core::{DType, Device, Tensor};

/// A table, its accumulators, and the gradients of the step to come.
pub(super) struct Owned {
    pub table: SparseTable,
    pub sums: Sums,
    pub parts: Vec<Part>,
    /// What was looked up since the last step.
    pub open: Vec<Leaf>,
    /// Whether rows were looked up that got no gradient.
    pub missed: bool,
}

/// The accumulators, where the table is.
pub(super) enum Sums {
    F32(Vec<f32>),
    F64(Vec<f64>),
    /// [rows, accumulators of a row] on a CUDA device.
    Device(Tensor),
}

impl Sums {
    fn new(table: &SparseTable, rule: SparseRule) -> Result<Self> {
        let ([rows, _], width) = (table.dims(), Self::width(table, rule));
        let (dtype, device) = (table.dtype(), table.device());
        Ok(match (device.is_cpu(), dtype) {
            (false, _) => Self::Device(Tensor::zeros((rows, width.max(1)), dtype, &device)?),
            (true, DType::F64) => Self::F64(vec![0.0; rows * width]),
            (true, _) => Self::F32(vec![0.0; rows * width]),
        })
    }

    /// Accumulators a row.
    pub fn width(table: &SparseTable, rule: SparseRule) -> usize {
        match rule {
            SparseRule::Sgd => 0,
            SparseRule::Adagrad { accumulator, .. } => match accumulator {
                Accumulator::Elements => table.dims()[1],
                Accumulator::Rows => 1,
            },
        }
    }

    /// A copy of them, on the CPU.
    pub fn tensor(&self, shape: &[usize]) -> Result<Tensor> {
        Ok(match self {
            Sums::F32(data) => Tensor::from_slice(data, shape, &Device::Cpu)?,
            Sums::F64(data) => Tensor::from_slice(data, shape, &Device::Cpu)?,
            Sums::Device(sums) => sums.to_device(&Device::Cpu)?,
        })
    }

    /// Those of a tensor, for a table on this device.
    pub fn read(tensor: &Tensor, device: &Device) -> Result<Self> {
        if !device.is_cpu() {
            // Of its own: it is written to in place.
            return Ok(Sums::Device(match tensor.device().same_device(device) {
                true => tensor.contiguous()?.copy()?,
                false => tensor.to_device(device)?,
            }));
        }
        let flat = tensor.flatten_all()?;
        Ok(match tensor.dtype() {
            DType::F64 => Sums::F64(flat.to_vec1()?),
            _ => Sums::F32(flat.to_vec1()?),
        })
    }
}

/// The gradients of one table for a step, merged.
pub(super) enum Ready {
    F32(Merged<f32>),
    F64(Merged<f64>),
    Device(device::Merged),
}

impl Ready {
    /// For a reducer.
    pub fn rows(self, width: usize) -> Result<RowSums> {
        match self {
            Ready::F32(merged) => merged.sums(width),
            Ready::F64(merged) => merged.sums(width),
            Ready::Device(merged) => Ok(merged.sums()),
        }
    }

    /// The sum of all squares.
    pub fn squares(&self) -> Result<f64> {
        match self {
            Ready::F32(merged) => Ok(merged.squares()),
            Ready::F64(merged) => Ok(merged.squares()),
            Ready::Device(merged) => merged.squares(),
        }
    }
}

impl Owned {
    pub fn new(table: &SparseTable, rule: SparseRule) -> Result<Self> {
        Ok(Self {
            sums: Sums::new(table, rule)?,
            table: table.clone(),
            parts: Vec::new(),
            open: Vec::new(),
            missed: false,
        })
    }

    /// Takes over what was looked up since the last call.
    pub fn take_leaves(&mut self) {
        self.open.extend(self.table.take_leaves());
    }

    /// Whether rows were looked up that no gradient has come to.
    pub fn has_unreached(&self) -> bool {
        self.open.iter().any(|leaf| !leaf.reached)
    }

    /// What was accumulated, for a reducer; of a table that nobody looked up no rows.
    pub fn row_sums(&self) -> Result<RowSums> {
        let width = self.table.dims()[1];
        if self.parts.is_empty() {
            let (dtype, device) = match &self.sums {
                Sums::F32(_) => (DType::F32, &Device::Cpu),
                Sums::F64(_) => (DType::F64, &Device::Cpu),
                Sums::Device(sums) => (sums.dtype(), sums.device()),
            };
            return Ok(RowSums {
                rows: Vec::new(),
                gradients: Tensor::zeros((0, width), dtype, device)?,
            });
        }
        self.ready(1.0)?.rows(width)
    }

    /// Whether these are rows of the table, as what changes it relies on: a reducer may be anybody's.
    ///
    /// # Errors
    /// [`Error::Variable`] with the table's name.
    pub fn check(&self, sums: &RowSums) -> Result<()> {
        let [height, width] = self.table.dims();
        let wrong = |expected: String, got: String| Error::Variable {
            name: self.table.name().into(),
            expected,
            got,
        };
        let rise = sums.rows.windows(2).all(|pair| pair[0] < pair[1]);
        let last = sums.rows.last().copied().unwrap_or(0);
        if !rise || (last as usize) >= height {
            let got = format!("{} of them, the last {last}", sums.rows.len());
            return Err(wrong(format!("rows that rise, below {height}"), got));
        }
        let expected = match &self.sums {
            Sums::F32(_) => DType::F32,
            Sums::F64(_) => DType::F64,
            Sums::Device(sums) => sums.dtype(),
        };
        let (dims, dtype) = (sums.gradients.dims(), sums.gradients.dtype());
        match dims == [sums.rows.len(), width] && dtype == expected {
            true => Ok(()),
            false => Err(wrong(
                format!("gradients of {expected:?} [{}, {width}]", sums.rows.len()),
                format!("{dtype:?} {dims:?}"),
            )),
        }
    }

    /// Σ w g / `weight` over the parts.
    pub fn ready(&self, weight: f64) -> Result<Ready> {
        let width = self.table.dims()[1];
        Ok(match &self.sums {
            Sums::F32(_) => Ready::F32(Merged::of(&self.parts, width, weight)?),
            Sums::F64(_) => Ready::F64(Merged::of(&self.parts, width, weight)?),
            Sums::Device(sums) => {
                let merged = device::Merged::of(&self.parts, weight, sums.device())?;
                Ready::Device(merged)
            }
        })
    }

    /// Changes the rows; the squared norm of the change.
    pub fn apply(&mut self, ready: &Ready, rule: SparseRule, lr: f64) -> Result<f64> {
        let widths = (self.table.dims()[1], Sums::width(&self.table, rule));
        let eps = match rule {
            SparseRule::Adagrad { eps, .. } => guard(eps),
            SparseRule::Sgd => 0.0,
        };
        let row = Row { rule, lr, eps };
        let single = Row {
            rule,
            lr: lr as f32,
            eps: eps as f32,
        };
        Ok(
            match (&mut *self.table.store_mut(), &mut self.sums, ready) {
                (Store::F32(data), Sums::F32(sums), Ready::F32(m)) => {
                    m.apply(data, sums, widths, single)
                }
                (Store::Bf16(data), Sums::F32(sums), Ready::F32(m)) => {
                    m.apply(data, sums, widths, single)
                }
                (Store::Mapped(map), Sums::F32(sums), Ready::F32(m)) => {
                    m.apply(numbers_mut(map), sums, widths, single)
                }
                (Store::F64(data), Sums::F64(sums), Ready::F64(m)) => {
                    m.apply(data, sums, widths, row)
                }
                (Store::Device(numbers, _), Sums::Device(sums), Ready::Device(m)) => {
                    m.apply(numbers, sums, row)?
                }
                // `Sums::new` and `Owned::ready` go by the table's type and place.
                _ => 0.0,
            },
        )
    }
}
