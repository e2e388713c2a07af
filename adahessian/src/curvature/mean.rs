//! The mean of operators: the curvature over several batches.

use crate::curvature::LinearOperator;
use crate::error::{Error, Result};
use crate::numeric::widened;
use crate::vars::{NamedVars, VarVec};
use candle_core::Tensor;

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
        let mut sum = Sum::default();
        for i in 0..self.count {
            sum.add(&(self.part)(i)?.apply(vector)?)?;
        }
        sum.mean(&self.vars)
    }
}

/// The mean of vectors, summed in f32 where they are in half precision: 256 + 1 is 256 in bf16.
#[derive(Default)]
pub(super) struct Sum {
    tensors: Vec<Tensor>,
    count: usize,
}

impl Sum {
    pub fn add(&mut self, vector: &VarVec) -> Result<()> {
        let wide = vector.tensors().iter().map(widened);
        self.tensors = match self.count {
            0 => wide.collect::<Result<_>>()?,
            _ => {
                let both = self.tensors.iter().zip(wide);
                both.map(|(sum, new)| Ok((sum + new?)?))
                    .collect::<Result<_>>()?
            }
        };
        self.count += 1;
        Ok(())
    }

    /// In the variables' types; of nothing, zero.
    pub fn mean(self, vars: &NamedVars) -> Result<VarVec> {
        if self.count == 0 {
            return VarVec::zeros(vars);
        }
        let share = 1.0 / self.count as f64;
        let pairs = self.tensors.iter().zip(vars.iter());
        let means = pairs.map(|(sum, (_, var))| Ok((sum * share)?.to_dtype(var.dtype())?));
        VarVec::new(vars, means.collect::<Result<_>>()?)
    }
}
