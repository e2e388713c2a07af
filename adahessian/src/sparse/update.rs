//! How a row changes with its gradient, and the gradients of micro-batches as one.

use super::optimizer::setting;
use crate::error::Result;
use crate::numeric::Real;
use crate::optim::reducer::RowSums;
use crate::tables::cell::Cell;
use crate::tables::rows;
use candle_core::Tensor;

/// What a row's accumulator is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accumulator {
    /// One number for each number of the row: s = s + g², Duchi et al. 2011.
    #[default]
    Elements,
    /// One number for the row: s = s + mean g². Memory for accumulators is 1/width of the table's.
    Rows,
}

/// How a row changes with its gradient g.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SparseRule {
    /// θ = θ - η g / (√s + eps). A row that is not touched does not change, which is what Adagrad does
    /// with a gradient of zero.
    Adagrad {
        /// What s is.
        accumulator: Accumulator,
        /// Added to the denominator.
        eps: f64,
    },
    /// θ = θ - η g.
    Sgd,
}

impl SparseRule {
    /// Adagrad with an accumulator for every number and eps 1e-10.
    pub fn adagrad() -> Self {
        Self::Adagrad {
            accumulator: Accumulator::Elements,
            eps: 1e-10,
        }
    }
}

/// The gradient of some rows, with its weight.
pub(super) struct Part {
    pub rows: Vec<u32>,
    pub gradient: Tensor,
    pub weight: f64,
}

/// One row's update.
#[derive(Clone, Copy)]
pub(super) struct Row<T> {
    pub rule: SparseRule,
    pub lr: T,
    pub eps: T,
}

impl<T: Real> Row<T> {
    /// Changes a row and its accumulators; the squared norm of the change.
    #[inline(always)]
    fn update<C: Cell<Number = T>>(&self, row: &mut [C], sums: &mut [T], g: &[T]) -> f64 {
        if let SparseRule::Adagrad {
            accumulator: Accumulator::Rows,
            ..
        } = self.rule
        {
            let squares = g.iter().fold(T::ZERO, |sum, &g| sum + g * g);
            sums[0] += squares * T::from_f64(1.0 / g.len() as f64);
        }
        let mut change = 0.0;
        for (i, (to, &g)) in row.iter_mut().zip(g).enumerate() {
            let step = match self.rule {
                SparseRule::Sgd => g * self.lr,
                SparseRule::Adagrad { accumulator, .. } => {
                    let sum = match accumulator {
                        Accumulator::Rows => sums[0],
                        Accumulator::Elements => {
                            sums[i] += g * g;
                            sums[i]
                        }
                    };
                    g / (sum.sqrt() + self.eps) * self.lr
                }
            };
            let before = to.get();
            *to = C::of(before - step);
            change += (to.get() - before).to_f64().powi(2);
        }
        change
    }
}

/// Rows that rise, and the mean gradient of each.
pub(super) struct Merged<T> {
    rows: Vec<u32>,
    gradient: Vec<T>,
}

impl<T: Real> Merged<T> {
    /// Σ w g / Σ w over the parts, in their order.
    pub fn of(parts: &[Part], width: usize, weight: f64) -> Result<Self> {
        let data = |part: &Part| -> Result<Vec<T>> {
            let (storage, layout) = part.gradient.storage_and_layout();
            let start = layout.start_offset();
            match &*storage {
                candle_core::Storage::Cpu(storage) => {
                    let all = T::slice(storage).unwrap_or(&[]);
                    Ok(all[start..start + part.rows.len() * width].to_vec())
                }
                _ => Err(setting(
                    "gradient of a sparse table",
                    "on the CPU",
                    "elsewhere",
                )),
            }
        };
        if let [part] = parts {
            let mut gradient = data(part)?;
            if part.weight != weight {
                let share = T::from_f64(part.weight / weight);
                gradient.iter_mut().for_each(|g| *g = *g * share);
            }
            return Ok(Self {
                rows: part.rows.clone(),
                gradient,
            });
        }
        let ids: Vec<u32> = parts.iter().flat_map(|p| p.rows.iter().copied()).collect();
        let (rows, places) = rows::unique(&ids);
        let mut gradient = vec![T::ZERO; rows.len() * width];
        let mut places = places.into_iter();
        for part in parts {
            let factor = T::from_f64(part.weight / weight);
            for g in data(part)?.chunks_exact(width) {
                let place = places.next().unwrap_or(0) as usize;
                let to = &mut gradient[place * width..][..width];
                to.iter_mut().zip(g).for_each(|(to, &g)| *to += g * factor);
            }
        }
        Ok(Self { rows, gradient })
    }

    /// For a reducer.
    pub fn sums(self, width: usize) -> Result<RowSums> {
        Ok(RowSums {
            gradients: T::tensor(self.gradient, &[self.rows.len(), width])?,
            rows: self.rows,
        })
    }

    pub fn squares(&self) -> f64 {
        self.gradient.iter().map(|g| g.to_f64().powi(2)).sum()
    }

    pub fn apply<C: Cell<Number = T>>(
        &self,
        store: &mut [C],
        sums: &mut [T],
        widths: (usize, usize),
        row: Row<T>,
    ) -> f64 {
        rows::change((store, sums), widths, &self.rows, |place, to, sums| {
            row.update(to, sums, &self.gradient[place * widths.0..][..widths.0])
        })
    }
}
