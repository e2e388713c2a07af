//! From rows of text to token ids.

use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};
use tokenizers::{
    Encoding, ModelWrapper, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy,
};

use crate::around::Around;
use crate::border::guarded;
use crate::byte_level;
use crate::error::{Error, Result};
use crate::excerpt::reason;
use crate::expansion;
use crate::glue::{Label, Row};
use crate::limits::{self, LARGEST_TOKENIZER, LONGEST_LINE};
use crate::tokenizer_config;
use crate::wordpiece;

/// Rows encoded at a time: enough for the threads.
const PIECE: usize = 1024;
/// One example as token ids.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// The tokens, special ones included; at most the encoder's maximum length.
    pub ids: Vec<u32>,
    /// For each token 0 if it belongs to the first sentence, 1 if to the second; 0 for all where transformers'
    /// tokenizer gives none.
    pub types: Vec<u32>,
    /// The answer, carried along.
    pub label: Option<Label>,
}

/// The tokens of a sentence, and for each the word it is a piece of; `None` for special ones.
pub type WordPieces = (Encoded, Vec<Option<u32>>);

/// A tokenizer with fixed settings: truncation to a maximum length, no padding.
///
/// Published tokenizer files often have a length and a padding baked in; both are overruled, as
/// padding is [`collate`](crate::collate::collate)'s work.
#[derive(Debug, Clone)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    max_length: usize,
    pad_id: u32,
    largest_id: u32,
    /// How many times longer its steps may make a text before it is cut.
    factor: f64,
    /// Whether it may leave most of a model's vocabulary unused.
    small: bool,
    /// Whether tokens have types: a model that never saw any must not get them.
    types: bool,
    /// The settings that it came with.
    config: Option<Map<String, Value>>,
}

pub(crate) fn tokenizer_error(path: Option<&Path>, why: impl ToString) -> Error {
    Error::Tokenizer {
        path: path.map(Path::to_path_buf),
        reason: reason(why),
    }
}

/// Calls the tokenizers crate, which panics on some files and texts.
pub(crate) fn called<T>(
    path: Option<&Path>,
    call: impl FnOnce() -> tokenizers::Result<T>,
) -> Result<T> {
    guarded(call)
        .map_err(|panic| tokenizer_error(path, panic))?
        .map_err(|e| tokenizer_error(path, e))
}

/// The tokenizer of a tokenizer.json; why it is none. (As text: what reads bytes is generic, and so compiled here once
/// more.)
pub(crate) fn of_json(bytes: &[u8]) -> std::result::Result<Tokenizer, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let read = guarded(|| text.parse::<Tokenizer>().map_err(|e| e.to_string()));
    read.flatten().map_err(reason)
}

impl TextEncoder {
    /// An encoder around a tokenizer; `max_length` is in tokens, special ones included.
    ///
    /// Of a pair that is too long, the longer sentence is cut at its end, token by token.
    ///
    /// # Errors
    /// If `max_length` leaves no room for text, the vocabulary is empty, or the tokenizer puts no
    /// special tokens around a text: the models read theirs.
    pub fn new(tokenizer: Tokenizer, max_length: usize) -> Result<Self> {
        Self::prepared(tokenizer, max_length, None)
    }

    fn prepared(mut tokenizer: Tokenizer, max_length: usize, path: Option<&Path>) -> Result<Self> {
        // Merges that are left out by lot would give a text other tokens each time.
        if let ModelWrapper::BPE(model) = tokenizer.get_model()
            && model.dropout.is_some()
        {
            let mut model = model.clone();
            model.dropout = None;
            tokenizer.with_model(model);
        }
        let pad_id = pad_id(&tokenizer);
        tokenizer.with_padding(None);
        called(path, || tokenizer.with_truncation(None).map(|_| ()))?;
        let around = Around::of(&tokenizer, path)?;
        let special = around.most;
        if max_length <= special + 1 {
            return Err(Error::Setting {
                name: "max_length",
                got: max_length.to_string(),
                expected: format!(
                    "more than {}: a text or a pair has {special} special tokens",
                    special + 1
                ),
            });
        }
        let ids = tokenizer.get_vocab(true).into_values();
        let largest_id = ids.chain(around.ids).max();
        let largest_id = largest_id.filter(|_| tokenizer.get_vocab_size(true) > 0);
        let largest_id = largest_id.ok_or_else(|| {
            tokenizer_error(path, "the vocabulary is empty; pass a trained tokenizer")
        })?;
        let truncation = TruncationParams {
            direction: TruncationDirection::Right,
            max_length,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        called(path, || {
            tokenizer.with_truncation(Some(truncation)).map(|_| ())
        })?;
        Ok(Self {
            tokenizer,
            max_length,
            pad_id,
            largest_id,
            factor: 1.0,
            small: false,
            types: around.types,
            config: None,
        })
    }

    /// With what the files beside the tokenizer say.
    fn with_settings(mut self, config: Option<Map<String, Value>>, dir: &Path) -> Self {
        self.types &= tokenizer_config::gives_types(config.as_ref(), dir);
        self.config = config;
        self
    }

    /// Lets [`TextEncoder::check`] pass where most of the model's vocabulary stays unused.
    pub fn allow_small_vocabulary(mut self) -> Self {
        self.small = true;
        self
    }

    /// For [`TextEncoder::encode_words`]: byte-level vocabularies (GPT-2's, RoBERTa's) tell the beginning of
    /// a word by the blank before it, so every word gets one. Others stay as they are.
    pub fn for_words(mut self) -> Self {
        tokenizer_config::put_blank_before(&mut self.tokenizer);
        self
    }

    /// Writes `tokenizer.json` into a folder, as transformers and [`TextEncoder::from_folder`] read it, and
    /// `tokenizer_config.json` with what transformers would otherwise take as the model's kind has it by
    /// default, such as whether case is dropped and whether there are types of tokens. A DistilBERT, which takes no types,
    /// is known by the `config.json` in the folder, so that is written first.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let path = dir.join("tokenizer.json");
        let saved = self.tokenizer.save(&path, true);
        saved.map_err(|e| tokenizer_error(Some(&path), e))?;
        tokenizer_config::write(&self.tokenizer, self.config.as_ref(), self.types, dir)
    }

    /// The length that a folder's `tokenizer.json` cuts texts at: the one that [`TextEncoder::save`] wrote beside a
    /// model that was trained with it. `None` where there is no such file, or it cuts nothing.
    ///
    /// # Errors
    /// If the file cannot be read, or is too long; whether it is whole says [`TextEncoder::from_folder`].
    pub fn saved_length(dir: &Path) -> Result<Option<usize>> {
        let path = dir.join("tokenizer.json");
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = limits::read(&path, LARGEST_TOKENIZER)?;
        let file: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let length = file["truncation"]["max_length"].as_u64();
        Ok(length.and_then(|length| usize::try_from(length).ok()))
    }

    /// The tokenizer of a model's folder: `tokenizer.json`, else `vocab.txt` as a BERT tokenizer, else `vocab.json` with
    /// `merges.txt` as a RoBERTa tokenizer.
    ///
    /// As in transformers, `tokenizer_config.json` goes before either where it says how a BERT tokenizer prepares text
    /// (`do_lower_case`, `strip_accents`, `tokenize_chinese_chars`), and a tokenizer whose `model_input_names` have no
    /// `token_type_ids`, or that is DistilBERT's, gives all tokens type 0.
    ///
    /// # Errors
    /// If there is none of them, one is malformed, or for the reasons of [`TextEncoder::new`].
    pub fn from_folder(dir: &Path, max_length: usize) -> Result<Self> {
        let whole = dir.join("tokenizer.json");
        if whole.is_file() {
            let bytes = limits::read(&whole, LARGEST_TOKENIZER)?;
            return Self::of_whole(&bytes, &whole, dir, max_length);
        }
        let vocabulary = dir.join("vocab.txt");
        if !vocabulary.is_file() {
            let files = byte_level::files(dir).ok_or_else(|| Error::NotFound {
                what: "tokenizer".to_string(),
                dir: dir.to_path_buf(),
                tried: "tokenizer.json, vocab.txt, vocab.json with merges.txt".to_string(),
            })?;
            let json = byte_level::tokenizer_json(dir, &files)?.to_string();
            return Self::of_whole(json.as_bytes(), &files[0], dir, max_length);
        }
        let bytes = limits::read(&vocabulary, LARGEST_TOKENIZER)?;
        let config = wordpiece::BertConfig::from_folder(dir)?;
        let tokenizer = guarded(|| wordpiece::bert_tokenizer(&bytes, config));
        let tokenizer = tokenizer.unwrap_or_else(|panic| Err(tokenizer_error(None, panic)));
        let tokenizer = tokenizer.map_err(|error| match error {
            Error::Tokenizer { reason, .. } => tokenizer_error(Some(&vocabulary), reason),
            other => other,
        })?;
        tokenizer_config::expect_bert(dir, tokenizer.get_vocab_size(false))?;
        let encoder = Self::prepared(tokenizer, max_length, Some(&vocabulary))?;
        Ok(encoder.with_settings(tokenizer_config::read(dir)?, dir))
    }

    /// The tokenizer of a `tokenizer.json` with this contents, which comes of `path`, and the settings of its folder.
    fn of_whole(bytes: &[u8], path: &Path, dir: &Path, max_length: usize) -> Result<Self> {
        let factor = expansion::factor(&serde_json::from_slice(bytes).unwrap_or_default());
        expansion::fits(1, factor, Some(path))?;
        let mut tokenizer = of_json(bytes).map_err(|why| Error::Tokenizer {
            path: Some(path.to_path_buf()),
            reason: format!("{why}; is it the tokenizer.json of a fast tokenizer, and whole?"),
        })?;
        let config = tokenizer_config::read(dir)?;
        if let Some(settings) = &config {
            called(Some(path), || {
                tokenizer_config::apply(settings, &mut tokenizer)
            })?;
        }
        let mut encoder = Self::prepared(tokenizer, max_length, Some(path))?;
        encoder.factor = factor;
        Ok(encoder.with_settings(config, dir))
    }

    /// The token ids of one row; a pair as `[CLS] first [SEP] second [SEP]`, or as the tokenizer
    /// has it.
    ///
    /// # Errors
    /// If the tokenizer refuses the text, it is longer than [`LONGEST_LINE`] bytes, or the tokenizer's
    /// replacements may make it longer than 8 MiB.
    pub fn encode(&self, row: &Row) -> Result<Encoded> {
        let first = row.first.as_str();
        let second = row.second.as_deref();
        self.fits(first.len().max(second.map_or(0, str::len)))?;
        let encoding = called(None, || match second {
            Some(second) => self.tokenizer.encode_fast((first, second), true),
            None => self.tokenizer.encode_fast(first, true),
        })?;
        self.encoded(&encoding, row.label)
    }

    /// [`TextEncoder::encode`] for many rows, in their order, on several threads.
    ///
    /// # Errors
    /// If the tokenizer refuses a text; of several, the first.
    pub fn encode_many(&self, rows: &[Row]) -> Result<Vec<Encoded>> {
        in_pieces(rows, |row| self.encode(row))
    }

    /// The token ids of sentences that are cut into words already, in their order, on several
    /// threads; for each id the word it belongs to, from 0, and `None` for special tokens.
    ///
    /// A word behind the maximum length, or one that is nothing to the tokenizer, has no id.
    ///
    /// # Errors
    /// If the tokenizer refuses a word, or a sentence is longer than [`LONGEST_LINE`] bytes; of several
    /// errors, the first.
    pub fn encode_words(&self, sentences: &[&[String]]) -> Result<Vec<WordPieces>> {
        in_pieces(sentences, |words| {
            self.fits(words.iter().map(String::len).sum())?;
            // The fast one does not tell the words.
            let encoding = called(None, || self.tokenizer.encode(*words, true))?;
            let made = self.encoded(&encoding, None)?;
            Ok((made, encoding.get_word_ids().to_vec()))
        })
    }

    /// All token ids of each text, without special ones and without a maximum length, in their order, on several
    /// threads.
    ///
    /// # Errors
    /// As [`TextEncoder::encode`].
    pub fn pieces(&self, texts: &[String]) -> Result<Vec<Vec<u32>>> {
        let mut whole = self.tokenizer.clone();
        called(None, || whole.with_truncation(None).map(|_| ()))?;
        in_pieces(texts, |text| {
            self.fits(text.len())?;
            let encoding = called(None, || whole.encode_fast(text.as_str(), false))?;
            Ok(encoding.get_ids().to_vec())
        })
    }

    /// A checksum of everything that a text's pieces depend on; not of how long a text may be for a model.
    ///
    /// # Errors
    /// If the tokenizer cannot be written.
    pub fn checksum(&self) -> Result<u32> {
        let mut tokenizer = self.tokenizer.clone();
        called(None, || tokenizer.with_truncation(None).map(|_| ()))?;
        tokenizer.with_padding(None);
        let json = called(None, || tokenizer.to_string(false))?;
        let mut crc = flate2::Crc::new();
        crc.update(json.as_bytes());
        Ok(crc.sum())
    }

    fn fits(&self, length: usize) -> Result<()> {
        fits(length)?;
        expansion::fits(length, self.factor, None)
    }

    /// Whatever a tokenizer's file may ask for, a model has no position behind the maximum length.
    fn encoded(&self, encoding: &Encoding, label: Option<Label>) -> Result<Encoded> {
        let ids = encoding.get_ids().to_vec();
        if ids.len() > self.max_length {
            let why = format!(
                "it made {} tokens of a text, of at most {}; take the tokenizer.json that came with the model",
                ids.len(),
                self.max_length
            );
            return Err(tokenizer_error(None, why));
        }
        let types = match self.types {
            true => encoding.get_type_ids().to_vec(),
            false => vec![0; ids.len()],
        };
        Ok(Encoded { ids, types, label })
    }

    /// The number of embeddings a model needs: the largest token id plus one.
    pub fn vocab_size(&self) -> usize {
        self.largest_id as usize + 1
    }

    /// The id that fills up a batch: the file's padding token, else `[PAD]` or `<pad>`, else 0
    /// (padding is masked, so any id does).
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// The maximum number of tokens of an example.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The tokenizer with its settings, for saving beside a model.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Checks that a model with `vocab_size` embeddings and `positions` positions can take every
    /// example this encoder makes, and that the tokenizer looks like the model's own.
    ///
    /// # Errors
    /// If it cannot, or if more than nine tenths of the vocabulary have no token (see
    /// [`TextEncoder::allow_small_vocabulary`]); the error names both numbers.
    pub fn check(&self, vocab_size: usize, positions: usize) -> Result<()> {
        if self.largest_id as usize >= vocab_size {
            return Err(Error::VocabularyTooSmall {
                largest: self.largest_id,
                vocab_size,
            });
        }
        if !self.small && self.vocab_size() < vocab_size / 10 {
            return Err(Error::VocabularyTooLarge {
                tokens: self.vocab_size(),
                vocab_size,
            });
        }
        if self.max_length > positions {
            return Err(Error::TooLong {
                max_length: self.max_length,
                positions,
            });
        }
        Ok(())
    }
}

/// Refuses a text that no line of a file is as long as.
pub(crate) fn fits(length: usize) -> Result<()> {
    match length {
        ..=LONGEST_LINE => Ok(()),
        _ => Err(tokenizer_error(
            None,
            format!("a text of {length} bytes, of at most {LONGEST_LINE}; cut it"),
        )),
    }
}

/// Encodes each item, in their order, on several threads: some at a time, so that an error ends the work,
/// and is that of the first item.
fn in_pieces<T: Sync, E: Send>(
    items: &[T],
    encode: impl Fn(&T) -> Result<E> + Sync,
) -> Result<Vec<E>> {
    let mut all = Vec::with_capacity(items.len());
    for piece in items.chunks(PIECE) {
        let made: Vec<_> = piece.par_iter().map(&encode).collect();
        for encoded in made {
            all.push(encoded?);
        }
    }
    Ok(all)
}

/// See [`TextEncoder::pad_id`]; the file's own padding is looked at before it is switched off.
fn pad_id(tokenizer: &Tokenizer) -> u32 {
    let own = tokenizer.get_padding().map(|p| p.pad_token.as_str());
    own.into_iter()
        .chain(["[PAD]", "<pad>"])
        .find_map(|token| tokenizer.token_to_id(token))
        .unwrap_or(0)
}
