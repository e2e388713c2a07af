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

    /// Logits of some words, [N, words].
    fn words(
        hidden: &Tensor,
        table: &Tensor,
        bias: &Tensor,
        words: &Range<usize>,
    ) -> Result<Tensor> {
        let (start, count) = (words.start, words.len());
        let (table, bias) = (
            table.narrow(0, start, count)?,
            bias.narrow(0, start, count)?,
        );
        Ok(ops::linear(
            hidden,
            &table,
            Some(&bias),
            1,
            Activation::Identity,
        )?)
    }

    /// Logits of the frequent words and of the groups, [N, first cutoff + G].
    fn head(&self, hidden: &Tensor, table: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let frequent = Self::words(hidden, table, bias, &(0..self.ends[0]))?;
        let (weight, bias) = (&self.weight, Some(&self.bias));
        let groups = ops::linear(hidden, weight, bias, 1, Activation::Identity)?;
        Ok(ops::cat(&[&frequent, &groups], 1)?)
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
        let logits = self.head(&hidden, table, bias)?;
        let mut loss = ops::cross_entropy(&logits, &heads, 0.0, None)?;
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
            let logits = Self::words(&hidden.index_select(&rows, 0)?, table, bias, &words)?;
            let own = Tensor::new(own, &Device::Cpu)?;
            let part = ops::cross_entropy(&logits, &own, 0.0, None)?;
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
        let head = nn::ops::log_softmax(&self.head(&hidden, table, bias)?, D::Minus1)?;
        let mut parts = vec![head.narrow(1, 0, self.ends[0])?];
        for (number, words) in self.groups().enumerate() {
            let logits = Self::words(&hidden, table, bias, &words)?;
            let within = nn::ops::log_softmax(&logits, D::Minus1)?;
            let group = head.narrow(1, self.ends[0] + number, 1)?;
            parts.push(within.broadcast_add(&group)?);
        }
        let all = Tensor::cat(&parts, 1)?;
        Ok(all.reshape((batch, length, ()))?)
    }
}
