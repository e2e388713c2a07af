//! BLEU from what was counted.

use super::statistics::{BleuStatistics, ORDERS};
use std::fmt;

/// What is taken for the share of matched n-grams of an order where none matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Smoothing {
    /// 0, and so the score.
    None,
    /// 1/2 of one n-gram where it happens first, 1/4 for the next order, and so on: `exp` of sacreBLEU, from
    /// NIST's mteval-v13a.pl.
    Exponential,
}

impl BleuStatistics {
    /// The score: with pₙ = matchedₙ / totalₙ, c tokens in the hypotheses and r in the references,
    ///
    /// ```text
    /// BLEU = 100 · BP · (p₁ p₂ p₃ p₄)^(1/4),   BP = 1 if c >= r, else exp(1 - r / c)
    /// ```
    ///
    /// (Papineni et al., 2002). It is 0 where nothing matched, where the hypotheses have no n-gram of some
    /// order, and where [`Smoothing`] leaves a pₙ = 0.
    pub fn score(&self, smoothing: Smoothing) -> Bleu {
        let precisions = self.precisions(smoothing);
        let brevity_penalty = self.brevity_penalty();
        let score = match precisions.contains(&0.0) {
            true => 0.0,
            false => {
                let logarithms: f64 = precisions.iter().map(|p| p.ln()).sum();
                brevity_penalty * (logarithms / ORDERS as f64).exp()
            }
        };
        Bleu {
            score,
            precisions,
            brevity_penalty,
            statistics: *self,
        }
    }

    /// 100 pₙ.
    fn precisions(&self, smoothing: Smoothing) -> [f64; ORDERS] {
        let mut precisions = [0.0; ORDERS];
        // Smoothing must not make something of nothing.
        if self.matched == [0; ORDERS] {
            return precisions;
        }
        let mut halved = 1.0;
        for (index, precision) in precisions.iter_mut().enumerate() {
            let (matched, total) = (self.matched[index] as f64, self.total[index] as f64);
            *precision = match (self.total[index], self.matched[index], smoothing) {
                (0, ..) | (_, 0, Smoothing::None) => 0.0,
                (_, 0, Smoothing::Exponential) => {
                    halved *= 2.0;
                    100.0 / (halved * total)
                }
                _ => 100.0 * matched / total,
            };
        }
        precisions
    }

    fn brevity_penalty(&self) -> f64 {
        let (hypothesis, reference) = (self.hypothesis_length, self.reference_length);
        match hypothesis {
            _ if hypothesis >= reference => 1.0,
            0 => 0.0,
            _ => (1.0 - reference as f64 / hypothesis as f64).exp(),
        }
    }
}

/// A score. Written out, it is the line of multi-bleu.perl.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bleu {
    /// BLEU in percent, 0 .. 100.
    pub score: f64,
    /// The shares of matched n-grams in percent, by n - 1, smoothed where the score is.
    pub precisions: [f64; ORDERS],
    /// What short hypotheses cost: a factor of the score, 0 .. 1.
    pub brevity_penalty: f64,
    /// What it was computed from.
    pub statistics: BleuStatistics,
}

impl Bleu {
    /// Tokens of the hypotheses for each token of the references; 0 if these have none.
    pub fn ratio(&self) -> f64 {
        let (hypothesis, reference) = (
            self.statistics.hypothesis_length,
            self.statistics.reference_length,
        );
        match reference {
            0 => 0.0,
            _ => hypothesis as f64 / reference as f64,
        }
    }
}

/// `BLEU = 34.12, 67.1/41.0/27.4/18.6 (BP=0.982, ratio=0.982, hyp_len=1200, ref_len=1222)`
impl fmt::Display for Bleu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BleuStatistics {
            hypothesis_length,
            reference_length,
            ..
        } = self.statistics;
        if reference_length == 0 {
            return write!(f, "BLEU = 0, 0/0/0/0 (BP=0, ratio=0, hyp_len=0, ref_len=0)");
        }
        let [one, two, three, four] = self.precisions;
        write!(
            f,
            "BLEU = {:.2}, {one:.1}/{two:.1}/{three:.1}/{four:.1} (BP={:.3}, ratio={:.3}, \
             hyp_len={hypothesis_length}, ref_len={reference_length})",
            self.score,
            self.brevity_penalty,
            self.ratio(),
        )
    }
}
