//! The convolutions of a residual network: their names, sizes and starts.

use crate::weights::{Fill, Parameter};
use adahessian::ops::Convolution;

/// The places of one unit's convolutions.
pub(crate) struct UnitPlaces {
    pub main: Vec<Place>,
    /// The shortcut's convolution, if it has one.
    pub projection: Option<Place>,
    /// The stride of a parameter-free shortcut, if that is what it has.
    pub subsample: Option<usize>,
    pub outputs: usize,
}

/// One convolution with its batch normalisation: names, channels and how it moves.
pub(crate) struct Place {
    pub conv: String,
    pub norm: String,
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub convolution: Convolution,
}

impl Place {
    pub fn new(
        prefix: String,
        conv: &str,
        norm: &str,
        (inputs, outputs): (usize, usize),
        kernel: usize,
        stride: usize,
    ) -> Self {
        Self {
            conv: format!("{prefix}{conv}"),
            norm: format!("{prefix}{norm}"),
            inputs,
            outputs,
            kernel,
            convolution: Convolution::new(stride, kernel / 2),
        }
    }

    /// Kernels are normal with variance 2/(k²·outputs), the norm starts as the identity.
    pub fn parameters(&self) -> Vec<Parameter> {
        let (kernel, outputs) = (self.kernel, self.outputs);
        let deviation = (2.0 / (kernel * kernel * outputs) as f64).sqrt();
        let shape = [outputs, self.inputs, kernel, kernel];
        let conv = format!("{}.weight", self.conv);
        let norm =
            |part: &str, fill| Parameter::new(format!("{}.{part}", self.norm), &[outputs], fill);
        vec![
            Parameter::new(conv, &shape, Fill::Deviation(deviation)),
            norm("weight", Fill::Ones),
            norm("bias", Fill::Zeros),
            norm(RUNNING_MEAN, Fill::Zeros),
            norm(RUNNING_VARIANCE, Fill::Ones),
        ]
    }
}

/// The last part of the running mean's name.
pub(crate) const RUNNING_MEAN: &str = "running_mean";
/// The last part of the running variance's name.
pub(crate) const RUNNING_VARIANCE: &str = "running_var";
