//! The score of Moses' multi-bleu.perl: of texts that are cut into tokens already.

use super::bleu::{Bleu, Smoothing};
use super::statistics::{BleuStatistics, corpus};
use crate::error::Result;

/// BLEU as multi-bleu.perl computes it: tokens are what stands between ASCII white space, nothing is smoothed.
///
/// The score depends on how the texts were cut into tokens. Scores of texts that were not cut in the same way
/// cannot be compared; [`SacreBleu`](super::SacreBleu) cuts them itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MultiBleu {
    /// Whether case is left out of account, `-lc`. As in the script, which reads bytes, these are the letters
    /// A to Z only; [`str::to_lowercase`] the texts before for others.
    pub lowercase: bool,
}

impl MultiBleu {
    /// The score of a corpus: hypotheses, and lists of references that are as long, in the same order.
    ///
    /// # Errors
    /// [`Error::Metric`](crate::Error::Metric) for lists of different lengths, or none.
    pub fn score<H, R>(&self, hypotheses: &[H], references: &[&[R]]) -> Result<Bleu>
    where
        H: AsRef<str>,
        R: AsRef<str>,
    {
        let statistics = self.statistics(hypotheses, references)?;
        Ok(statistics.score(Smoothing::None))
    }

    /// The statistics of a part of a corpus, which add up.
    ///
    /// # Errors
    /// As [`MultiBleu::score`].
    pub fn statistics<H, R>(&self, hypotheses: &[H], references: &[&[R]]) -> Result<BleuStatistics>
    where
        H: AsRef<str>,
        R: AsRef<str>,
    {
        corpus(hypotheses, references, |sentence| self.tokens(sentence))
    }

    fn tokens(&self, sentence: &str) -> Vec<String> {
        // `split_ascii_whitespace` does not know the vertical tab, Perl's `split` does.
        let tokens = sentence.split(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
        let tokens = tokens.filter(|token| !token.is_empty());
        match self.lowercase {
            true => tokens.map(str::to_ascii_lowercase).collect(),
            false => tokens.map(str::to_owned).collect(),
        }
    }
}

/// The score of multi-bleu.perl without options; see [`MultiBleu`].
///
/// ```
/// use trainers::generation::multi_bleu;
/// # fn main() -> trainers::Result<()> {
/// let hypotheses = ["a dog runs on the green grass .", "two men talk"];
/// let references = ["a dog runs over the green grass .", "two men are talking"];
/// let bleu = multi_bleu(&hypotheses, &[&references])?;
/// assert_eq!(
///     bleu.to_string(),
///     "BLEU = 42.46, 81.8/66.7/42.9/20.0 (BP=0.913, ratio=0.917, hyp_len=11, ref_len=12)"
/// );
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`MultiBleu::score`].
pub fn multi_bleu<H, R>(hypotheses: &[H], references: &[&[R]]) -> Result<Bleu>
where
    H: AsRef<str>,
    R: AsRef<str>,
{
    MultiBleu::default().score(hypotheses, references)
}
