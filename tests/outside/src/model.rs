//! A model of one's own, written as any candle model is: only the layers' imports are this library's.

use crate::glu::glu;
use adahessian::nn::{Linear, Module, VarBuilder, linear};
use candle_core::{Result, Tensor};

/// Two linear maps, one of which gates the other, and a third on top.
pub struct Gated {
    values: Linear,
    gates: Linear,
    last: Linear,
}

impl Gated {
    /// From `inputs` numbers to `outputs`, through `width`.
    pub fn new(inputs: usize, width: usize, outputs: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            values: linear(inputs, width, vb.pp("values"))?,
            gates: linear(inputs, width, vb.pp("gates"))?,
            last: linear(width, outputs, vb.pp("last"))?,
        })
    }
}

impl Module for Gated {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = glu(&self.values.forward(x)?, &self.gates.forward(x)?)?;
        self.last.forward(&hidden)
    }
}
