//! The search for the most probable sequences.

use super::decoder::Decoder;
use super::hypotheses::{Hypothesis, Sentence};
use super::settings::BeamSearch;
use crate::error::{Error, Result};

impl BeamSearch {
    /// The hypotheses of each sentence, in the sentences' order, the best first. The decoder has a row for
    /// each of the sentences, whose sources have these numbers of tokens. Rows of sentences that are done are
    /// taken from it.
    ///
    /// There are `n_best` hypotheses, or fewer where fewer were finished.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting outside its range. [`Error::Decoder`] for values of another number than
    /// rows × vocabulary, for a value that is not a number or is infinity, and for a sentence of which no hypothesis
    /// has a probability above 0. The decoder's own.
    pub fn search(
        &self,
        decoder: &mut dyn Decoder,
        source_lengths: &[usize],
    ) -> Result<Vec<Vec<Hypothesis>>> {
        let vocabulary = decoder.vocabulary();
        self.check(vocabulary)?;
        let lengths = source_lengths.iter().map(|length| self.max_length(*length));
        let mut sentences: Vec<Sentence> = lengths
            .map(|length| length.map(Sentence::new))
            .collect::<Result<_>>()?;
        let mut step = 0;
        loop {
            let tokens = self.last_tokens(&sentences);
            if tokens.is_empty() {
                break;
            }
            let values = decoder.step(&tokens)?;
            check_values(step, tokens.len(), vocabulary, &values)?;
            let rows = self.advance(&mut sentences, step, &values, vocabulary);
            let is_same = rows.len() == tokens.len() && rows.iter().copied().eq(0..tokens.len());
            if !rows.is_empty() && !is_same {
                decoder.select(&rows)?;
            }
            step += 1;
        }
        let found = sentences.into_iter().enumerate();
        found
            .map(|(index, sentence)| self.found(index, step, sentence))
            .collect()
    }

    /// The last token of each row.
    fn last_tokens(&self, sentences: &[Sentence]) -> Vec<u32> {
        let prefixes = sentences.iter().flat_map(|sentence| &sentence.prefixes);
        let last = prefixes.map(|prefix| prefix.tokens.last().copied().unwrap_or(self.bos));
        last.collect()
    }

    /// Goes on with all sentences. Returns the row that each of the next step's rows comes from.
    fn advance(
        &self,
        sentences: &mut [Sentence],
        step: usize,
        values: &[f32],
        vocabulary: usize,
    ) -> Vec<usize> {
        let (mut first, mut rows) = (0, Vec::new());
        for sentence in sentences {
            let count = sentence.prefixes.len();
            if count == 0 {
                continue;
            }
            let own = &values[first * vocabulary..(first + count) * vocabulary];
            let kept = sentence.advance(self, step, own);
            rows.extend(kept.into_iter().map(|row| first + row));
            first += count;
        }
        rows
    }

    fn found(&self, index: usize, step: usize, sentence: Sentence) -> Result<Vec<Hypothesis>> {
        let hypotheses = sentence.best(self.n_best);
        match hypotheses.is_empty() {
            false => Ok(hypotheses),
            true => Err(Error::Decoder {
                step,
                what: format!("sentence {index}"),
                expected: "a hypothesis of a probability above 0, with an end".into(),
                got: "none: allow longer ones, or fewer forbidden tokens".into(),
            }),
        }
    }
}

/// Whether a decoder's answer can be searched.
fn check_values(step: usize, rows: usize, vocabulary: usize, values: &[f32]) -> Result<()> {
    let wrong = |what: String, expected: &str, got: String| {
        Err(Error::Decoder {
            step,
            what,
            expected: expected.into(),
            got,
        })
    };
    if values.len() != rows * vocabulary {
        let expected = format!("{rows} rows of {vocabulary} tokens");
        return wrong("values".into(), &expected, values.len().to_string());
    }
    let is_wrong = |value: &f32| value.is_nan() || *value == f32::INFINITY;
    match values.iter().position(is_wrong) {
        None => Ok(()),
        Some(index) => wrong(
            format!("row {}, token {}", index / vocabulary, index % vocabulary),
            "the logarithm of a probability",
            values[index].to_string(),
        ),
    }
}
