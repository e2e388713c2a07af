//! An adaptive softmax (Grave et al. 2017) whose words are rows of the table of embeddings: frequent words are foretold at
//! once, of the others first their group.
//!
//! ```text
//! p(w) = softmax(h E₀ᵀ, h Cᵀ)_w                                 for words before the first cutoff
//! p(w) = softmax(h E₀ᵀ, h Cᵀ)_group · softmax(h E_groupᵀ)_w     for the others
//! ```
//! The loss needs a group's words for those positions alone whose target is among them.

use super::Config;
use crate::error::Result;
use crate::parts::{normal, word_bias};
use adahessian::Kind;
use adahessian::nn::{self, VarBuilder};
use adahessian::ops::{self, Activation};
use candle_core::{D, Device, Tensor};
use std::ops::Range;

#[derive(Clone)]
pub(super) struct Groups {
    weight: Tensor, // [G, D]
    bias: Tensor,   // [G]
    /// Where the groups begin, and where the last one ends.
    ends: Vec<usize>,
}

impl Groups {
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let count = config.cutoffs.len();
        let shape = (count, config.d_model);
        let start = normal(super::layer::DEVIATION);
        Ok(Self {
            weight: nn::variable(&vb, shape, "weight", start, Kind::Matrix)?,
            bias: word_bias(count, vb)?,
            ends: config
                .cutoffs
                .iter()
                .copied()
                .chain([config.vocab_size])
                .collect(),
        })
    }

    fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        self.ends.windows(2).map(|ends| ends[0]..ends[1])
    }

    /// The rows of the table and the biases of some words.
    fn rows(table: &Tensor, bias: &Tensor, words: &Range<usize>) -> Result<(Tensor, Tensor)> {
        let (start, count) = (words.start, words.len());
        Ok((
            table.narrow(0, start, count)?,
            bias.narrow(0, start, count)?,
        ))
    }

    /// The rows and biases of the frequent words and of the groups behind them, of first cutoff + G.
    fn head(&self, table: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
        let (table, bias) = Self::rows(table, bias, &(0..self.ends[0]))?;
        Ok((
            Tensor::cat(&[&table, &self.weight], 0)?,
            Tensor::cat(&[&bias, &self.bias], 0)?,
        ))
    }

    /// The mean of -log p(target) for hidden states [B, T, D] and as many targets.
    pub fn loss(
        &self,
        hidden: &Tensor,
        targets: &[u32],
        table: &Tensor,
        bias: &Tensor,
    ) -> Result<Tensor> {
        let (count, d) = (targets.len(), hidden.dim(D::Minus1)?);
        let hidden = hidden.reshape((count, d))?;
        let first = self.ends[0];
        let group = |target: usize| self.ends.partition_point(|&end| end <= target);
        let heads = targets.iter().map(|&target| match group(target as usize) {
            0 => target,
            group => (first + group - 1) as u32,
        });
        let heads = Tensor::from_vec(heads.collect::<Vec<_>>(), count, &Device::Cpu)?;
        let (weight, head_bias) = self.head(table, bias)?;
        let mean = |hidden: &Tensor, weight: &Tensor, bias: &Tensor, targets: &Tensor| {
            ops::linear_cross_entropy(hidden, weight, Some(bias), targets, 0.0, None)
        };
        let mut loss = mean(&hidden, &weight, &head_bias, &heads)?;
        for (number, words) in self.groups().enumerate() {
            let own = |&(_, &target): &(usize, &u32)| group(target as usize) == number + 1;
            let (rows, own): (Vec<u32>, Vec<u32>) = targets
                .iter()
                .enumerate()
                .filter(own)
                .map(|(row, target)| (row as u32, target - words.start as u32))
                .unzip();
            if rows.is_empty() {
                continue;
            }
            let share = rows.len() as f64 / count as f64;
            let rows = Tensor::new(rows, &Device::Cpu)?.to_device(hidden.device())?;
            let own = Tensor::new(own, &Device::Cpu)?;
            let (weight, bias) = Self::rows(table, bias, &words)?;
            let part = mean(&hidden.index_select(&rows, 0)?, &weight, &bias, &own)?;
            loss = (loss + (part * share)?)?;
        }
        Ok(loss)
    }

    /// log p of all words, [B, T, V].
    pub fn log_probabilities(
        &self,
        hidden: &Tensor,
        table: &Tensor,
        bias: &Tensor,
    ) -> Result<Tensor> {
        let (batch, length, d) = hidden.dims3()?;
        let hidden = hidden.reshape((batch * length, d))?;
        let logits = |(weight, bias): (Tensor, Tensor)| {
            ops::linear(&hidden, &weight, Some(&bias), 1, Activation::Identity)
        };
        let head = nn::ops::log_softmax(&logits(self.head(table, bias)?)?, D::Minus1)?;
        let mut parts = vec![head.narrow(1, 0, self.ends[0])?];
        for (number, words) in self.groups().enumerate() {
            let within = logits(Self::rows(table, bias, &words)?)?;
            let within = nn::ops::log_softmax(&within, D::Minus1)?;
            let group = head.narrow(1, self.ends[0] + number, 1)?;
            parts.push(within.broadcast_add(&group)?);
        }
        let all = Tensor::cat(&parts, 1)?;
        Ok(all.reshape((batch, length, ()))?)
    }
}
