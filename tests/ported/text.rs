use nn::{Conv1d, Conv1dConfig, Embedding, Linear, Module, VarBuilder};

pub struct Model {
    words: Embedding,
    conv: Conv1d,
    head: Linear,
}

impl Model {
    pub fn new(vb: VarBuilder) -> Result<Self> {
        let padded = Conv1dConfig {
            padding: 1,
            ..Default::default()
        };
        Ok(Self {
            words: nn::embedding(12, 6, vb.pp("words"))?,
            conv: nn::conv1d(6, 8, 3, padded, vb.pp("conv"))?,
            head: nn::linear(8, 3, vb.pp("head"))?,
        })
    }

    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let words = self.words.forward(ids)?; // [N, T, 6]
        let features = self.conv.forward(&words.transpose(1, 2)?.contiguous()?)?; // [N, 8, T]
        self.head.forward(&nn::ops::silu(&features)?.mean(2)?)
    }
}

/// Word ids [N, T] of the classes [N].
pub fn loss(vb: VarBuilder, ids: &Tensor, classes: &Tensor, _train: bool) -> Result<Tensor> {
    nn::loss::cross_entropy(&Model::new(vb)?.forward(ids)?, classes)
}
