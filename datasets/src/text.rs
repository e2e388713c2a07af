//! From rows of text to token ids.

use std::path::Path;

use tokenizers::{
    PostProcessor, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy,
};

use crate::error::{Error, Result};
use crate::glue::{Label, Row};
use crate::wordpiece;

/// Rows encoded at a time: enough for the threads, little enough to keep memory low.
const CHUNK: usize = 1024;

/// One example as token ids.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// The tokens, special ones included; at most the encoder's maximum length.
    pub ids: Vec<u32>,
    /// For each token 0 if it belongs to the first sentence, 1 if to the second.
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
}

fn tokenizer_error(path: Option<&Path>, reason: impl ToString) -> Error {
    Error::Tokenizer {
        path: path.map(Path::to_path_buf),
        reason: reason.to_string(),
    }
}

impl TextEncoder {
    /// An encoder around a tokenizer; `max_length` is in tokens, special ones included.
    ///
    /// Of a pair that is too long, the longer sentence is cut at its end, token by token.
    ///
    /// # Errors
    /// If `max_length` leaves no room for text, or the vocabulary is empty.
    pub fn new(mut tokenizer: Tokenizer, max_length: usize) -> Result<Self> {
        let special = tokenizer
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(true));
        if max_length <= special + 1 {
            return Err(Error::Setting {
                name: "max_length",
                got: max_length.to_string(),
                expected: format!(
                    "more than {}: a pair has {special} special tokens",
                    special + 1
                ),
            });
        }
        let pad_id = pad_id(&tokenizer);
        tokenizer.with_padding(None);
        let ids = tokenizer.get_vocab(true);
        let largest_id = ids.into_values().max().ok_or_else(|| {
            tokenizer_error(None, "the vocabulary is empty; pass a trained tokenizer")
        })?;
        let truncation = TruncationParams {
            direction: TruncationDirection::Right,
            max_length,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        tokenizer
            .with_truncation(Some(truncation))
            .map_err(|e| tokenizer_error(None, e))?;
        Ok(Self {
            tokenizer,
            max_length,
            pad_id,
            largest_id,
        })
    }

    /// Writes `tokenizer.json` into a folder, as transformers and [`TextEncoder::from_folder`] read it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let path = dir.join("tokenizer.json");
        let saved = self.tokenizer.save(&path, true);
        saved.map_err(|e| tokenizer_error(Some(&path), e))
    }

    /// The tokenizer of a model's folder: `tokenizer.json`, else `vocab.txt` with the settings of
    /// `tokenizer_config.json` as a BERT tokenizer.
    ///
    /// # Errors
    /// If there is neither file, one is malformed, or for the reasons of [`TextEncoder::new`].
    pub fn from_folder(dir: &Path, max_length: usize) -> Result<Self> {
        let whole = dir.join("tokenizer.json");
        if whole.is_file() {
            let bytes = std::fs::read(&whole).map_err(|e| Error::io(&whole, e))?;
            let tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| {
                tokenizer_error(
                    Some(&whole),
                    format!("{e}; is it the tokenizer.json of a fast tokenizer, and whole?"),
                )
            })?;
            return Self::new(tokenizer, max_length);
        }
        let vocabulary = dir.join("vocab.txt");
        if !vocabulary.is_file() {
            return Err(Error::NotFound {
                what: "tokenizer".to_string(),
                dir: dir.to_path_buf(),
                tried: "tokenizer.json, vocab.txt".to_string(),
            });
        }
        let bytes = std::fs::read(&vocabulary).map_err(|e| Error::io(&vocabulary, e))?;
        let config = wordpiece::BertConfig::from_folder(dir)?;
        let tokenizer = wordpiece::bert_tokenizer(&bytes, config).map_err(|error| match error {
            Error::Tokenizer { reason, .. } => tokenizer_error(Some(&vocabulary), reason),
            other => other,
        })?;
        Self::new(tokenizer, max_length)
    }

    /// The token ids of one row; a pair as `[CLS] first [SEP] second [SEP]`, or as the tokenizer
    /// has it.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn encode(&self, row: &Row) -> Result<Encoded> {
        let first = row.first.as_str();
        let encoding = match &row.second {
            Some(second) => self.tokenizer.encode_fast((first, second.as_str()), true),
            None => self.tokenizer.encode_fast(first, true),
        };
        let encoding = encoding.map_err(|e| tokenizer_error(None, e))?;
        Ok(encoded(&encoding, row.label))
    }

    /// [`TextEncoder::encode`] for many rows, in their order, on several threads.
    ///
    /// # Errors
    /// If the tokenizer refuses a text.
    pub fn encode_many(&self, rows: &[Row]) -> Result<Vec<Encoded>> {
        let mut all = Vec::with_capacity(rows.len());
        for chunk in rows.chunks(CHUNK) {
            let inputs: Vec<tokenizers::EncodeInput<'_>> = chunk
                .iter()
                .map(|row| match &row.second {
                    Some(second) => (row.first.as_str(), second.as_str()).into(),
                    None => row.first.as_str().into(),
                })
                .collect();
            let encodings = self
                .tokenizer
                .encode_batch_fast(inputs, true)
                .map_err(|e| tokenizer_error(None, e))?;
            all.extend(
                encodings
                    .iter()
                    .zip(chunk)
                    .map(|(e, row)| encoded(e, row.label)),
            );
        }
        Ok(all)
    }

    /// The token ids of sentences that are cut into words already, in their order, on several
    /// threads; for each id the word it belongs to, from 0, and `None` for special tokens.
    ///
    /// A word behind the maximum length, or one that is nothing to the tokenizer, has no id.
    ///
    /// # Errors
    /// If the tokenizer refuses a word.
    pub fn encode_words(&self, sentences: &[&[String]]) -> Result<Vec<WordPieces>> {
        let mut all = Vec::with_capacity(sentences.len());
        for chunk in sentences.chunks(CHUNK) {
            let inputs: Vec<tokenizers::EncodeInput<'_>> =
                chunk.iter().map(|words| (*words).into()).collect();
            // The fast one does not tell the words.
            let encodings = self
                .tokenizer
                .encode_batch(inputs, true)
                .map_err(|e| tokenizer_error(None, e))?;
            all.extend(
                encodings
                    .iter()
                    .map(|e| (encoded(e, None), e.get_word_ids().to_vec())),
            );
        }
        Ok(all)
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
    /// example this encoder makes.
    ///
    /// # Errors
    /// If it cannot; the error names both numbers.
    pub fn check(&self, vocab_size: usize, positions: usize) -> Result<()> {
        if self.largest_id as usize >= vocab_size {
            return Err(Error::VocabularyTooSmall {
                largest: self.largest_id,
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

fn encoded(encoding: &tokenizers::Encoding, label: Option<Label>) -> Encoded {
    Encoded {
        ids: encoding.get_ids().to_vec(),
        types: encoding.get_type_ids().to_vec(),
        label,
    }
}

/// See [`TextEncoder::pad_id`]; the file's own padding is looked at before it is switched off.
fn pad_id(tokenizer: &Tokenizer) -> u32 {
    let own = tokenizer.get_padding().map(|p| p.pad_token.as_str());
    own.into_iter()
        .chain(["[PAD]", "<pad>"])
        .find_map(|token| tokenizer.token_to_id(token))
        .unwrap_or(0)
}
