//! The two parts of a sequence, and what the second is to the first.

use super::Packed;
use crate::error::Result;
use crate::random::Random;

/// Turns the seed of what is hidden into one for the parts, so that the two choices know nothing of each other.
const PARTS: u64 = 0x70_61_72_74_73;

/// What a model is to tell of the two parts of a sequence, as a label of 0 or 1, each half of the time.
///
/// For [`Pairing::NextSentence`] and [`Pairing::SentenceOrder`] the text is cut behind a sentence (behind `.`, `!` or `?`), at
/// one place of all that there are; in a sequence without such a place before any of its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// 0: the second follows the first in the text; 1: it is from another place of the text (Devlin et al. 2019).
    NextSentence,
    /// 0: the parts are in the text's order; 1: they were exchanged (Lan et al. 2020).
    SentenceOrder,
    /// 0: the first, a quarter of the tokens, is words of the second in their order, about every other one, a third of which
    /// were exchanged for words from elsewhere; 1: it is so made of another passage, half of the time of the sequence before
    /// or behind, else of any other. What tells the two apart are the words themselves, as with a question and the sentence
    /// that has its answer. After the inverse cloze task of Lee et al. (2019), with the passage left whole.
    Excerpt,
}

/// A sequence in two parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// The tokens of both.
    pub tokens: Vec<u32>,
    /// How many of them are the first's.
    pub first: usize,
    pub label: u32,
}

impl Pairing {
    /// Tokens of the shortest sequence that has two parts.
    pub(super) const SHORTEST: usize = 5;

    /// Sequence `index` in two parts, without its last token, in whose place the third special token comes: a function of
    /// the seed, the epoch, the index and the text.
    pub(super) fn parts(
        self,
        text: &Packed,
        seed: u64,
        epoch: usize,
        index: usize,
    ) -> Result<Parts> {
        let mut random = Random::of_example(seed ^ PARTS, epoch as u64, index as u64);
        let mut tokens = text.body(index)?;
        tokens.pop();
        if self == Self::Excerpt {
            return excerpt_before(text, tokens, index, &mut random);
        }
        let mut first = cut(text, &tokens, &mut random);
        let label = random.below(2) as u32;
        match (self, label) {
            (_, 0) => {}
            (Self::SentenceOrder, _) => {
                tokens.rotate_left(first);
                first = tokens.len() - first;
            }
            (_, _) => {
                let back = elsewhere(text, index, tokens.len() - first, &mut random)?;
                tokens[first..].copy_from_slice(&back);
            }
        }
        Ok(Parts {
            tokens,
            first,
            label,
        })
    }
}

/// Words of a passage, in the place of the tokens before it, or of another passage.
fn excerpt_before(
    text: &Packed,
    mut tokens: Vec<u32>,
    index: usize,
    random: &mut Random,
) -> Result<Parts> {
    let first = (tokens.len() / 4).max(1);
    let (label, len) = (random.below(2) as u32, tokens.len() - first);
    let other = match label {
        0 => None,
        _ if random.below(2) == 0 => {
            let step = [1, text.len() - 1][random.below(2)];
            Some(text.run((index + step) % text.len(), 0, len)?)
        }
        _ => Some(elsewhere(text, index, len, random)?),
    };
    let passage = other.as_deref().unwrap_or(&tokens[first..]);
    let foreign = elsewhere(text, index, len, random)?;
    let excerpt = excerpt(text, [passage, &foreign], first, random);
    tokens[..first].copy_from_slice(&excerpt);
    Ok(Parts {
        tokens,
        first,
        label,
    })
}

/// `len` tokens: the words of a longer passage from one of them on, and once more from its first, each with one chance in two;
/// for one in three of them a word of the foreign one; where that does not fill it, what stands first of the passage.
fn excerpt(
    text: &Packed,
    [passage, foreign]: [&[u32]; 2],
    len: usize,
    random: &mut Random,
) -> Vec<u32> {
    let (own, others) = (words(text, passage), words(text, foreign));
    let start = random.below(own.len());
    let mut excerpt = Vec::with_capacity(len);
    for word in own[start..].iter().chain(&own[..start]) {
        match (random.below(2), random.below(3)) {
            (0, 0) => excerpt.extend(others[random.below(others.len())]),
            (0, _) => excerpt.extend(*word),
            _ => {}
        }
    }
    excerpt.extend(passage);
    excerpt.truncate(len);
    excerpt
}

/// A passage word by word; its first tokens are one, whether or not a word begins there.
fn words<'a>(text: &Packed, passage: &'a [u32]) -> Vec<&'a [u32]> {
    let goes_on = |_: &u32, next: &u32| !text.pieces().begins(*next);
    passage.chunk_by(goes_on).collect()
}

/// So many tokens of another sequence than this one and its neighbours, and of what follows it, from the beginning of a
/// sentence on, so that the beginning tells nothing. In a text of three sequences or fewer they may be a neighbour's.
fn elsewhere(text: &Packed, index: usize, len: usize, random: &mut Random) -> Result<Vec<u32>> {
    let (all, others) = (text.len(), text.len().saturating_sub(3));
    let other = match others {
        0 => (index + 1 + random.below(all.saturating_sub(1))) % all,
        _ => (index + 2 + random.below(others)) % all,
    };
    let start = cut(text, &text.body(other)?, random);
    text.run(other, start, len)
}

/// A place where a sentence begins, but not the first; else one where a word does; else the middle.
fn cut(text: &Packed, body: &[u32], random: &mut Random) -> usize {
    let pieces = text.pieces();
    let words = |place: &usize| pieces.begins(body[*place]);
    let sentences = |place: &usize| pieces.ends_sentence(body[place - 1]) && words(place);
    let mut places: Vec<usize> = (1..body.len()).filter(sentences).collect();
    if places.is_empty() {
        places = (1..body.len()).filter(words).collect();
    }
    match places.is_empty() {
        true => body.len() / 2,
        false => places[random.below(places.len())],
    }
}
