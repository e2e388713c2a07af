//! The score of sacreBLEU: of plain texts, which it cuts into tokens itself.

use super::bleu::{Bleu, Smoothing};
use super::statistics::{BleuStatistics, corpus};
use super::tokenise_13a::{is_space, split, tokenise_13a};
use crate::error::Result;

/// The release of sacreBLEU that these scores were compared with.
const VERSION: &str = "2.6.0";

/// How sacreBLEU cuts sentences into tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tokeniser {
    /// `13a`, see [`tokenise_13a`].
    #[default]
    V13a,
    /// `none`: the texts are cut already, by white space of Unicode.
    None,
    /// `char`: every character is a token, white space is none.
    Char,
}

impl Tokeniser {
    /// sacreBLEU's name.
    pub fn name(self) -> &'static str {
        match self {
            Tokeniser::V13a => "13a",
            Tokeniser::None => "none",
            Tokeniser::Char => "char",
        }
    }

    fn tokens(self, sentence: &str) -> Vec<String> {
        match self {
            Tokeniser::V13a => tokenise_13a(sentence),
            Tokeniser::None => split(sentence).map(str::to_owned).collect(),
            Tokeniser::Char => {
                let characters = sentence.chars().filter(|c| !is_space(*c));
                characters.map(String::from).collect()
            }
        }
    }
}

/// BLEU as sacreBLEU computes it (Post, 2018); its default is sacreBLEU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SacreBleu {
    /// How sentences are cut into tokens.
    pub tokeniser: Tokeniser,
    /// Whether case is left out of account, that of all letters of Unicode.
    pub lowercase: bool,
    /// What is done about orders of n-grams of which none matched.
    pub smoothing: Smoothing,
}

impl Default for SacreBleu {
    fn default() -> Self {
        Self {
            tokeniser: Tokeniser::V13a,
            lowercase: false,
            smoothing: Smoothing::Exponential,
        }
    }
}

impl SacreBleu {
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
        Ok(statistics.score(self.smoothing))
    }

    /// The statistics of a part of a corpus, which add up.
    ///
    /// # Errors
    /// As [`SacreBleu::score`].
    pub fn statistics<H, R>(&self, hypotheses: &[H], references: &[&[R]]) -> Result<BleuStatistics>
    where
        H: AsRef<str>,
        R: AsRef<str>,
    {
        corpus(hypotheses, references, |sentence| self.tokens(sentence))
    }

    /// sacreBLEU's signature, which says how a score was computed and belongs to every score that is
    /// published.
    pub fn signature(&self, references: usize) -> String {
        let case = if self.lowercase { "lc" } else { "mixed" };
        let tokeniser = self.tokeniser.name();
        let smoothing = match self.smoothing {
            Smoothing::None => "none",
            Smoothing::Exponential => "exp",
        };
        format!(
            "nrefs:{references}|case:{case}|eff:no|tok:{tokeniser}|smooth:{smoothing}|version:{VERSION}"
        )
    }

    /// sacreBLEU's line of text for a score: the signature, the score, and what it was made of.
    pub fn report(&self, bleu: &Bleu, references: usize) -> String {
        let [one, two, three, four] = bleu.precisions;
        format!(
            "BLEU|{} = {:.1} {one:.1}/{two:.1}/{three:.1}/{four:.1} (BP = {:.3} ratio = {:.3} hyp_len = {} \
             ref_len = {})",
            self.signature(references),
            bleu.score,
            bleu.brevity_penalty,
            bleu.ratio(),
            bleu.statistics.hypothesis_length,
            bleu.statistics.reference_length,
        )
    }

    fn tokens(&self, sentence: &str) -> Vec<String> {
        let sentence = match self.lowercase {
            true => sentence.to_lowercase(),
            false => sentence.to_owned(),
        };
        // A line's end behind a hyphen would join it with nothing.
        self.tokeniser.tokens(sentence.trim_end_matches(is_space))
    }
}

/// The score of sacreBLEU without options; see [`SacreBleu`].
///
/// ```
/// use trainers::generation::{SacreBleu, sacre_bleu};
/// # fn main() -> trainers::Result<()> {
/// let hypotheses = ["A dog runs on the grass.", "Two men talk"];
/// let references = ["A dog runs over the grass.", "Two men are talking"];
/// let bleu = sacre_bleu(&hypotheses, &[&references])?;
/// assert_eq!(
///     SacreBleu::default().report(&bleu, 1),
///     "BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0 = \
///      34.4 80.0/62.5/33.3/12.5 (BP = 0.905 ratio = 0.909 hyp_len = 10 ref_len = 11)"
/// );
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`SacreBleu::score`].
pub fn sacre_bleu<H, R>(hypotheses: &[H], references: &[&[R]]) -> Result<Bleu>
where
    H: AsRef<str>,
    R: AsRef<str>,
{
    SacreBleu::default().score(hypotheses, references)
}
