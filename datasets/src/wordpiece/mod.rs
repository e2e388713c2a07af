//! BERT's WordPiece tokenizer from a vocabulary, and a vocabulary learned from text.

mod learned;

use std::path::Path;

use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{Error, Result};
use crate::tokenizer_config;

pub use learned::{WordCounts, learn_wordpiece};

/// The special tokens of BERT, in the order of a learned vocabulary: padding has id 0.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Marks a token that continues a word.
const CONTINUES: &str = "##";

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
