//! An order of `0..n` that is computed place by place.
//!
//! A Feistel network over the `2b` bits that `n` needs is a bijection whatever its rounds compute
//! (Luby and Rackoff, 1988). Applied again while the result is not below `n`, it is one of `0..n`
//! ("cycle walking", Black and Rogaway, 2002); with `4^b < 4n` that takes 4 times at most on
//! average.

use super::mix;

/// Rounds of the network; four would do for a pseudorandom permutation.
const ROUNDS: usize = 6;

/// A bijection of `0..n`, a function of `(n, seed, epoch)`.
pub(super) struct Permutation {
    count: u64,
    half: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    pub(super) fn new(count: usize, seed: u64, epoch: u64) -> Self {
        let bits = u64::BITS - (count as u64).saturating_sub(1).leading_zeros();
        let mut keys = [0; ROUNDS];
        let mut key = mix(mix(seed) ^ epoch);
        for round in &mut keys {
            key = mix(key);
            *round = key;
        }
        Self {
            count: count as u64,
            half: bits.div_ceil(2).max(1),
            keys,
        }
    }

    /// Where place `position` below `n` goes.
    pub(super) fn at(&self, position: usize) -> usize {
        let mut value = position as u64;
        loop {
            value = self.network(value);
            // The way leads back to where it began, so that it ends.
            if value < self.count || value == position as u64 {
                return value as usize;
            }
        }
    }

    fn network(&self, value: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (value >> self.half, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half | right
    }
}
