//! Losses of outputs against labels.

use crate::error::{Error, Result};
use adahessian::ops;
use candle_core::Tensor;
use datasets::UNLABELLED;
use std::str::FromStr;

/// What is made small: the mean of a loss over the labels of a batch, by one fused operation on the CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// -log softmax(logits) at the label, of logits `[.., classes]` and classes `[..]`. Where there is a label a
    /// position, `[size, ..]`, those that are [`UNLABELLED`] are not counted.
    CrossEntropy {
        /// The probability mass that is spread evenly over all classes while training, in 0..1.
        label_smoothing: f64,
    },
    /// (output - label)², of as many outputs as labels.
    SquaredError,
    /// -log p(label) with p = σ(logit), of as many logits as labels, which are 0 and 1.
    BinaryCrossEntropy,
}

impl Loss {
    /// Cross entropy without smoothing.
    pub const CROSS_ENTROPY: Self = Self::CrossEntropy {
        label_smoothing: 0.0,
    };

    /// The mean over the labels, a scalar.
    ///
    /// # Errors
    /// If outputs and labels do not fit each other, or a label is no class.
    pub fn of(self, outputs: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let values = || -> Result<_> {
            let outputs = outputs.flatten_all()?;
            let labels = labels.to_dtype(outputs.dtype())?.flatten_all()?;
            Ok((outputs, labels))
        };
        Ok(match self {
            Self::SquaredError => {
                let (outputs, labels) = values()?;
                ops::mse(&outputs, &labels)?
            }
            Self::BinaryCrossEntropy => {
                let (logits, labels) = values()?;
                ops::binary_cross_entropy(&logits, &labels)?
            }
            Self::CrossEntropy { label_smoothing } if labels.rank() == 1 => {
                ops::cross_entropy(outputs, labels, label_smoothing, None)?
            }
            Self::CrossEntropy { label_smoothing } => {
                let unlabelled = Some(i64::from(UNLABELLED));
                ops::cross_entropy(outputs, labels, label_smoothing, unlabelled)?
            }
        })
    }

    /// As it is evaluated: without what only training has.
    pub(super) fn evaluated(self) -> Self {
        match self {
            Self::CrossEntropy { .. } => Self::CROSS_ENTROPY,
            other => other,
        }
    }
}

/// `cross_entropy`, `squared_error` or `binary_cross_entropy`.
impl FromStr for Loss {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "cross_entropy" => Ok(Self::CROSS_ENTROPY),
            "squared_error" => Ok(Self::SquaredError),
            "binary_cross_entropy" => Ok(Self::BinaryCrossEntropy),
            _ => Err(Error::Setting {
                what: "loss",
                expected: "cross_entropy, squared_error or binary_cross_entropy".into(),
                got: format!("`{name}`"),
            }),
        }
    }
}
