//! Subwords that were learned, as a `tokenizer.json` of Hugging Face.
//!
//! A file may ask for normalisers, patterns and templates that make any text of a text. So only what
//! [`learn_subwords`](super::learn_subwords) makes is accepted: byte-pair encoding of words with `▁` in front.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;

use serde_json::json;
use tokenizers::Tokenizer;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

use super::dictionary::SPECIAL;
use super::{is_blank, write};
use crate::error::Result;
use crate::limits::{self, LARGEST_TOKENIZER, MOST_SYMBOLS};
use crate::text::{called, fits, of_json, tokenizer_error};

/// Stands before each word, for the blank.
pub(super) const BLANK: char = '▁';
/// The id of what is unknown.
const UNK: u32 = 3;

/// A tokenizer whose kind was checked.
#[derive(Clone)]
pub(super) struct Learned {
    tokenizer: Tokenizer,
    /// The subwords by their ids.
    tokens: Vec<String>,
}

impl fmt::Debug for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Learned({} subwords)", self.tokens.len())
    }
}

impl Learned {
    /// The tokenizer of subwords by their ids, special ones first, and of merges, the first of them first.
    pub(super) fn of_merges(tokens: &[String], merges: &[(String, String)]) -> Result<Self> {
        let special = SPECIAL.iter().enumerate().map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        });
        let ids: BTreeMap<&String, usize> = tokens.iter().zip(0..).collect();
        let words = json!({"type": "Metaspace", "replacement": BLANK, "prepend_scheme": "always", "split": true});
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
            "added_tokens": special.collect::<Vec<_>>(), "pre_tokenizer": words, "decoder": words,
            "model": {"type": "BPE", "dropout": null, "unk_token": SPECIAL[UNK as usize],
                      "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                      "byte_fallback": false, "ignore_merges": false, "vocab": ids, "merges": merges},
        });
        Self::from_bytes(file.to_string().as_bytes(), None)
    }

    pub(super) fn from_file(path: &Path) -> Result<Self> {
        Self::from_bytes(&limits::read(path, LARGEST_TOKENIZER)?, Some(path))
    }

    pub(super) fn from_bytes(bytes: &[u8], path: Option<&Path>) -> Result<Self> {
        let mut tokenizer = of_json(bytes).map_err(|why| {
            let why = format!("{why}; is the tokenizer.json whole?");
            tokenizer_error(path, why)
        })?;
        if let Some(differs) = differs(&tokenizer) {
            let why = format!(
                "{differs}, which is not what learn_subwords makes; learn subwords of the text, or give a folder with \
                 fairseq's dict.txt"
            );
            return Err(tokenizer_error(path, why));
        }
        // What stands for a special token in a text is text.
        tokenizer.set_encode_special_tokens(true);
        let tokens = tokens(&tokenizer).map_err(|why| tokenizer_error(path, why))?;
        Ok(Self { tokenizer, tokens })
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let json = called(Some(path), || self.tokenizer.to_string(true))?;
        write::whole(path, |file| file.write_all(json.as_bytes()))
    }

    /// What the ids of a text are made with.
    pub(super) fn content(&self) -> Result<String> {
        called(None, || self.tokenizer.to_string(false))
    }

    /// The subwords by their ids.
    pub(super) fn tokens(&self) -> &[String] {
        &self.tokens
    }

    pub(super) fn encode(&self, line: &str) -> Result<Vec<u32>> {
        fits(line.len())?;
        let words: Vec<&str> = line
            .split(is_blank)
            .filter(|word| !word.is_empty())
            .collect();
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let text = words.join(" ");
        let encoding = called(None, || self.tokenizer.encode_fast(text.as_str(), false))?;
        let ids = encoding.get_ids().iter();
        Ok(ids.map(|&id| if id < UNK { UNK } else { id }).collect())
    }

    /// The text of ids, of which `<s>`, `<pad>` and `</s>` are nothing; `None` if there is no such id.
    pub(super) fn decode(&self, ids: &[u32]) -> Option<String> {
        let mut text = String::new();
        for &id in ids.iter().filter(|id| **id >= UNK) {
            text.push_str(self.tokens.get(id as usize)?);
        }
        let text = text.replace(BLANK, " ");
        Some(text.strip_prefix(' ').map(str::to_string).unwrap_or(text))
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
}

/// What a tokenizer has that a learned one has not.
fn differs(tokenizer: &Tokenizer) -> Option<&'static str> {
    let blank = Metaspace::new(BLANK, PrependScheme::Always, true);
    let words = matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::Metaspace(own)) if *own == blank);
    let decoder =
        matches!(tokenizer.get_decoder(), Some(DecoderWrapper::Metaspace(own)) if *own == blank);
    let ModelWrapper::BPE(model) = tokenizer.get_model() else {
        return Some("its model is not byte-pair encoding");
    };
    let plain = model.dropout.is_none()
        && model.continuing_subword_prefix.is_none()
        && model.end_of_word_suffix.is_none()
        && !(model.fuse_unk || model.byte_fallback || model.ignore_merges)
        && model.unk_token.as_deref() == Some(SPECIAL[UNK as usize]);
    let around = tokenizer.get_post_processor().is_some()
        || tokenizer.get_truncation().is_some()
        || tokenizer.get_padding().is_some();
    let added = tokenizer.get_added_tokens_decoder();
    let special = added.len() == SPECIAL.len()
        && added.iter().all(|(&id, token)| {
            token.special
                && SPECIAL
                    .get(id as usize)
                    .is_some_and(|name| **name == token.content)
        });
    match () {
        () if tokenizer.get_normalizer().is_some() => Some("it has a normaliser"),
        () if !words || !decoder => Some("its words do not begin with ▁ (Metaspace)"),
        () if !plain => Some("its byte-pair encoding has other options"),
        () if around => Some("it puts something around a text, or cuts it"),
        () if !special => {
            Some("its special tokens are not <s>, <pad>, </s> and <unk> with ids 0 to 3")
        }
        () => None,
    }
}

/// The subwords by their ids, which must be 0, 1, 2 and so on.
fn tokens(tokenizer: &Tokenizer) -> std::result::Result<Vec<String>, String> {
    // Without added ones: the model itself must know what is unknown.
    let vocabulary = tokenizer.get_vocab(false);
    let len = vocabulary.len();
    if len > MOST_SYMBOLS {
        return Err(format!("{len} subwords, of at most {MOST_SYMBOLS}"));
    }
    let mut tokens = vec![None; len];
    for (token, id) in vocabulary {
        if let Some(place) = tokens.get_mut(id as usize) {
            *place = Some(token);
        }
    }
    let all: Option<Vec<String>> = tokens.into_iter().collect();
    let all = all.filter(|all| SPECIAL.iter().eq(all.iter().take(SPECIAL.len())));
    all.ok_or_else(|| {
        format!(
            "the ids of its {len} subwords are not 0 to {}, or <s>, <pad>, </s> and <unk> not the first of them; learn \
             them again",
            len.saturating_sub(1)
        )
    })
}
