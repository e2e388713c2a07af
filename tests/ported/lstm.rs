use nn::{Embedding, LSTM, Linear, Module, RNN, VarBuilder};

pub struct Model {
    words: Embedding,
    lstm: LSTM,
    head: Linear,
}

impl Model {
    pub fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            words: nn::embedding(12, 6, vb.pp("words"))?,
            lstm: nn::lstm(6, 8, Default::default(), vb.pp("lstm"))?,
            head: nn::linear(8, 3, vb.pp("head"))?,
        })
    }

    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let states = self.lstm.seq(&self.words.forward(ids)?)?;
        let all = self.lstm.states_to_tensor(&states)?; // [N, T, 8]
        self.head.forward(&all.mean(1)?)
    }
}

/// Word ids [N, T] of the classes [N].
pub fn loss(vb: VarBuilder, ids: &Tensor, classes: &Tensor, _train: bool) -> Result<Tensor> {
    nn::loss::cross_entropy(&Model::new(vb)?.forward(ids)?, classes)
}
