//! Linear maps and layer norms over named variables.

use crate::error::Result;
use adahessian::NamedVars;
use adahessian::engine::Handle;
use adahessian::ops::{self, Activation, Dropout};
use candle_core::Tensor;

/// A linear map of the last dimension.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
}

impl Linear {
    pub fn new(vars: &NamedVars, name: &str, groups: usize) -> Result<Self> {
        Ok(Self {
            weight: tensor(vars, &format!("{name}.weight"))?,
            bias: tensor(vars, &format!("{name}.bias"))?,
            groups,
        })
    }

    pub fn forward(&self, x: &Handle, activation: Activation) -> Result<Handle> {
        let (weight, bias) = (&self.weight, Some(&self.bias));
        Ok(ops::linear(x, weight, bias, self.groups, activation)?)
    }
}

/// A layer norm.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub eps: f64,
}

impl Norm {
    pub fn new(vars: &NamedVars, name: &str, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: tensor(vars, &format!("{name}.weight"))?,
            bias: tensor(vars, &format!("{name}.bias"))?,
            eps,
        })
    }

    /// LayerNorm(dropout(x) + residual).
    pub fn forward(
        &self,
        x: &Handle,
        residual: Option<&Handle>,
        dropout: &Dropout,
    ) -> Result<Handle> {
        let (weight, bias) = (&self.weight, &self.bias);
        Ok(match residual {
            Some(residual) => {
                ops::residual_layer_norm(x, residual, dropout, weight, bias, self.eps)?
            }
            None => ops::layer_norm(&ops::dropout(x, dropout)?, weight, bias, self.eps)?,
        })
    }
}

pub(crate) fn tensor(vars: &NamedVars, name: &str) -> Result<Tensor> {
    Ok(vars.get(name)?.as_tensor().clone())
}
