//! Variables of transformers with their starts: weights normal, biases 0.

use crate::error::Result;
use adahessian::Kind;
use adahessian::nn::{self, Init, Linear, LinearConfig, VarBuilder, init};
use candle_core::Tensor;

/// Normal numbers of this standard deviation.
pub(crate) fn normal(deviation: f64) -> Init {
    Init::Randn {
        mean: 0.0,
        stdev: deviation,
    }
}

/// A linear map, [outputs, inputs].
pub(crate) fn dense(
    inputs: usize,
    outputs: usize,
    deviation: f64,
    vb: VarBuilder,
) -> Result<Linear> {
    let config = LinearConfig::new(normal(deviation), init::ZERO);
    Ok(nn::linear_with(inputs, outputs, config, vb)?)
}

/// The bias of a masked language model's words, [V].
pub(crate) fn word_bias(vocabulary: usize, vb: VarBuilder) -> Result<Tensor> {
    let bias = nn::variable(&vb, vocabulary, "bias", init::ZERO, Kind::Vector);
    Ok(bias?)
}
