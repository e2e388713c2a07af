use nn::{Linear, Module, VarBuilder};

pub struct Model {
    first: Linear,
    norm: nn::LayerNorm,
    second: Linear,
    activation: nn::Activation,
}

impl Model {
    pub fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            first: nn::linear(6, 16, vb.pp("first"))?,
            norm: nn::layer_norm_no_bias(16, 1e-5, vb.pp("norm"))?,
            second: nn::linear(16, 3, vb.pp("second"))?,
            activation: nn::Activation::Silu,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.norm.forward(&self.first.forward(x)?)?;
        self.second.forward(&self.activation.forward(&hidden)?)
    }
}

/// x [N, 6] of the classes [N].
pub fn loss(vb: VarBuilder, x: &Tensor, classes: &Tensor, _train: bool) -> Result<Tensor> {
    nn::loss::cross_entropy(&Model::new(vb)?.forward(x)?, classes)
}
