//! The mean of operators: the curvature over several batches.

use crate::curvature::LinearOperator;
use crate::error::{Error, Result};
use crate::vars::{NamedVars, VarVec};

/// (1/n) Σᵢ Aᵢ, where the i-th operator is made when it is needed and dropped after its product,
/// so that one graph lives at a time.
///
/// ```
/// # use adahessian::{Hessian, LinearOperator, Mean};
/// # use adahessian::{NamedVars, VarVec};
/// # use candle_core::{Device, Var};
/// # let x = Var::new(&[1f64, 2.0], &Device::Cpu)?;
/// # let vars = NamedVars::from(vec![x.clone()]);
/// let scales = [1.0, 3.0]; // stands for two batches
/// let mean = Mean::new(&vars, scales.len(), |i| {
///     let loss = (x.sqr()?.sum_all()? * scales[i])?;
///     Hessian::of(&loss, &vars)
/// })?;
/// let ones = VarVec::from_fn(&vars, |_, shape, dtype, device| {
///     Ok(candle_core::Tensor::ones(shape, dtype, device)?)
/// })?;
/// assert_eq!(mean.apply(&ones)?.tensors()[0].to_vec1::<f64>()?, [4.0, 4.0]);
/// # Ok::<(), adahessian::Error>(())
/// ```
pub struct Mean<F> {
    vars: NamedVars,
    count: usize,
    part: F,
}

impl<O: LinearOperator, F: Fn(usize) -> Result<O>> Mean<F> {
    /// The mean of `part(0)` … `part(count - 1)`.
    ///
    /// # Errors
    /// [`Error::Setting`] if `count` is 0.
    pub fn new(vars: &NamedVars, count: usize, part: F) -> Result<Self> {
        if count == 0 {
            return Err(Error::Setting {
                what: "number of operators in a mean",
                expected: "at least 1".into(),
                got: "0".into(),
            });
        }
        Ok(Self {
            vars: vars.clone(),
            count,
            part,
        })
    }
}

impl<O: LinearOperator, F: Fn(usize) -> Result<O>> LinearOperator for Mean<F> {
    fn vars(&self) -> &NamedVars {
        &self.vars
    }

    fn apply(&self, vector: &VarVec) -> Result<VarVec> {
        let mut sum = (self.part)(0)?.apply(vector)?;
        for i in 1..self.count {
            sum = sum.add_scaled(&(self.part)(i)?.apply(vector)?, 1.0)?;
        }
        sum.scale(1.0 / self.count as f64)
    }
}
