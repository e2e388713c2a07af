//! Which pairs make up which batch, at most so many tokens in each: a pure function of the seed, the epoch and the
//! lengths.

use crate::error::{Error, Result};
use crate::random::Random;

/// Cuts pairs into batches of about as many tokens, not of as many pairs.
///
/// [`TokenBatcher::order`] depends on the fields, the lengths and the epoch, and on nothing else: a run that is
/// resumed at batch `k` of epoch `e` computes the same order again and skips `k` batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBatcher {
    /// The most tokens of either side of a batch, padding included: its number of pairs times the longest of them.
    pub max_tokens: usize,
    /// The most pairs of a batch; `None`: as many as fit.
    pub max_sentences: Option<usize>,
    /// Chooses the permutations.
    pub seed: u64,
    /// Whether each epoch has an order of its own; `false` keeps the order of the pairs, or that of their lengths.
    pub shuffle: bool,
    /// Length bucketing: pairs are sorted by length within windows of this many pairs, so that a batch holds pairs of
    /// similar length and little padding; the batches of the epoch are shuffled afterwards (if `shuffle`). `None`, or
    /// `Some(0)`: no bucketing.
    pub bucket: Option<usize>,
}

impl Default for TokenBatcher {
    /// Batches of 4096 tokens, shuffled with seed 0, all pairs sorted by length.
    fn default() -> Self {
        Self {
            max_tokens: 4096,
            max_sentences: None,
            seed: 0,
            shuffle: true,
            bucket: Some(usize::MAX),
        }
    }
}

impl TokenBatcher {
    /// The batches of one epoch as lists of indices into `lengths`, in which every index occurs exactly once.
    ///
    /// `lengths[i]` are the tokens of source and target of pair `i`, `</s>` included. Pairs of equal lengths come in
    /// a random order (if `shuffle`), so that batches differ from epoch to epoch.
    ///
    /// # Errors
    /// If `max_sentences` is 0, or a pair is longer than `max_tokens`; the error names the pair.
    pub fn order(&self, lengths: &[(usize, usize)], epoch: usize) -> Result<Vec<Vec<usize>>> {
        self.check(lengths)?;
        let mut random = Random::new(self.seed, epoch as u64);
        let mut indices: Vec<usize> = (0..lengths.len()).collect();
        if self.shuffle {
            random.shuffle(&mut indices);
        }
        let bucket = self.bucket.filter(|&pairs| pairs > 0);
        if let Some(pairs) = bucket {
            for window in indices.chunks_mut(pairs) {
                // Stable: equal lengths stay shuffled.
                window.sort_by_key(|&index| {
                    let (source, target) = lengths[index];
                    (source.max(target), source, target)
                });
            }
        }
        let mut order = self.cut(&indices, lengths);
        if self.shuffle && bucket.is_some() {
            random.shuffle(&mut order);
        }
        Ok(order)
    }

    /// Whether so many pairs have as many batches in every epoch: lengths come in one order, whichever pairs they are of.
    pub(super) fn counts_alike(&self, pairs: usize) -> bool {
        let sorted = self
            .bucket
            .is_some_and(|bucket| bucket > 0 && bucket >= pairs);
        sorted || !self.shuffle
    }

    /// Whether these pairs can be cut into batches.
    pub(super) fn check(&self, lengths: &[(usize, usize)]) -> Result<()> {
        if self.max_sentences == Some(0) {
            return Err(Error::Setting {
                name: "max_sentences",
                got: "0".to_string(),
                expected: "one pair a batch or more, or none for as many as fit".to_string(),
            });
        }
        let longest = |pair: &(usize, usize)| pair.0.max(pair.1);
        let too_long = lengths
            .iter()
            .position(|pair| longest(pair) > self.max_tokens);
        too_long.map_or(Ok(()), |pair| {
            let (source, target) = lengths[pair];
            Err(Error::Setting {
                name: "max_tokens",
                got: self.max_tokens.to_string(),
                expected: format!(
                    "{} or more, as pair {pair} (counted from 0) has a source of {source} and a target of {target} \
                     tokens; raise it, or leave such pairs out with Filter::max_length",
                    source.max(target)
                ),
            })
        })
    }

    /// Puts pairs into batches, in their order, as long as they fit.
    fn cut(&self, indices: &[usize], lengths: &[(usize, usize)]) -> Vec<Vec<usize>> {
        let most = self.max_sentences.unwrap_or(usize::MAX);
        let mut order = Vec::new();
        let (mut batch, mut longest) = (Vec::new(), 0);
        for &index in indices {
            let (source, target) = lengths[index];
            let width = source.max(target).max(longest);
            let tokens = width.saturating_mul(batch.len() + 1);
            if !batch.is_empty() && (tokens > self.max_tokens || batch.len() == most) {
                order.push(std::mem::take(&mut batch));
                longest = 0;
            }
            longest = source.max(target).max(longest);
            batch.push(index);
        }
        if !batch.is_empty() {
            order.push(batch);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(count: usize, most: usize, seed: u64) -> Vec<(usize, usize)> {
        let mut random = Random::new(seed, 77);
        let mut length = || 1 + random.below(most);
        (0..count).map(|_| (length(), length())).collect()
    }

    /// Every order is a permutation, and no batch is larger than asked for.
    #[test]
    fn orders_are_permutations_within_the_limits() {
        for case in 0..60u64 {
            let count = [0, 1, 2, 57, 300][case as usize % 5];
            let lengths = lengths(count, 40, case);
            let batcher = TokenBatcher {
                max_tokens: 40 + case as usize * 7,
                max_sentences: [None, Some(1), Some(9)][case as usize % 3],
                seed: case,
                shuffle: case % 4 != 0,
                bucket: [None, Some(0), Some(13), Some(usize::MAX)][case as usize % 4],
            };
            for epoch in 0..3 {
                let order = batcher.order(&lengths, epoch).unwrap();
                assert_eq!(order, batcher.order(&lengths, epoch).unwrap());
                for batch in &order {
                    let longest = |side: fn(&(usize, usize)) -> usize| {
                        batch.iter().map(|&i| side(&lengths[i])).max()
                    };
                    let widest = longest(|pair| pair.0).max(longest(|pair| pair.1)).unwrap();
                    assert!(widest * batch.len() <= batcher.max_tokens);
                    assert!(batch.len() <= batcher.max_sentences.unwrap_or(usize::MAX));
                }
                let mut all = order.concat();
                all.sort_unstable();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_buckets_save_padding() {
        let lengths = lengths(500, 60, 3);
        let batcher = TokenBatcher {
            max_tokens: 400,
            ..TokenBatcher::default()
        };
        let order = |batcher: TokenBatcher, epoch| batcher.order(&lengths, epoch).unwrap();
        assert_ne!(order(batcher, 0), order(batcher, 1));
        assert_ne!(
            order(batcher, 0),
            order(TokenBatcher { seed: 1, ..batcher }, 0)
        );
        let plain = TokenBatcher {
            bucket: None,
            ..batcher
        };
        assert!(order(batcher, 0).len() < order(plain, 0).len());
        let fixed = TokenBatcher {
            shuffle: false,
            ..plain
        };
        assert_eq!(order(fixed, 0), order(fixed, 5));
        assert_eq!(order(fixed, 0).concat(), (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn a_pair_that_is_too_long_is_named() {
        let batcher = TokenBatcher {
            max_tokens: 10,
            ..TokenBatcher::default()
        };
        let error = batcher
            .order(&[(10, 10), (3, 11)], 0)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("max_tokens = 10") && error.contains("pair 1 "),
            "{error}"
        );
        let none = TokenBatcher {
            max_sentences: Some(0),
            ..batcher
        };
        assert!(none.order(&[(1, 1)], 0).is_err());
    }
}
