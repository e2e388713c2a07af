//! How a search is made.

use crate::error::{Error, Result};

/// A beam search over many sentences at once, by the rule of fairseq's generator.
///
/// In each step the `beam` best prefixes of a sentence are gone on with by one token. Of their continuations,
/// ordered by the sum of the logarithms of their tokens' probabilities, those that end within the best `beam` are
/// finished, and the best `beam` that do not end are the next prefixes. A sentence is done when `beam`
/// hypotheses are finished, or when they are as long as they may be, where all end. The score of a hypothesis
/// y of n tokens, its end among them, is
///
/// ```text
/// Σᵢ log p(yᵢ | y₁ .. yᵢ₋₁, source) / n ^ length_penalty
/// ```
///
/// Sums are of f64. Of equal candidates, the one of the better prefix comes first, then that of the lower
/// token: what is found is a function of the decoder's numbers, and of no other sentence of the batch.
///
/// ```
/// use trainers::generation::{BeamSearch, Decoder};
///
/// /// Says 2 and 3 in turn, and ends with a probability of a quarter.
/// struct Turns(Vec<u32>);
///
/// impl Decoder for Turns {
///     fn vocabulary(&self) -> usize {
///         4
///     }
///
///     fn step(&mut self, tokens: &[u32]) -> trainers::Result<Vec<f32>> {
///         self.0 = tokens.to_vec();
///         let next = |token: &u32| match token {
///             2 => [0f32, 0.25, 0., 0.75],
///             _ => [0f32, 0.25, 0.75, 0.],
///         };
///         Ok(tokens.iter().flat_map(next).map(f32::ln).collect())
///     }
///
///     fn select(&mut self, rows: &[usize]) -> trainers::Result<()> {
///         self.0 = rows.iter().map(|row| self.0[*row]).collect();
///         Ok(())
///     }
/// }
///
/// # fn main() -> trainers::Result<()> {
/// // Of two sources, of 3 and of 5 tokens, at most as many tokens.
/// let search = BeamSearch { max_ratio: 1.0, max_extra: 0, ..BeamSearch::new(1, 1, 0) };
/// let found = search.search(&mut Turns(Vec::new()), &[3, 5])?;
/// assert_eq!(found[0][0].tokens, [2, 3, 2, 1]);
/// assert_eq!(found[1][0].text(), [2, 3, 2, 3, 2]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BeamSearch {
    /// How many prefixes of a sentence are gone on with, 1 or more; 5.
    pub beam: usize,
    /// How many hypotheses of a sentence are returned, 1 to `beam`; 1.
    pub n_best: usize,
    /// The power of the length in the score; 1. With 0, short hypotheses are favoured, with more than 1 long
    /// ones.
    pub length_penalty: f64,
    /// A hypothesis has at most `max_ratio` · length of the source + `max_extra` tokens, its end apart, rounded
    /// down; 0.
    pub max_ratio: f64,
    /// See `max_ratio`; 200.
    pub max_extra: usize,
    /// The tokens that a hypothesis has at least, its end apart; 1.
    pub min_length: usize,
    /// The token that all begin with, which is given to the decoder first.
    pub bos: u32,
    /// The token that ends a sequence.
    pub eos: u32,
    /// The token that fills up batches, which is never generated.
    pub pad: u32,
    /// Others that are never generated, that for unknown words say. A few: they are looked up one by one.
    pub forbidden: Vec<u32>,
}

impl BeamSearch {
    /// fairseq's defaults. What it gives the decoder first is `eos`; others have a token of their own, `bos`.
    pub fn new(bos: u32, eos: u32, pad: u32) -> Self {
        Self {
            beam: 5,
            n_best: 1,
            length_penalty: 1.0,
            max_ratio: 0.0,
            max_extra: 200,
            min_length: 1,
            bos,
            eos,
            pad,
            forbidden: Vec::new(),
        }
    }

    /// With a beam of one: the most probable token in each step.
    pub fn greedy(self) -> Self {
        Self {
            beam: 1,
            n_best: 1,
            ..self
        }
    }

    /// The most tokens that a hypothesis may have, its end apart.
    pub(super) fn max_length(&self, source: usize) -> Result<usize> {
        let length = (self.max_ratio * source as f64) as usize;
        let length = length.saturating_add(self.max_extra);
        match length >= self.min_length {
            true => Ok(length),
            false => Err(setting(
                "min_length",
                format!(
                    "at most {length}, the longest for a source of {source} (max_ratio, max_extra)"
                ),
                self.min_length,
            )),
        }
    }

    /// Whether all settings are within their ranges.
    pub(super) fn check(&self, vocabulary: usize) -> Result<()> {
        if self.beam == 0 {
            return Err(setting("beam", "1 or more".into(), self.beam));
        }
        if self.n_best == 0 || self.n_best > self.beam {
            let expected = format!("1 to {}, the beam", self.beam);
            return Err(setting("n_best", expected, self.n_best));
        }
        if !self.length_penalty.is_finite() {
            let expected = "a finite number".into();
            return Err(setting("length_penalty", expected, self.length_penalty));
        }
        if !self.max_ratio.is_finite() || self.max_ratio < 0.0 {
            return Err(setting("max_ratio", "0 or more".into(), self.max_ratio));
        }
        for (what, token) in [("bos", self.bos), ("eos", self.eos), ("pad", self.pad)] {
            if token as usize >= vocabulary {
                let expected = format!("a token below {vocabulary}, the vocabulary");
                return Err(setting(what, expected, token));
            }
        }
        if self.eos == self.pad || self.forbidden.contains(&self.eos) {
            let expected = "a token that may be generated, neither pad nor forbidden".into();
            return Err(setting("eos", expected, self.eos));
        }
        Ok(())
    }
}

fn setting(what: &'static str, expected: String, got: impl ToString) -> Error {
    Error::Setting {
        what,
        expected,
        got: got.to_string(),
    }
}
