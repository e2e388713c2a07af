//! Which tokens are hidden, and behind what.

use super::Pieces;
use crate::error::{Error, Result};
use crate::random::Random;

/// Of the tokens to be said, so many in a hundred are hidden behind the mask.
const MASKED: usize = 80;
/// And so many stand behind another token; the rest stay as they are.
const REPLACED: usize = 10;

/// The choice of Devlin et al. (2019): a share of the tokens is to be said; 80 % of these are hidden behind the mask,
/// 10 % behind a token drawn from the vocabulary, 10 % are left as they are. Drawn anew for every epoch (Liu et al. 2019).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Masking {
    share: f64,
    whole_words: bool,
    seed: u64,
}

impl Masking {
    /// So many of the tokens: a share between 0 and 1; with `whole_words` all pieces of a word, or none.
    ///
    /// # Errors
    /// For another share.
    pub fn new(share: f64, whole_words: bool, seed: u64) -> Result<Self> {
        match share > 0.0 && share <= 1.0 {
            true => Ok(Self {
                share,
                whole_words,
                seed,
            }),
            false => Err(Error::Setting {
                name: "share of masked tokens",
                got: share.to_string(),
                expected: "more than 0 and at most 1: 0.15, say".into(),
            }),
        }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Hides tokens of `body`, the text of sequence `index`, and tells the places and what stood there, in their order: at
    /// least one, a share rounded to the nearest number, and with whole words as many more as the last word has.
    ///
    /// A function of the seed, the epoch, the index and the text. Special tokens are not chosen, unless there are no others.
    pub fn apply(
        &self,
        pieces: &Pieces,
        body: &mut [u32],
        epoch: usize,
        index: usize,
    ) -> Vec<(usize, u32)> {
        self.apply_to_parts(pieces, body, body.len(), (epoch, index))
    }

    /// [`Masking::apply`] to a sequence whose second part begins behind `first` tokens: no word goes across.
    pub(super) fn apply_to_parts(
        &self,
        pieces: &Pieces,
        body: &mut [u32],
        first: usize,
        (epoch, index): (usize, usize),
    ) -> Vec<(usize, u32)> {
        let mut random = Random::of_example(self.seed, epoch as u64, index as u64);
        let mut words = self.words(pieces, body, first);
        let tokens: usize = words.iter().map(Vec::len).sum();
        let wanted = ((tokens as f64 * self.share).round() as usize).max(1);
        random.shuffle(&mut words);
        let mut chosen = Vec::with_capacity(wanted);
        for word in words {
            if chosen.len() >= wanted {
                break;
            }
            chosen.extend(word);
        }
        chosen.sort_unstable();
        let hide = |place: usize| {
            let stood = body[place];
            body[place] = match random.below(100) {
                ..MASKED => pieces.mask,
                chance if chance < MASKED + REPLACED => {
                    pieces.plain()[random.below(pieces.plain().len())]
                }
                _ => stood,
            };
            (place, stood)
        };
        chosen.into_iter().map(hide).collect()
    }

    /// The places that are chosen together.
    fn words(&self, pieces: &Pieces, body: &[u32], first: usize) -> Vec<Vec<usize>> {
        let mut words: Vec<Vec<usize>> = Vec::new();
        let mut before = None;
        for (place, id) in body
            .iter()
            .enumerate()
            .filter(|(_, id)| pieces.is_plain(**id))
        {
            let goes_on = self.whole_words
                && place != first
                && !pieces.begins(*id)
                && place.checked_sub(1) == before
                && before.is_some();
            match words.last_mut() {
                Some(word) if goes_on => word.push(place),
                _ => words.push(vec![place]),
            }
            before = Some(place);
        }
        match words.is_empty() {
            true => (0..body.len()).map(|place| vec![place]).collect(),
            false => words,
        }
    }
}
