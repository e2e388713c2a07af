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
use adahessian::engine::Handle;
use adahessian::nn::{self, VarBuilder};
use adahessian::ops::{self, Activation};
use candle_core::{D, Device, Tensor};
use std::ops::Range;

/// The embeddings of words [N, D], and their biases `[N]`.
pub(super) struct Table {
    pub rows: Handle,
    pub biases: Handle,
}

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

    /// The rows of the table and the biases of some words. Parts of handles: each part of a tensor would have a gradient of
    /// the whole table's size in candle's graph, at both levels.
    fn rows(all: &Table, words: &Range<usize>) -> Result<Table> {
        let part = |x: &Handle| ops::narrow(x, 0, words.start, words.len());
        Ok(Table {
            rows: part(&all.rows)?,
            biases: part(&all.biases)?,
        })
    }

    /// The rows and biases of the frequent words and of the groups behind them, of first cutoff + G.
    fn head(&self, all: &Table) -> Result<Table> {
        let frequent = Self::rows(all, &(0..self.ends[0]))?;
        let own = [&self.weight, &self.bias].map(Handle::enter);
        let [weight, bias] = own;
        Ok(Table {
            rows: ops::cat(&[&frequent.rows, &weight?], 0)?,
            biases: ops::cat(&[&frequent.biases, &bias?], 0)?,
        })
    }

    /// The mean of -log p(target) for hidden states [B, T, D] and as many targets.
    pub fn loss(&self, hidden: &Handle, targets: &[u32], all: &Table) -> Result<Tensor> {
        let (count, d) = (targets.len(), hidden.dims().last().copied().unwrap_or(0));
        let hidden = ops::reshape(hidden, &[count, d])?;
        let first = self.ends[0];
        let group = |target: usize| self.ends.partition_point(|&end| end <= target);
        let heads = targets.iter().map(|&target| match group(target as usize) {
            0 => target,
            group => (first + group - 1) as u32,
        });
        let heads = Tensor::from_vec(heads.collect::<Vec<_>>(), count, &Device::Cpu)?;
        let mean = |hidden: &Handle, words: Table, targets: &Tensor| -> Result<Tensor> {
            let (weight, bias) = (words.rows.exit()?, words.biases.exit()?);
            let mean = ops::linear_cross_entropy(hidden, &weight, Some(&bias), targets, 0.0, None)?;
            Ok(mean.exit()?)
        };
        let mut loss = mean(&hidden, self.head(all)?, &heads)?;
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
            let rows = Tensor::new(rows, &Device::Cpu)?;
            let own = Tensor::new(own, &Device::Cpu)?;
            let hidden = ops::embedding(&rows, &hidden)?;
            let part = mean(&hidden, Self::rows(all, &words)?, &own)?;
            loss = (loss + (part * share)?)?;
        }
        Ok(loss)
    }

    /// log p of all words, [B, T, V].
    pub fn log_probabilities(&self, hidden: &Tensor, all: &Table) -> Result<Tensor> {
        let (batch, length, d) = hidden.dims3()?;
        let hidden = hidden.reshape((batch * length, d))?;
        let logits = |words: Table| -> Result<Tensor> {
            let (weight, bias) = (words.rows.exit()?, words.biases.exit()?);
            Ok(ops::linear(
                &hidden,
                &weight,
                Some(&bias),
                1,
                Activation::Identity,
            )?)
        };
        let head = nn::ops::log_softmax(&logits(self.head(all)?)?, D::Minus1)?;
        let mut parts = vec![head.narrow(1, 0, self.ends[0])?];
        for (number, words) in self.groups().enumerate() {
            let within = logits(Self::rows(all, &words)?)?;
            let within = nn::ops::log_softmax(&within, D::Minus1)?;
            let group = head.narrow(1, self.ends[0] + number, 1)?;
            parts.push(within.broadcast_add(&group)?);
        }
        let all = Tensor::cat(&parts, 1)?;
        Ok(all.reshape((batch, length, ()))?)
    }
}
