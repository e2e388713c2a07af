use nn::{BatchNorm, Conv2d, Conv2dConfig, Dropout, Linear, Module, ModuleT, VarBuilder};

pub struct Model {
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
    fc1: Linear,
    dropout: Dropout,
    fc2: Linear,
}

impl Model {
    pub fn new(vb: VarBuilder) -> Result<Self> {
        let padded = Conv2dConfig {
            padding: 1,
            ..Default::default()
        };
        Ok(Self {
            conv1: nn::conv2d(1, 4, 3, padded, vb.pp("conv1"))?,
            norm1: nn::batch_norm(4, 1e-5, vb.pp("norm1"))?,
            conv2: nn::conv2d_no_bias(4, 6, 3, padded, vb.pp("conv2"))?,
            norm2: nn::batch_norm(6, 1e-5, vb.pp("norm2"))?,
            fc1: nn::linear(24, 12, vb.pp("fc1"))?,
            dropout: Dropout::new(0.2),
            fc2: nn::linear(12, 3, vb.pp("fc2"))?,
        })
    }

    pub fn forward(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.conv1.forward(images)?;
        let x = self.norm1.forward_t(&x, train)?.tanh()?;
        let x = max_pool2d(&x, 2)?;
        let x = self.conv2.forward(&x)?;
        let x = self.norm2.forward_t(&x, train)?.tanh()?;
        let x = max_pool2d(&x, 2)?.flatten_from(1)?;
        let x = self.fc1.forward(&x)?.tanh()?;
        self.fc2.forward(&self.dropout.forward(&x, train)?)
    }
}

/// Images [N, 1, 8, 8] of the classes [N].
pub fn loss(vb: VarBuilder, images: &Tensor, classes: &Tensor, train: bool) -> Result<Tensor> {
    nn::loss::cross_entropy(&Model::new(vb)?.forward(images, train)?, classes)
}
