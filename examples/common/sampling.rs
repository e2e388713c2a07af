//! The next word of a text, drawn from a model's logits.

use anyhow::{Result, bail};

/// How a word is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; 0 always takes the likeliest.
    pub temperature: f64,
    /// Only so many of the likeliest are drawn from.
    pub top_k: Option<usize>,
    /// Only the likeliest are drawn from: as many as are needed for this share of the probability (of those that
    /// `top_k` leaves).
    pub top_p: Option<f64>,
}

impl Sampling {
    /// The number of the word that `uniform`, in 0..1, falls on: each has its probability's share of that range, in the
    /// order of their probabilities where they are ranked, else of their numbers.
    ///
    /// # Errors
    /// For logits of which none is finite, or one is not a number.
    pub fn draw(&self, logits: &[f32], uniform: f64) -> Result<usize> {
        let largest = logits.iter().copied().max_by(f32::total_cmp);
        let largest = largest.map_or(f64::NEG_INFINITY, f64::from);
        if !largest.is_finite() || logits.iter().any(|l| l.is_nan()) {
            bail!("the model's logits are not finite: there is nothing to draw from");
        }
        let likeliest = || logits.iter().position(|&l| f64::from(l) == largest);
        if self.temperature == 0.0 {
            return Ok(likeliest().unwrap_or(0));
        }
        let weight = |&l: &f32| ((f64::from(l) - largest) / self.temperature).exp();
        let mut words: Vec<(usize, f64)> = logits.iter().map(weight).enumerate().collect();
        if self.top_k.is_some() || self.top_p.is_some() {
            words.sort_by(|a, b| b.1.total_cmp(&a.1)); // stable: alike in the order of their numbers
        }
        words.truncate(self.top_k.unwrap_or(usize::MAX).max(1));
        if let Some(share) = self.top_p {
            let most = share * total(&words);
            let mut sum = 0.0;
            let reaches = |(_, weight): &(usize, f64)| {
                sum += weight;
                sum >= most
            };
            let count = words
                .iter()
                .position(reaches)
                .map_or(words.len(), |at| at + 1);
            words.truncate(count);
        }
        let (at, mut sum) = (uniform * total(&words), 0.0);
        let found = words.iter().find(|(_, weight)| {
            sum += weight;
            at < sum
        });
        // Rounding may leave the last bit over.
        Ok(found.or(words.last()).map_or(0, |(word, _)| *word))
    }
}

fn total(words: &[(usize, f64)]) -> f64 {
    words.iter().map(|(_, weight)| weight).sum()
}

#[cfg(test)]
mod tests {
    use super::Sampling;

    const ALL: Sampling = Sampling {
        temperature: 1.0,
        top_k: None,
        top_p: None,
    };
    const PROBABILITIES: [f64; 5] = [0.1, 0.4, 0.0, 0.3, 0.2];

    /// How often of ten thousand even steps through 0..1 each word is drawn.
    fn shares(sampling: Sampling) -> [f64; 5] {
        const STEPS: usize = 10_000;
        let logits = PROBABILITIES.map(|p: f64| p.ln() as f32);
        let mut counts = [0.0; 5];
        for step in 0..STEPS {
            let uniform = (step as f64 + 0.5) / STEPS as f64;
            counts[sampling.draw(&logits, uniform).unwrap()] += 1.0 / STEPS as f64;
        }
        counts
    }

    fn assert_shares(sampling: Sampling, expected: [f64; 5]) {
        let got = shares(sampling);
        let near = got
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1.5e-4);
        assert!(near, "{sampling:?}: {got:?}, expected {expected:?}");
    }

    #[test]
    fn each_word_has_its_share() {
        assert_shares(ALL, PROBABILITIES);
        let half = |p: f64| p.sqrt();
        let sum: f64 = PROBABILITIES.iter().copied().map(half).sum();
        let warm = Sampling {
            temperature: 2.0,
            ..ALL
        };
        assert_shares(warm, PROBABILITIES.map(|p| half(p) / sum));
    }

    #[test]
    fn the_likeliest_alone() {
        let cold = Sampling {
            temperature: 0.0,
            ..ALL
        };
        assert_shares(cold, [0.0, 1.0, 0.0, 0.0, 0.0]);
        let top = |top_k, top_p| Sampling {
            top_k,
            top_p,
            ..ALL
        };
        assert_shares(top(Some(1), None), [0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_shares(top(Some(2), None), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0, 0.0]);
        assert_shares(top(Some(99), None), PROBABILITIES);
        assert_shares(top(None, Some(0.3)), [0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_shares(top(None, Some(0.6)), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0, 0.0]);
        assert_shares(top(None, Some(1.0)), PROBABILITIES);
        // Of the two that are left, the first has more than half.
        assert_shares(top(Some(2), Some(0.5)), [0.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn nothing_to_draw_from() {
        for logits in [
            &[][..],
            &[f32::NAN, 0.0],
            &[f32::NEG_INFINITY],
            &[f32::INFINITY, 0.0],
        ] {
            assert!(ALL.draw(logits, 0.5).is_err(), "{logits:?}");
        }
        assert_eq!(ALL.draw(&[f32::NEG_INFINITY, 0.0], 0.0).unwrap(), 1);
    }
}
