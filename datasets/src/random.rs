//! Random choices that are the same on every machine and with every version of `rand`.
//!
//! Only the ChaCha8 key stream is taken from a library; the bounded integer and the shuffle are
//! written out here, because libraries change those algorithms between versions.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Fills up the key of the generators of single examples, so that it is never one of
/// [`Random::new`], whose keys end in zeros.
const EXAMPLE: &[u8; 16] = b"one example only";

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

    /// The generator of example `index` in epoch `epoch`; it shares no stream with another
    /// `(seed, epoch, index)` nor with [`Random::new`]: seed and epoch are in the key, the index
    /// is the stream.
    pub(crate) fn of_example(seed: u64, epoch: u64, index: u64) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..].copy_from_slice(EXAMPLE);
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(index);
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

    /// A uniform number in `low..high`, in steps of `(high - low) / 2^53`.
    pub(crate) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        low + unit * (high - low)
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
