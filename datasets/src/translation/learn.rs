//! Learns the subwords of two languages together: byte-pair encoding (Sennrich et al., 2016).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use super::Subwords;
use super::dictionary::SPECIAL;
use super::is_blank;
use super::learned::BLANK;
use super::merge::UNKNOWN;
use crate::error::{Error, Result};
use crate::limits::MOST_SYMBOLS;
use crate::text::fits;

/// Characters of the longest word that is learned from.
const LONGEST_WORD: usize = 100;

type Symbols = (u32, u32);

/// Learns at most `vocabulary` subwords, special ones included, from lines of both languages.
///
/// Words are what stands between blanks, with `▁` in front. They start as characters; the most frequent pair of
/// neighbours is joined until the vocabulary is full or no pair occurs twice; of equally frequent pairs that of the
/// older subwords is. So the result depends on the lines alone, not on their order. The `(vocabulary - 4) / 2` most
/// frequent characters are kept, others are unknown. Words of more than 100 characters are not learned from.
///
/// Memory: all different words of the lines.
///
/// # Errors
/// If `vocabulary` is below 6 or above [`MOST_SYMBOLS`], there is no word, or a line is longer than
/// [`LONGEST_LINE`](crate::limits::LONGEST_LINE) bytes.
pub fn learn_subwords<S: AsRef<str>>(
    lines: impl IntoIterator<Item = S>,
    vocabulary: usize,
) -> Result<Subwords> {
    try_learn_subwords(lines.into_iter().map(Ok), vocabulary)
}

/// [`learn_subwords`] from lines that may fail to be read.
///
/// # Errors
/// For the reasons of [`learn_subwords`], and the first error of the lines.
pub fn try_learn_subwords<S: AsRef<str>>(
    lines: impl IntoIterator<Item = Result<S>>,
    vocabulary: usize,
) -> Result<Subwords> {
    let few = SPECIAL.len() + 2;
    if !(few..=MOST_SYMBOLS).contains(&vocabulary) {
        return Err(Error::Setting {
            name: "vocabulary",
            got: vocabulary.to_string(),
            expected: format!("{few} to {MOST_SYMBOLS} subwords, of which 4 are special"),
        });
    }
    let words = count_words(lines)?;
    let mut learner = Learner::new(&words, vocabulary);
    while learner.tokens.len() < vocabulary {
        let Some(pair) = learner.best() else { break };
        learner.join(pair);
    }
    Subwords::of_merges(&learner.tokens, &learner.merges)
}

/// How often each word occurs, with its blank.
fn count_words<S: AsRef<str>>(
    lines: impl IntoIterator<Item = Result<S>>,
) -> Result<BTreeMap<String, u64>> {
    let mut words = BTreeMap::new();
    for (number, line) in lines.into_iter().enumerate() {
        let line = line?;
        let line = line.as_ref();
        let in_line = |why| Error::Setting {
            name: "lines",
            got: format!("line {number}, counted from 0"),
            expected: format!("text to learn from: {why}"),
        };
        fits(line.len()).map_err(in_line)?;
        for word in line.split(is_blank).filter(|word| !word.is_empty()) {
            if word.chars().nth(LONGEST_WORD).is_some() {
                continue;
            }
            match words.get_mut(word) {
                Some(count) => *count += 1,
                None => _ = words.insert(word.to_string(), 1),
            }
        }
    }
    if words.is_empty() {
        return Err(Error::Setting {
            name: "lines",
            got: "no words".to_string(),
            expected: "sentences to learn subwords from".to_string(),
        });
    }
    Ok(words)
}

/// The words as symbols, and where each pair of neighbours occurs.
struct Learner {
    /// The subwords by their ids.
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    merges: Vec<(String, String)>,
    words: Vec<(Vec<u32>, u64)>,
    counts: HashMap<Symbols, u64>,
    /// The words that have, or had, a pair.
    places: HashMap<Symbols, Vec<usize>>,
    /// Pairs with a count that they have, or had.
    queue: BinaryHeap<(u64, Reverse<Symbols>)>,
}

impl Learner {
    fn new(words: &BTreeMap<String, u64>, vocabulary: usize) -> Self {
        let alphabet = alphabet(words, (vocabulary - SPECIAL.len()) / 2);
        let special = SPECIAL.iter().map(ToString::to_string);
        let tokens: Vec<String> = special
            .chain(alphabet.iter().map(char::to_string))
            .collect();
        let numbered = tokens.iter().cloned().zip(0..);
        let mut learner = Self {
            ids: numbered.collect(),
            merges: Vec::new(),
            words: Vec::with_capacity(words.len()),
            counts: HashMap::new(),
            places: HashMap::new(),
            queue: BinaryHeap::new(),
            tokens,
        };
        let first = SPECIAL.len() as u32;
        let numbers: HashMap<char, u32> = alphabet.into_iter().zip(first..).collect();
        for (word, &count) in words {
            let symbols = std::iter::once(BLANK).chain(word.chars());
            let symbols = symbols.map(|c| numbers.get(&c).copied().unwrap_or(UNKNOWN));
            let symbols: Vec<u32> = symbols.collect();
            for pair in pairs(&symbols) {
                *learner.counts.entry(pair).or_insert(0) += count;
                learner
                    .places
                    .entry(pair)
                    .or_default()
                    .push(learner.words.len());
            }
            learner.words.push((symbols, count));
        }
        let counts = learner.counts.iter();
        learner.queue = counts
            .map(|(&pair, &count)| (count, Reverse(pair)))
            .collect();
        learner
    }

    /// The most frequent pair that occurs at least twice; of several that of the smallest ids.
    fn best(&mut self) -> Option<Symbols> {
        while let Some((noted, Reverse(pair))) = self.queue.pop() {
            let count = self.counts.get(&pair).copied().unwrap_or(0);
            if count < 2 {
                continue;
            }
            if count < noted {
                self.queue.push((count, Reverse(pair)));
            } else if count == noted && !self.is_special(pair) {
                return Some(pair);
            }
            // One that has grown is in the queue with what it has now.
        }
        None
    }

    /// Whether a pair would become what stands for a special token.
    fn is_special(&self, pair: Symbols) -> bool {
        SPECIAL.contains(&self.text(pair).as_str())
    }

    fn text(&self, pair: Symbols) -> String {
        let text = |symbol: u32| self.tokens.get(symbol as usize).map_or("", String::as_str);
        [text(pair.0), text(pair.1)].concat()
    }

    /// Joins a pair wherever it occurs.
    fn join(&mut self, pair: Symbols) {
        let text = self.text(pair);
        let (left, right) = (
            self.tokens[pair.0 as usize].clone(),
            self.tokens[pair.1 as usize].clone(),
        );
        self.merges.push((left, right));
        // Two pairs can become the same text; it stays one subword.
        let symbol = self.ids.get(&text).copied().unwrap_or_else(|| {
            let symbol = self.tokens.len() as u32;
            self.tokens.push(text.clone());
            self.ids.insert(text, symbol);
            symbol
        });
        let mut places = self.places.remove(&pair).unwrap_or_default();
        places.sort_unstable();
        places.dedup();
        let mut grown = BTreeSet::new();
        for place in places {
            let (word, count) = std::mem::take(&mut self.words[place]);
            for old in pairs(&word) {
                self.take(old, count);
            }
            let word = joined(&word, pair, symbol);
            for new in pairs(&word) {
                *self.counts.entry(new).or_insert(0) += count;
                if new.0 == symbol || new.1 == symbol {
                    self.places.entry(new).or_default().push(place);
                    grown.insert(new);
                }
            }
            self.words[place] = (word, count);
        }
        let counted = grown
            .into_iter()
            .filter_map(|pair| Some((*self.counts.get(&pair)?, Reverse(pair))));
        self.queue.extend(counted);
    }

    fn take(&mut self, pair: Symbols, count: u64) {
        if let Some(total) = self.counts.get_mut(&pair) {
            *total = total.saturating_sub(count);
            if *total == 0 {
                self.counts.remove(&pair);
            }
        }
    }
}

/// The neighbours of a word that are in the alphabet.
fn pairs(word: &[u32]) -> impl Iterator<Item = Symbols> + '_ {
    let pairs = word.windows(2).map(|pair| (pair[0], pair[1]));
    pairs.filter(|pair| pair.0 != UNKNOWN && pair.1 != UNKNOWN)
}

fn joined(word: &[u32], pair: Symbols, symbol: u32) -> Vec<u32> {
    let mut new = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == pair.0 && tail.first() == Some(&pair.1) {
            new.push(symbol);
            rest = &tail[1..];
        } else {
            new.push(*first);
        }
    }
    new
}

/// The blank and the most frequent characters, sorted; of equally frequent ones those that sort first.
fn alphabet(words: &BTreeMap<String, u64>, limit: usize) -> BTreeSet<char> {
    let mut counts: BTreeMap<char, u64> = BTreeMap::new();
    for (word, count) in words {
        for c in word.chars() {
            *counts.entry(c).or_insert(0) += count;
        }
    }
    counts.remove(&BLANK);
    let mut ranked: Vec<(char, u64)> = counts.into_iter().collect();
    ranked.sort_by_key(|(_, count)| Reverse(*count));
    let most = ranked
        .into_iter()
        .take(limit.saturating_sub(1))
        .map(|(c, _)| c);
    most.chain([BLANK]).collect()
}
