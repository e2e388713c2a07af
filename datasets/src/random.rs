//! Random choices that are the same on every machine and with every version of `rand`.
//!
//! Only the ChaCha8 key stream is taken from a library; the bounded integer and the shuffle are
//! written out here, because libraries change those algorithms between versions.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A generator whose stream is a function of `(seed, stream)` alone.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// The generator number `stream` of `seed`; different streams never overlap.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(stream);
        Self(rng)
    }

    /// A uniform integer in `0..n`; 0 for `n = 0`.
    ///
    /// The high word of `x * n` is uniform up to the few values of `x` whose low word falls below
    /// `2^64 mod n`; those are drawn again.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        if n == 0 {
            return 0;
        }
        let refused_below = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(n);
            if product as u64 >= refused_below {
                return (product >> 64) as usize;
            }
        }
    }

    /// True with probability `percent / 100`.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Fisher-Yates: every permutation is equally likely.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
