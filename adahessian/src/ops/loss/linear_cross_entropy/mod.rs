//! The cross entropy of a linear map's outputs, whose logits are never there all at once.
//!
//! With c = x Wᵀ + b, p = softmax(c) of a row, q its target distribution and w its weight:
//! ```text
//! F:   L = Σ w (log Σ eᶜ - ⟨q, c⟩);   u = w (p - q)
//! A:   gx = g u W;   gW = g uᵀ x;   gb = g Σ u
//! ∂A:  ḡ = ⟨v_x, u W⟩ + ⟨v_W, uᵀ x⟩ + ⟨v_b, Σ u⟩
//! ∂F:  t = v_x Wᵀ + x v_Wᵀ + v_b;   r = g w p (t - ⟨p, t⟩)
//!      x̄ = L̄ u W + r W + g u v_W;   W̄ = L̄ uᵀ x + rᵀ x + g uᵀ v_x;   b̄ = L̄ Σ u + Σ r
//! ```
//! The forward pass makes uW, uᵀx and Σu while a part's logits are there, so that a first-order step has the three
//! products of a linear map and no more. The second pass makes the logits again, where there are many: ten products where
//! a map and a loss that keep them have nine, and nine arrays of rows x classes less.

mod cpu;
mod tensors;

use super::cross_entropy::CrossEntropy;
use super::targets::read_targets;
use crate::engine::{Kernels, Op, Operand, call};
use crate::error::Result;
use crate::numeric::widened;
use crate::ops::wrong;
use candle_core::Tensor;
use std::ops::Range;

/// [`cross_entropy`](super::cross_entropy()) of the logits x Wᵀ + b, without an array of all logits: the loss of a
/// language model or a translator, whose logits are the largest thing that it has.
///
/// `x` is [.., in], `weight` [classes, in], `bias` `[classes]`, `targets` `[..]` of an integer dtype, a class for each
/// row of x. The mean is over the rows whose target is not `ignore_index`; `label_smoothing` spreads that share of the
/// mass over all classes. The result is a scalar in the dtype of x.
///
/// Rows are gone through in parts of some four million logits (128 rows at the least). For 1,024 rows and 10,000 classes
/// that saves a step of AdaHessian 300 MiB.
///
/// # Errors
/// [`crate::Error::Setting`] for shapes or dtypes that do not fit, a target that is no class (it says in which row), no
/// counted row at all, and smoothing outside [0, 1]; candle's errors.
pub fn linear_cross_entropy<X: Operand>(
    x: &X,
    weight: &Tensor,
    bias: Option<&Tensor>,
    targets: &Tensor,
    label_smoothing: f64,
    ignore_index: Option<i64>,
) -> Result<X> {
    let Some((inputs, rows)) = x.dims().split_last() else {
        return wrong("input of a linear map", "[.., in]", "a scalar");
    };
    let classes = weight.dims().first().copied().unwrap_or(0);
    let logits = [rows, &[classes]].concat();
    let targets = read_targets(&logits, targets, label_smoothing, ignore_index)?;
    let op = LinearCrossEntropy {
        inputs: *inputs,
        entropy: CrossEntropy { classes, targets },
        tracked: [
            x.is_tracked(),
            weight.is_tracked(),
            bias.is_some_and(Operand::is_tracked),
        ],
    };
    X::of(match bias {
        Some(bias) => call(op, &[x, weight, bias]),
        None => call(op, &[x, weight]),
    }?)
}

struct LinearCrossEntropy {
    inputs: usize,
    entropy: CrossEntropy,
    /// Whether x, W and b are differentiated: what is not has no gradient made for it.
    tracked: [bool; 3],
}

impl Op for LinearCrossEntropy {
    fn name(&self) -> &'static str {
        "linear cross entropy"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let classes = self.entropy.classes;
        let weight = [classes, self.inputs];
        if inputs[1] != weight {
            let what = "weight of a linear cross entropy";
            return wrong(what, format!("{weight:?}"), format!("{:?}", inputs[1]));
        }
        match inputs.get(2) {
            Some(bias) if *bias != [classes] => {
                let what = "bias of a linear cross entropy";
                wrong(what, format!("[{classes}]"), format!("{bias:?}"))
            }
            _ => Ok(vec![]),
        }
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let rows = inputs[0].contiguous()?.reshape(((), self.inputs))?;
        let logits = rows.matmul(&inputs[1].t()?)?;
        let logits = match inputs.get(2) {
            // Whose gradient is a sum over all rows: half precision has too few digits for it.
            Some(bias) => widened(&logits)?
                .broadcast_add(&widened(bias)?)?
                .to_dtype(logits.dtype())?,
            None => logits,
        };
        self.entropy.composed(&[logits])
    }

    fn kernels() -> Kernels<Self> {
        Kernels::everywhere()
    }
}

impl LinearCrossEntropy {
    /// The rows, in parts of about equal size of at most so many logits, but of 128 rows at the least: what W is read
    /// for, and its gradient added to, must be worth it.
    fn parts(&self, logits: usize) -> impl Iterator<Item = Range<usize>> {
        const FEWEST: usize = 128;
        let rows = self.entropy.targets.classes.len();
        let most = (logits / self.entropy.classes.max(1)).max(FEWEST);
        let size = rows.div_ceil(rows.div_ceil(most).max(1)).max(1);
        (0..rows)
            .step_by(size)
            .map(move |start| start..rows.min(start + size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn parts_are_all_rows_and_about_equal() -> Result<()> {
        for (rows, classes, sizes) in [
            (1024, 10_000, vec![342, 342, 340]),
            (1024, 100, vec![1024]),
            (300, 1 << 20, vec![100, 100, 100]),
            (1, 1 << 30, vec![1]),
        ] {
            let targets = Tensor::zeros(rows, candle_core::DType::U32, &Device::Cpu)?;
            let op = LinearCrossEntropy {
                inputs: 1,
                entropy: CrossEntropy {
                    classes,
                    targets: read_targets(&[rows, classes], &targets, 0.0, None)?,
                },
                tracked: [true; 3],
            };
            let parts: Vec<Range<usize>> = op.parts(1 << 22).collect();
            let lengths: Vec<usize> = parts.iter().map(ExactSizeIterator::len).collect();
            assert_eq!(lengths, sizes);
            assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, rows));
        }
        Ok(())
    }
}
