//! A vocabulary learned from text.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    Tokenizer,
};

use super::{BertConfig, CONTINUES, SPECIAL, bert_tokenizer, failed};
use crate::error::{Error, Result};
use crate::limits::{LONGEST_LINE, MOST_WORDS};

/// Characters of the longest word that is learned from: WordPiece takes longer ones as unknown.
const LONGEST_WORD: usize = 100;

/// Learns a lower-casing BERT tokenizer with at most `vocab_size` tokens from `texts`: [`WordCounts`] of texts at hand.
///
/// # Errors
/// As [`WordCounts::add`] and [`WordCounts::tokenizer`].
pub fn learn_wordpiece<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    vocab_size: usize,
) -> Result<Tokenizer> {
    let mut counts = WordCounts::default();
    for text in texts {
        counts.add(text)?;
    }
    counts.tokenizer(vocab_size)
}

/// How often each word of a text occurs, after BERT's normalisation in lower case, and the tokenizer that is learned from
/// that. A text of any length goes through, line by line: in memory are its different words.
#[derive(Debug, Clone, Default)]
pub struct WordCounts(BTreeMap<String, u64>);

impl WordCounts {
    /// Counts the words of one text more. Words of more than 100 characters are left out: WordPiece takes them as unknown.
    ///
    /// # Errors
    /// If the text is longer than [`LONGEST_LINE`] bytes, or there are more than [`MOST_WORDS`] different words with it.
    pub fn add(&mut self, text: &str) -> Result<()> {
        if text.len() > LONGEST_LINE {
            let length = text.len();
            return Err(failed(format!(
                "a text of {length} bytes, of at most {LONGEST_LINE}; cut it"
            )));
        }
        let mut text = NormalizedString::from(text);
        let normalizer = BertConfig::default().normalizer();
        normalizer.normalize(&mut text).map_err(failed)?;
        let mut pieces = PreTokenizedString::from(text);
        BertPreTokenizer.pre_tokenize(&mut pieces).map_err(failed)?;
        for (word, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            if word.is_empty() || word.chars().nth(LONGEST_WORD).is_some() {
                continue;
            }
            match self.0.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    self.0.insert(word.to_string(), 1);
                    if self.0.len() > MOST_WORDS {
                        return Err(failed(format!(
                            "a text with more than {MOST_WORDS} different words; learn from a part of it"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// A tokenizer with at most `vocab_size` tokens.
    ///
    /// Byte-pair encoding on words (Sennrich et al., 2016): start from the characters, then join the
    /// most frequent pair of neighbours until the vocabulary is full or no pair occurs twice. Among
    /// equally frequent pairs the one that sorts first is joined, so the result depends on the texts
    /// alone, not on a hash order.
    ///
    /// # Errors
    /// If `vocab_size` has no room for the special tokens and the most frequent character.
    pub fn tokenizer(&self, vocab_size: usize) -> Result<Tokenizer> {
        let words = &self.0;
        if vocab_size <= SPECIAL.len() || words.is_empty() {
            return Err(Error::Setting {
                name: "vocab_size",
                got: format!("{vocab_size} for {} different words", words.len()),
                expected: format!(
                    "more than {} tokens and at least one word; pass texts and a larger size",
                    SPECIAL.len()
                ),
            });
        }
        let mut tokens: Vec<String> = SPECIAL.iter().map(ToString::to_string).collect();
        let alphabet = alphabet(words, vocab_size - tokens.len());
        tokens.extend(alphabet.iter().cloned());
        let mut merges = Merges::new(words, &alphabet);
        let mut known: BTreeSet<String> = alphabet;
        while tokens.len() < vocab_size {
            let Some(pair) = merges.best() else { break };
            let joined = merges.join(pair);
            if known.insert(joined.clone()) {
                tokens.push(joined);
            }
        }
        bert_tokenizer(tokens.join("\n").as_bytes(), BertConfig::default())
    }
}

/// The characters of a word as tokens: the first plain, the others as continuations.
fn characters(word: &str) -> impl Iterator<Item = String> + '_ {
    word.char_indices().map(|(position, c)| match position {
        0 => c.to_string(),
        _ => format!("{CONTINUES}{c}"),
    })
}

/// The `limit` most frequent character tokens.
fn alphabet(words: &BTreeMap<String, u64>, limit: usize) -> BTreeSet<String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (word, count) in words {
        for token in characters(word) {
            *counts.entry(token).or_insert(0) += count;
        }
    }
    let mut ranked: Vec<(String, u64)> = counts.into_iter().collect();
    // Stable: equally frequent tokens stay in the order of their text.
    ranked.sort_by_key(|(_, count)| Reverse(*count));
    ranked.into_iter().take(limit).map(|(t, _)| t).collect()
}

type Pair = (usize, usize);

/// The words as symbols, and where each pair of neighbours occurs.
struct Merges {
    symbols: Vec<String>,
    words: Vec<(Vec<usize>, u64)>,
    counts: HashMap<Pair, u64>,
    places: HashMap<Pair, BTreeSet<usize>>,
}

impl Merges {
    fn new(words: &BTreeMap<String, u64>, alphabet: &BTreeSet<String>) -> Self {
        let symbols: Vec<String> = alphabet.iter().cloned().collect();
        let mut merges = Self {
            symbols,
            words: Vec::new(),
            counts: HashMap::new(),
            places: HashMap::new(),
        };
        for (word, &count) in words {
            // A word with a character outside the alphabet is unknown anyway.
            let ids: Option<Vec<usize>> = characters(word)
                .map(|token| merges.symbols.binary_search(&token).ok())
                .collect();
            if let Some(ids) = ids {
                merges.words.push((ids, count));
                merges.register(merges.words.len() - 1);
            }
        }
        merges
    }

    /// Adds the pairs of a word to the counts.
    fn register(&mut self, word: usize) {
        let (ids, count) = &self.words[word];
        for pair in ids.windows(2).map(|w| (w[0], w[1])) {
            *self.counts.entry(pair).or_insert(0) += count;
            self.places.entry(pair).or_default().insert(word);
        }
    }

    /// Takes the pairs of a word out of the counts.
    fn unregister(&mut self, word: usize) {
        let (ids, count) = &self.words[word];
        for pair in ids.windows(2).map(|w| (w[0], w[1])) {
            if let Some(total) = self.counts.get_mut(&pair) {
                *total -= count;
                if *total == 0 {
                    self.counts.remove(&pair);
                }
            }
            if let Some(words) = self.places.get_mut(&pair) {
                words.remove(&word);
            }
        }
    }

    /// The most frequent pair that occurs at least twice; of several the one that sorts first.
    fn best(&self) -> Option<Pair> {
        let text = |pair: &Pair| (&self.symbols[pair.0], &self.symbols[pair.1]);
        self.counts
            .iter()
            .filter(|(_, count)| **count >= 2)
            .max_by(|(a, left), (b, right)| left.cmp(right).then_with(|| text(b).cmp(&text(a))))
            .map(|(&pair, _)| pair)
    }

    /// Joins the pair wherever it occurs, left to right, and gives the text of the new symbol.
    fn join(&mut self, pair: Pair) -> String {
        let right = self.symbols[pair.1].clone();
        let joined = format!(
            "{}{}",
            self.symbols[pair.0],
            right.strip_prefix(CONTINUES).unwrap_or(&right)
        );
        // Two pairs can join to the same text; it stays one symbol.
        let symbol = self
            .symbols
            .iter()
            .position(|known| *known == joined)
            .unwrap_or_else(|| {
                self.symbols.push(joined.clone());
                self.symbols.len() - 1
            });
        for word in self.places.remove(&pair).unwrap_or_default() {
            self.unregister(word);
            let old = std::mem::take(&mut self.words[word].0);
            let mut new = Vec::with_capacity(old.len());
            let mut rest = old.as_slice();
            while let [first, tail @ ..] = rest {
                if *first == pair.0 && tail.first() == Some(&pair.1) {
                    new.push(symbol);
                    rest = &tail[1..];
                } else {
                    new.push(*first);
                    rest = tail;
                }
            }
            self.words[word].0 = new;
            self.register(word);
        }
        joined
    }
}
