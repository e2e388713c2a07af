//! The Hessian by central differences of the gradient: slow, approximate, and independent of the
//! second backward pass, therefore the oracle that it is tested against.

use crate::curvature::LinearOperator;
use crate::error::Result;
use crate::ops::statistics_at_rest;
use crate::second_order;
use crate::vars::{NamedVars, VarVec};
use candle_core::Tensor;

/// H v ≈ (∇L(θ + εv) - ∇L(θ - εv)) / 2ε with an error of order ε² from the third derivative and
/// of order 1/ε from rounding. Use it in f64. Running statistics of batch normalisations stay as they are.
pub struct FiniteDifference<F> {
    loss: F,
    vars: NamedVars,
    epsilon: f64,
}

impl<F: Fn() -> Result<Tensor>> FiniteDifference<F> {
    /// The operator of a function that computes the loss at the variables' present values. ε is
    /// 10⁻⁵.
    pub fn new(vars: &NamedVars, loss: F) -> Self {
        Self {
            loss,
            vars: vars.clone(),
            epsilon: 1e-5,
        }
    }

    /// The length of the step, relative to the vector.
    pub fn epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// The gradient with the variables moved by `shift · vector`; they are moved back, whatever
    /// happens.
    fn gradient_at(&self, origin: &VarVec, vector: &VarVec, shift: f64) -> Result<VarVec> {
        let there = origin.add_scaled(vector, shift)?.in_own_types()?;
        self.vars.elsewhere(
            origin,
            || self.vars.assign(&there),
            || gradient(&statistics_at_rest(&self.loss)?, &self.vars),
        )
    }
}

/// The gradient of a loss as a vector, by candle's ordinary backward pass.
pub(crate) fn gradient(loss: &Tensor, vars: &NamedVars) -> Result<VarVec> {
    let grads = second_order::backward_detached(loss)?;
    let tensors = vars.iter().map(|(_, v)| match grads.get(v) {
        Some(g) => Ok(g.detach()),
        None => Ok(v.zeros_like()?.detach()),
    });
    VarVec::new(vars, tensors.collect::<Result<_>>()?)
}

impl<F: Fn() -> Result<Tensor>> LinearOperator for FiniteDifference<F> {
    fn vars(&self) -> &NamedVars {
        &self.vars
    }

    fn apply(&self, vector: &VarVec) -> Result<VarVec> {
        let origin = self.vars.snapshot()?;
        let above = self.gradient_at(&origin, vector, self.epsilon)?;
        let below = self.gradient_at(&origin, vector, -self.epsilon)?;
        above.add_scaled(&below, -1.0)?.scale(0.5 / self.epsilon)
    }
}
