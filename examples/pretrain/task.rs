//! Learning to say hidden tokens and, where sequences have two parts, what these are to each other.

use super::words::Words;
use adahessian::ops::Mode;
use adahessian::without_graph;
use candle_core::{DType, Tensor};
use datasets::{Batches, LabelledBatch, MaskedBatch, MaskedBatches};
use models::MaskedLanguageModel;
use std::sync::Arc;
use trainers::metrics::{Metric, metric_by_name};
use trainers::{Error, Loss, Result, Scores, Task};

/// A masked language model, and what it is evaluated on.
///
/// The loss is the mean over the hidden tokens and, with pairs, to that the mean over the sequences, as BERT's. Parts of a
/// batch weigh as much as they have hidden tokens: there the second mean is scaled so that all parts together make the
/// batch's.
pub struct Hidden {
    pub model: Arc<MaskedLanguageModel>,
    pub validation: MaskedBatches,
}

/// The logits of a batch: of its hidden tokens, [N, V], and of its pairs, [B, 2].
struct Said {
    words: Tensor,
    pairs: Option<Tensor>,
}

impl Hidden {
    fn logits(&self, batch: &MaskedBatch, mode: &Mode) -> Result<Said> {
        let (ids, places, model) = (&batch.input_ids, &batch.positions, &self.model);
        let said = match &batch.pairs {
            None => model
                .forward_at(ids, None, None, places, mode)
                .map(|words| Said { words, pairs: None }),
            Some(pairs) => model
                .forward_pairs(ids, &pairs.token_type_ids, None, places, mode)
                .map(|said| Said {
                    words: said.words,
                    pairs: Some(said.pairs),
                }),
        };
        said.map_err(Error::user)
    }

    /// What the pairs' head says of a batch, beside what is so.
    fn related<'a>(said: &'a Said, batch: &'a MaskedBatch) -> Option<(&'a Tensor, &'a Tensor)> {
        let labels = batch.pairs.as_ref().map(|pairs| &pairs.labels);
        said.pairs.as_ref().zip(labels)
    }
}

impl Task for Hidden {
    type Batch = MaskedBatch;

    fn size(&self, batch: &MaskedBatch) -> usize {
        batch.size()
    }

    fn weight(&self, batch: &MaskedBatch) -> Result<f64> {
        Ok(batch.weight()?)
    }

    fn narrow(&self, batch: &MaskedBatch, start: usize, len: usize) -> Result<MaskedBatch> {
        Ok(batch.narrow(start, len)?)
    }

    fn loss(&self, batch: &MaskedBatch, mode: &Mode) -> Result<Tensor> {
        let (ids, model) = (&batch.input_ids, &self.model);
        let hidden = (&batch.positions, &batch.labels);
        let Some(pairs) = &batch.pairs else {
            let words = model.loss_at(ids, None, None, hidden, mode);
            return words.map_err(Error::user);
        };
        let losses = model.loss_and_pairs(ids, &pairs.token_type_ids, None, hidden, mode);
        let (words, logits) = losses.map_err(Error::user)?;
        let pairs = Loss::CROSS_ENTROPY.of(&logits, &pairs.labels)?;
        Ok((words + (pairs * part_of(batch)?)?)?)
    }

    fn evaluate(&self) -> Result<Scores> {
        let mut words = Words::default();
        let mut pairs = Pairs::new()?;
        for index in 0..self.validation.len(0) {
            let batch = self.validation.get(0, index)?;
            let said = without_graph(|| self.logits(&batch, &Mode::Eval))?;
            words.add(&said.words.detach(), &batch.labels)?;
            if let Some((logits, labels)) = Self::related(&said, &batch) {
                pairs.add(&logits.detach(), labels)?;
            }
        }
        pairs.and(words.scores()?)
    }
}

/// How many times as many sequences for a hidden token this part of a batch has as the whole; 1 for the whole.
fn part_of(batch: &MaskedBatch) -> Result<f64> {
    let whole = batch.pairs.as_ref().map_or(1.0, |pairs| pairs.share);
    Ok(batch.size() as f64 / batch.weight()? / whole)
}

/// How well pairs are told apart.
struct Pairs {
    accuracy: Box<dyn Metric>,
    loss: f64,
    count: f64,
}

impl Pairs {
    fn new() -> Result<Self> {
        Ok(Self {
            accuracy: metric_by_name("accuracy")?,
            loss: 0.0,
            count: 0.0,
        })
    }

    fn add(&mut self, logits: &Tensor, labels: &Tensor) -> Result<()> {
        let mean = Loss::CROSS_ENTROPY.of(logits, labels)?;
        let count = labels.elem_count() as f64;
        self.loss += count * mean.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        self.count += count;
        self.accuracy.add(logits, labels)
    }

    /// `words`, and with them `pair_accuracy` and `pair_loss` if there were pairs.
    fn and(&self, words: Scores) -> Result<Scores> {
        match self.count > 0.0 {
            true => Ok(words
                .with("pair_accuracy", self.accuracy.scores()?.main())
                .with("pair_loss", self.loss / self.count)),
            false => Ok(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datasets::wordpiece::learn_wordpiece;
    use datasets::{Batcher, Masking, Packed, Pairing, TextEncoder};
    use models::{Start, squeezebert};

    /// Whole words make parts of a batch with other numbers of hidden tokens for a sequence.
    #[test]
    fn parts_of_a_batch_make_its_loss() -> anyhow::Result<()> {
        let line = |i: usize| format!("unbelievable {} harbourmaster .", "ab".repeat(i % 7 + 1));
        let lines: Vec<String> = (0..60).map(line).collect();
        let tokenizer = learn_wordpiece(lines.iter().map(String::as_str), 40)?;
        let encoder = TextEncoder::new(tokenizer, 16)?;
        let masking = Masking::new(0.3, true, 1)?;
        let batcher = Batcher {
            batch_size: 6,
            ..Batcher::default()
        };
        let text = Packed::encode(&encoder, &lines)?;
        let batches = MaskedBatches::new(text, masking, batcher).paired(Pairing::NextSentence)?;
        let architecture = squeezebert::Config::tiny().architecture()?;
        let start = Start {
            dtype: DType::F64,
            ..Start::default()
        };
        let batch = batches.get(0, 0)?;
        let task = Hidden {
            model: Arc::new(MaskedLanguageModel::with_pairs(&architecture, &start)?),
            validation: batches,
        };
        let loss = |batch: &MaskedBatch| -> anyhow::Result<f64> {
            Ok(task.loss(batch, &Mode::Eval)?.to_scalar::<f64>()?)
        };
        let parts = [task.narrow(&batch, 0, 2)?, task.narrow(&batch, 2, 4)?];
        let weights = [task.weight(&parts[0])?, task.weight(&parts[1])?];
        assert!(weights[0] * 2.0 != weights[1], "{weights:?}");
        let whole = task.weight(&batch)?;
        let sum = weights[0] / whole * loss(&parts[0])? + weights[1] / whole * loss(&parts[1])?;
        assert!((sum - loss(&batch)?).abs() < 1e-12, "{sum}");
        Ok(())
    }
}
