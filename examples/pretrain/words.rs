//! How well hidden tokens are said.

use candle_core::{D, DType, Tensor};
use common::text::perplexity;
use trainers::metrics::{Metric, Scores};
use trainers::{Error, Loss, Result};

/// `loss`, the mean of -log p(token) in nats, which should be low; `perplexity`, exp of it; `accuracy`.
#[derive(Default)]
pub struct Words {
    loss: f64,
    right: f64,
    count: f64,
}

impl Metric for Words {
    fn fresh(&self) -> Box<dyn Metric> {
        Box::new(Self::default())
    }

    fn add(&mut self, outputs: &Tensor, labels: &Tensor) -> Result<()> {
        let mean = Loss::CROSS_ENTROPY.of(outputs, labels)?;
        let count = labels.elem_count() as f64;
        self.loss += count * mean.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let said = outputs.argmax(D::Minus1)?.to_vec1::<u32>()?;
        let stood = labels.to_vec1::<u32>()?;
        self.right += said
            .iter()
            .zip(&stood)
            .filter(|(said, stood)| said == stood)
            .count() as f64;
        self.count += count;
        Ok(())
    }

    fn scores(&self) -> Result<Scores> {
        if self.count == 0.0 {
            return Err(Error::Batch {
                expected: "hidden tokens to say".into(),
                got: "none".into(),
            });
        }
        let loss = self.loss / self.count;
        Ok(Scores::lower_is_better("loss", loss)
            .with("perplexity", perplexity(loss))
            .with("accuracy", self.right / self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn words_are_scored_over_all_batches() -> Result<()> {
        let even = Tensor::zeros((1, 4), DType::F32, &Device::Cpu)?;
        let sure = Tensor::new(&[[0f32, 80., 0., 0.], [0., 80., 0., 0.]], &Device::Cpu)?;
        let mut words = Words::default();
        words.add(&even, &Tensor::new(&[2u32], &Device::Cpu)?)?;
        words.add(&sure, &Tensor::new(&[1u32, 1], &Device::Cpu)?)?;
        let scores = words.scores()?;
        assert_eq!(scores.main_name(), "loss");
        assert!(
            (scores.main() - 4f64.ln() / 3.0).abs() < 1e-6,
            "{}",
            scores.main()
        );
        assert_eq!(scores.get("accuracy"), Some(2.0 / 3.0));
        assert!(Words::default().scores().is_err());
        Ok(())
    }
}
