//! The hypotheses of one sentence: those that a search goes on with, and those that are finished.

use super::settings::BeamSearch;
use super::top::{Candidate, best};

/// A sequence that a search has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Its tokens without the first one, which was given; the last one is the end.
    pub tokens: Vec<u32>,
    /// The natural logarithm of each token's probability, given those before it.
    pub log_probabilities: Vec<f32>,
    /// The sum of `log_probabilities`, divided by the number of tokens to the power of the length penalty.
    pub score: f64,
}

impl Hypothesis {
    /// The tokens without the end.
    pub fn text(&self) -> &[u32] {
        self.tokens.split_last().map_or(&[], |(_, text)| text)
    }
}

/// A sequence that a search goes on with: a row of the decoder.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    pub tokens: Vec<u32>,
    log_probabilities: Vec<f32>,
    sum: f64,
}

impl Prefix {
    /// With another token, whose probability's logarithm is given.
    fn then(&self, candidate: &Candidate, log_probability: f32) -> Self {
        let mut next = self.clone();
        next.tokens.push(candidate.token);
        next.log_probabilities.push(log_probability);
        next.sum = candidate.sum;
        next
    }

    fn finished(self, length_penalty: f64) -> Hypothesis {
        let length = self.tokens.len() as f64;
        Hypothesis {
            score: self.sum / length.powf(length_penalty),
            tokens: self.tokens,
            log_probabilities: self.log_probabilities,
        }
    }
}

/// One sentence of a search.
#[derive(Debug)]
pub(super) struct Sentence {
    /// How many tokens a hypothesis may have, the end apart.
    max_length: usize,
    /// The rows, the best first. The sentence is finished when there are none.
    pub prefixes: Vec<Prefix>,
    finished: Vec<Hypothesis>,
}

impl Sentence {
    pub fn new(max_length: usize) -> Self {
        Self {
            max_length,
            prefixes: vec![Prefix {
                tokens: Vec::new(),
                log_probabilities: Vec::new(),
                sum: 0.0,
            }],
            finished: Vec::new(),
        }
    }

    /// Goes on by one token, with the logarithms of the tokens' probabilities [prefixes × vocabulary]. Returns the
    /// row from which each of the new prefixes comes.
    ///
    /// Of the 2 · beam best candidates at least half do not end: a prefix ends in one way only. Those that end
    /// are finished if they are among the best `beam`, and dropped otherwise, as worse ones of their length
    /// would be; the best `beam` of the others are gone on with.
    pub fn advance(&mut self, search: &BeamSearch, step: usize, values: &[f32]) -> Vec<usize> {
        let vocabulary = values.len() / self.prefixes.len();
        let candidates = best(
            self.candidates(search, step, values, vocabulary),
            search.beam.saturating_mul(2),
        );
        let (mut next, mut rows) = (Vec::new(), Vec::new());
        for (rank, candidate) in candidates.iter().enumerate() {
            let value = values[candidate.row * vocabulary + candidate.token as usize];
            let longer = || self.prefixes[candidate.row].then(candidate, value);
            match candidate.token == search.eos {
                true if rank < search.beam && self.finished.len() < search.beam => {
                    let hypothesis = longer().finished(search.length_penalty);
                    self.finished.push(hypothesis);
                }
                false if next.len() < search.beam => {
                    next.push(longer());
                    rows.push(candidate.row);
                }
                _ => {}
            }
        }
        if self.finished.len() >= search.beam {
            next.clear();
            rows.clear();
        }
        self.prefixes = next;
        rows
    }

    /// All that may come next. What has no probability may not: nothing would be found behind it.
    fn candidates<'a>(
        &'a self,
        search: &'a BeamSearch,
        step: usize,
        values: &'a [f32],
        vocabulary: usize,
    ) -> impl Iterator<Item = Candidate> + 'a {
        let may_end = step >= search.min_length;
        let must_end = step >= self.max_length;
        let rows = self.prefixes.iter().zip(values.chunks_exact(vocabulary));
        rows.enumerate().flat_map(move |(row, (prefix, values))| {
            let tokens = (0u32..).zip(values);
            tokens.filter_map(move |(token, value)| {
                let allowed = match token == search.eos {
                    true => may_end,
                    false => !must_end && token != search.pad && !search.forbidden.contains(&token),
                };
                (allowed && *value > f32::NEG_INFINITY).then(|| Candidate {
                    row,
                    token,
                    sum: prefix.sum + f64::from(*value),
                })
            })
        })
    }

    /// The best finished hypotheses, the best first; of equal ones, that which was finished first.
    pub fn best(mut self, count: usize) -> Vec<Hypothesis> {
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(count);
        self.finished
    }
}
