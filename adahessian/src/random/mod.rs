//! Random numbers that are pure functions of (seed, name, step, sample, index).
//!
//! Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is a
//! counter-based generator: nothing has to be saved to resume a run, and any rank, thread or
//! device can make any entry.

#[cfg(feature = "cuda")]
mod device;
#[cfg(any(test, feature = "cuda"))]
mod ptx;

use crate::error::Result;
use crate::numeric::Real;
use crate::numeric::parallel;
use candle_core::{DType, Device, Tensor};

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// One block of Philox4x32-10: four 32-bit numbers for a 128-bit counter and a 64-bit key.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// One stream of random numbers, named by what it is for.
///
/// The key is the seed mixed with a hash of the name, the counter is (block of the index, step,
/// sample).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    step: u32,
    sample: u32,
}

impl Stream {
    /// The stream of this seed, name, step and sample. Steps count modulo 2³².
    pub fn new(seed: u64, name: &str, step: u64, sample: u32) -> Self {
        let key = mix(seed ^ mix(fnv1a(name)));
        Self {
            key: [key as u32, (key >> 32) as u32],
            step: step as u32,
            sample,
        }
    }

    fn block(&self, index: usize) -> [u32; 4] {
        let index = index as u64;
        let counter = [index as u32, (index >> 32) as u32, self.step, self.sample];
        philox(counter, self.key)
    }

    /// `count` independent numbers, each +1 or -1 with probability one half (Rademacher); one bit
    /// of the generator an entry.
    pub fn rademacher(&self, count: usize) -> Vec<f32> {
        let mut signs = vec![0.0; count];
        self.with_signs(&mut signs, |to, sign| *to = sign);
        signs
    }

    /// Goes over numbers, each with its sign of [`Stream::rademacher`], on all threads.
    pub(crate) fn with_signs<T: Real>(&self, to: &mut [T], apply: impl Fn(&mut T, T) + Sync) {
        const BLOCKS: usize = 256;
        parallel::each(to.chunks_mut(128 * BLOCKS), |part, numbers| {
            for (block, numbers) in numbers.chunks_mut(128).enumerate() {
                let words = self.block(part * BLOCKS + block);
                for (word, numbers) in words.into_iter().zip(numbers.chunks_mut(32)) {
                    let bits = (0u32..).zip(numbers);
                    bits.for_each(|(bit, number)| match word >> bit & 1 {
                        0 => apply(number, T::ONE),
                        _ => apply(number, -T::ONE),
                    });
                }
            }
        });
    }

    /// Which of the signs of [`Stream::rademacher`] are negative, as 1 and 0.
    pub(crate) fn negative(&self, count: usize) -> Vec<u8> {
        const BLOCKS: usize = 256;
        let mut bits = vec![0; count];
        parallel::each(bits.chunks_mut(128 * BLOCKS), |part, bits| {
            for (block, bits) in bits.chunks_mut(128).enumerate() {
                let words = self.block(part * BLOCKS + block);
                for (word, bits) in words.into_iter().zip(bits.chunks_mut(32)) {
                    let numbered = (0u32..).zip(bits);
                    numbered.for_each(|(bit, to)| *to = (word >> bit & 1) as u8);
                }
            }
        });
        bits
    }

    /// `count` uniform numbers in (0, 1), 32 bits each.
    pub fn uniform(&self, count: usize) -> Vec<f64> {
        const PART: usize = 1 << 13;
        let mut numbers = vec![0.0; count];
        parallel::each(numbers.chunks_mut(PART), |part, numbers| {
            self.uniform_from(part * PART, numbers);
        });
        numbers
    }

    /// The numbers of [`Stream::uniform`] from number `first` on.
    pub fn uniform_from(&self, first: usize, to: &mut [f64]) {
        let (mut block, mut words) = (usize::MAX, [0; 4]);
        for (index, to) in (first..).zip(to) {
            if index / 4 != block {
                block = index / 4;
                words = self.block(block);
            }
            *to = (f64::from(words[index % 4]) + 0.5) / 4_294_967_296.0;
        }
    }

    /// `count` standard normal numbers (Box-Muller on pairs of uniforms).
    pub fn normal(&self, count: usize) -> Vec<f64> {
        let mut numbers = self.uniform(count + count % 2);
        parallel::each(numbers.chunks_mut(1 << 13), |_, numbers| {
            for u in numbers.chunks_exact_mut(2) {
                let radius = (-2.0 * u[0].ln()).sqrt();
                let (sin, cos) = (std::f64::consts::TAU * u[1]).sin_cos();
                (u[0], u[1]) = (radius * cos, radius * sin);
            }
        });
        numbers.truncate(count);
        numbers
    }

    /// `count` decisions, 1.0 with probability `keep` and 0.0 otherwise, by comparing 32-bit
    /// integers, so that every device decides alike.
    pub fn bernoulli(&self, count: usize, keep: f64) -> Vec<f32> {
        let decisions = self.decisions(count, keep);
        decisions.into_iter().map(f32::from).collect()
    }

    /// The decisions of [`Stream::bernoulli`] as 1 and 0.
    pub(crate) fn decisions(&self, count: usize, keep: f64) -> Vec<u8> {
        const BLOCKS: usize = 2048;
        let limit = limit(keep);
        let mut kept = vec![0; count];
        parallel::each(kept.chunks_mut(4 * BLOCKS), |part, kept| {
            for (block, kept) in kept.chunks_mut(4).enumerate() {
                let words = self.block(part * BLOCKS + block);
                let pairs = kept.iter_mut().zip(words);
                pairs.for_each(|(kept, word)| *kept = u8::from(u64::from(word) < limit));
            }
        });
        kept
    }

    /// The decisions of [`Stream::bernoulli`] as a tensor, `on` in the place of 1.
    pub(crate) fn decisions_tensor(
        &self,
        shape: &[usize],
        (keep, on): (f64, f64),
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(drawn) = device::decisions(self, shape, limit(keep), on, (dtype, device))? {
            return Ok(drawn);
        }
        let kept = self.decisions(shape.iter().product(), keep);
        // As bytes, where they have a way to go.
        let kept = Tensor::from_vec(kept, shape, device)?.to_dtype(dtype)?;
        Ok((kept * on)?)
    }

    /// A tensor of Rademacher signs.
    ///
    /// # Errors
    /// If candle cannot make it on the device.
    pub fn rademacher_tensor(
        &self,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let count = shape.iter().product();
        if let Some(signs) = signs_on_device(&[(*self, count)], dtype, device)? {
            return Ok(signs[0].reshape(shape)?);
        }
        let signs = self.rademacher(shape.iter().product());
        to_tensor(Tensor::from_vec(signs, shape, &Device::Cpu)?, dtype, device)
    }

    /// A tensor of standard normal numbers.
    ///
    /// # Errors
    /// If candle cannot make it on the device.
    pub fn normal_tensor(&self, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let numbers = self.normal(shape.iter().product());
        to_tensor(
            Tensor::from_vec(numbers, shape, &Device::Cpu)?,
            dtype,
            device,
        )
    }
}

/// The signs of [`Stream::rademacher`], so many of each stream, where a device draws them, all at once: streams of one
/// step and sample.
pub(crate) fn signs_on_device(
    streams: &[(Stream, usize)],
    dtype: DType,
    device: &Device,
) -> Result<Option<Vec<Tensor>>> {
    #[cfg(feature = "cuda")]
    return device::signs(streams, dtype, device);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (streams, dtype, device);
        Ok(None)
    }
}

/// What a word of the generator is below with probability `keep`.
fn limit(keep: f64) -> u64 {
    (keep.clamp(0.0, 1.0) * 4_294_967_296.0) as u64
}

fn to_tensor(tensor: Tensor, dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(tensor.to_dtype(dtype)?.to_device(device)?)
}

/// FNV-1a, 64 bits: stable across machines and versions, unlike the standard library's hashers.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finaliser of SplitMix64: every bit of the input reaches every bit of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors of Philox publish with their library.
    #[test]
    fn known_answers() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_longer_draw_starts_like_a_shorter_one() {
        let stream = Stream::new(7, "a", 3, 0);
        assert_eq!(stream.rademacher(1000)[..77], stream.rademacher(77));
        assert_eq!(stream.normal(999)[..10], stream.normal(10));
    }

    #[test]
    fn moments() {
        let stream = Stream::new(1, "w", 0, 0);
        let n = 200_000;
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let normal = stream.normal(n);
        let squares: Vec<f64> = normal.iter().map(|x| x * x).collect();
        let signs: Vec<f64> = stream.rademacher(n).iter().map(|&x| f64::from(x)).collect();
        let kept: Vec<f64> = stream
            .bernoulli(n, 0.9)
            .iter()
            .map(|&x| f64::from(x))
            .collect();
        // Five standard errors of each mean.
        assert!(mean(&normal).abs() < 5.0 / (n as f64).sqrt());
        assert!((mean(&squares) - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt());
        assert!(mean(&signs).abs() < 5.0 / (n as f64).sqrt());
        assert!(signs.iter().all(|s| s.abs() == 1.0));
        assert!((mean(&kept) - 0.9).abs() < 5.0 * (0.09 / n as f64).sqrt());
    }

    #[test]
    fn the_assembler_takes_draws() {
        use crate::numeric::traced::assembly::{F32, F64, assembled};
        let both = [F32, F64].map(|of| [ptx::decisions(of), ptx::signs(of)]);
        assembled(&both.concat());
    }

    #[test]
    fn streams_differ_in_every_part_of_their_name() {
        let draw = |seed, name, step, sample| Stream::new(seed, name, step, sample).rademacher(64);
        let base = draw(0, "a", 0, 0);
        for other in [
            draw(1, "a", 0, 0),
            draw(0, "b", 0, 0),
            draw(0, "a", 1, 0),
            draw(0, "a", 0, 1),
        ] {
            assert_ne!(base, other);
        }
    }
}
