//! BERT's WordPiece tokenizer from a vocabulary, and a vocabulary learned from text.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Tokenizer,
};

use crate::error::{Error, Result};
use crate::limits::LONGEST_LINE;
use crate::tokenizer_config;

/// The special tokens of BERT, in the order of a learned vocabulary: padding has id 0.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Marks a token that continues a word.
const CONTINUES: &str = "##";

/// Characters of the longest word that is learned from: WordPiece takes longer ones as unknown.
const LONGEST_WORD: usize = 100;

/// How a BERT tokenizer prepares text, as `tokenizer_config.json` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BertConfig {
    /// Whether case is dropped.
    pub lower_case: bool,
    /// Whether accents are dropped; `None`: if case is.
    pub strip_accents: Option<bool>,
    /// Whether each Chinese character is a word.
    pub chinese_characters: bool,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            lower_case: true,
            strip_accents: None,
            chinese_characters: true,
        }
    }
}

impl BertConfig {
    /// Reads `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` from the folder's
    /// `tokenizer_config.json`; what is absent keeps its default.
    ///
    /// # Errors
    /// If the file exists but cannot be read as JSON.
    pub fn from_folder(dir: &Path) -> Result<Self> {
        let mut config = Self::default();
        let Some(json) = tokenizer_config::read(dir)? else {
            return Ok(config);
        };
        let flag = |name: &str| json.get(name).and_then(serde_json::Value::as_bool);
        config.lower_case = flag("do_lower_case").unwrap_or(config.lower_case);
        config.strip_accents = flag("strip_accents");
        config.chinese_characters =
            flag("tokenize_chinese_chars").unwrap_or(config.chinese_characters);
        Ok(config)
    }

    fn normalizer(self) -> BertNormalizer {
        BertNormalizer::new(
            true,
            self.chinese_characters,
            self.strip_accents,
            self.lower_case,
        )
    }
}

fn failed(reason: impl ToString) -> Error {
    Error::Tokenizer {
        path: None,
        reason: reason.to_string(),
    }
}

/// A BERT tokenizer with the vocabulary of a `vocab.txt`: a token a line, its id the line number
/// from 0. Texts become `[CLS] text [SEP]`, pairs `[CLS] first [SEP] second [SEP]`.
///
/// # Errors
/// If the vocabulary is not UTF-8 or lacks `[UNK]`, `[CLS]` or `[SEP]`.
pub fn bert_tokenizer(vocabulary: &[u8], config: BertConfig) -> Result<Tokenizer> {
    let tokens = WordPiece::read_bytes(vocabulary).map_err(failed)?;
    let id = |token: &str| {
        tokens.get(token).copied().ok_or_else(|| {
            failed(format!(
                "no token {token} among {}; is this a BERT vocabulary?",
                tokens.len()
            ))
        })
    };
    id("[UNK]")?;
    let (cls, sep) = (id("[CLS]")?, id("[SEP]")?);
    let special: Vec<AddedToken> = SPECIAL
        .iter()
        .filter(|&&token| tokens.contains_key(token))
        .map(|&token| AddedToken::from(token, true))
        .collect();
    let model = WordPiece::builder().vocab(tokens).build().map_err(failed)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(config.normalizer()))
        .map_err(failed)?
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(BertProcessing::new(
            ("[SEP]".to_string(), sep),
            ("[CLS]".to_string(), cls),
        )))
        .with_decoder(Some(tokenizers::decoders::wordpiece::WordPiece::default()));
    tokenizer.add_special_tokens(special).map_err(failed)?;
    Ok(tokenizer)
}

/// Learns a lower-casing BERT tokenizer with at most `vocab_size` tokens from `texts`.
///
/// Byte-pair encoding on words (Sennrich et al., 2016): start from the characters, then join the
/// most frequent pair of neighbours until the vocabulary is full or no pair occurs twice. Among
/// equally frequent pairs the one that sorts first is joined, so the result depends on the texts
/// alone, not on a hash order.
///
/// Words of more than 100 characters are left out: WordPiece takes them as unknown.
///
/// # Errors
/// If `vocab_size` has no room for the special tokens and the most frequent character, or a text is
/// longer than [`LONGEST_LINE`] bytes.
pub fn learn_wordpiece<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    vocab_size: usize,
) -> Result<Tokenizer> {
    let config = BertConfig::default();
    let words = count_words(texts, config)?;
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
    let alphabet = alphabet(&words, vocab_size - tokens.len());
    tokens.extend(alphabet.iter().cloned());
    let mut merges = Merges::new(&words, &alphabet);
    let mut known: BTreeSet<String> = alphabet;
    while tokens.len() < vocab_size {
        let Some(pair) = merges.best() else { break };
        let joined = merges.join(pair);
        if known.insert(joined.clone()) {
            tokens.push(joined);
        }
    }
    bert_tokenizer(tokens.join("\n").as_bytes(), config)
}

/// How often each word occurs after normalisation.
fn count_words<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    config: BertConfig,
) -> Result<BTreeMap<String, u64>> {
    let normalizer = config.normalizer();
    let mut words = BTreeMap::new();
    for text in texts {
        if text.len() > LONGEST_LINE {
            let length = text.len();
            return Err(failed(format!(
                "a text of {length} bytes, of at most {LONGEST_LINE}; cut it"
            )));
        }
        let mut text = NormalizedString::from(text);
        normalizer.normalize(&mut text).map_err(failed)?;
        let mut pieces = PreTokenizedString::from(text);
        BertPreTokenizer.pre_tokenize(&mut pieces).map_err(failed)?;
        for (word, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            if !word.is_empty() && word.chars().nth(LONGEST_WORD).is_none() {
                *words.entry(word.to_string()).or_insert(0) += 1;
            }
        }
    }
    Ok(words)
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
