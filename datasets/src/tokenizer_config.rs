//! `tokenizer_config.json`, which transformers reads beside a tokenizer.
//!
//! transformers 4 believes it, or where it is absent the defaults of the model's kind, more than
//! `tokenizer.json`: a tokenizer of a model with case that is exported without one drops case there.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use crate::error::{Error, Result};
use crate::limits::{self, LARGEST_LIST};

/// Where a folder has it.
fn path(dir: &Path) -> PathBuf {
    dir.join("tokenizer_config.json")
}

/// A folder's settings; `None` where it has none.
///
/// # Errors
/// If the file is there but cannot be read as a JSON object.
pub(crate) fn read(dir: &Path) -> Result<Option<Map<String, Value>>> {
    let path = path(dir);
    if !path.is_file() {
        return Ok(None);
    }
    let text = limits::read_text(&path, LARGEST_LIST)?;
    let settings = serde_json::from_str(&text);
    settings.map(Some).map_err(|e| Error::Tokenizer {
        path: Some(path),
        reason: format!("not a JSON object ({e}); repair or remove the file"),
    })
}

/// Refuses settings beside a `vocab.txt` of so many tokens that a BERT tokenizer knows nothing of: words cut by a
/// dictionary, or into characters, and tokens that were added behind the vocabulary. Texts would become other tokens than
/// those that the model has learned, without an error.
///
/// # Errors
/// [`Error::Tokenizer`] with the file and the setting.
pub(crate) fn expect_bert(dir: &Path, tokens: usize) -> Result<()> {
    let refused = |path: PathBuf, what: String| {
        Err(Error::Tokenizer {
            path: Some(path),
            reason: format!(
                "{what}, which vocab.txt does not say; save the tokenizer as tokenizer.json (`AutoTokenizer` with \
                 use_fast=True, then `save_pretrained`)"
            ),
        })
    };
    let beyond = |ids: &mut dyn Iterator<Item = Option<u64>>| {
        let mut ids = ids.flatten();
        ids.find(|id| *id >= tokens as u64)
    };
    let settings = read(dir)?.unwrap_or_default();
    for (name, known) in [
        ("word_tokenizer_type", "basic"),
        ("subword_tokenizer_type", "wordpiece"),
    ] {
        match settings.get(name).and_then(Value::as_str) {
            Some(kind) if kind != known => {
                return refused(path(dir), format!("{name} is {kind}"));
            }
            _ => {}
        }
    }
    let class = settings.get("tokenizer_class").and_then(Value::as_str);
    if let Some(class) = class.filter(|class| !is_bert(class)) {
        return refused(path(dir), format!("tokenizer_class is {class}"));
    }
    let added = settings.get("added_tokens_decoder");
    let added = added.and_then(Value::as_object).into_iter().flatten();
    if let Some(id) = beyond(&mut added.map(|(id, _)| id.parse().ok())) {
        return refused(path(dir), format!("added_tokens_decoder has token {id}"));
    }
    let file = dir.join("added_tokens.json");
    if !file.is_file() {
        return Ok(());
    }
    let added: Map<String, Value> = serde_json::from_str(&limits::read_text(&file, LARGEST_LIST)?)
        .map_err(|e| Error::Tokenizer {
            path: Some(file.clone()),
            reason: format!("not a JSON object ({e}); repair or remove the file"),
        })?;
    match beyond(&mut added.values().map(Value::as_u64)) {
        None => Ok(()),
        Some(id) => refused(file, format!("has token {id}")),
    }
}

/// Whether a class of transformers cuts as BERT's does.
fn is_bert(class: &str) -> bool {
    let class = class.strip_suffix("Fast").unwrap_or(class);
    class.ends_with("BertTokenizer") || class == "ElectraTokenizer"
}

/// Writes a tokenizer's settings into a folder: those it came with, and what its steps say.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write(
    tokenizer: &Tokenizer,
    came_with: Option<&Map<String, Value>>,
    dir: &Path,
) -> Result<()> {
    let mut settings = came_with.cloned().unwrap_or_default();
    settings.extend(said(tokenizer));
    if settings.is_empty() {
        return Ok(());
    }
    let path = path(dir);
    let text = serde_json::to_string_pretty(&settings).unwrap_or_default(); // of texts, truths and numbers
    std::fs::write(&path, text).map_err(|e| Error::io(&path, e))
}

/// The settings by which transformers changes a tokenizer's steps, as these steps are.
fn said(tokenizer: &Tokenizer) -> Map<String, Value> {
    let mut all = Map::new();
    if let Some(NormalizerWrapper::BertNormalizer(bert)) = tokenizer.get_normalizer() {
        all.insert("do_lower_case".into(), bert.lowercase.into());
        all.insert("strip_accents".into(), bert.strip_accents.into());
        let chinese = bert.handle_chinese_chars.into();
        all.insert("tokenize_chinese_chars".into(), chinese);
    }
    if let Some(blank) = blank_before(tokenizer) {
        all.insert("add_prefix_space".into(), blank.into());
    }
    all
}

/// Whether a byte-level tokenizer puts a blank before a text; `None` of other kinds.
fn blank_before(tokenizer: &Tokenizer) -> Option<bool> {
    match tokenizer.get_pre_tokenizer()? {
        PreTokenizerWrapper::ByteLevel(bytes) => Some(bytes.add_prefix_space),
        PreTokenizerWrapper::Sequence(steps) => steps.as_ref().iter().find_map(|step| match step {
            PreTokenizerWrapper::ByteLevel(bytes) => Some(bytes.add_prefix_space),
            _ => None,
        }),
        _ => None,
    }
}

/// Lets a byte-level tokenizer put a blank before every text, so that a word by itself is what it is inside
/// of a sentence. Others stay as they are.
pub(crate) fn put_blank_before(tokenizer: &mut Tokenizer) {
    let Some(mut steps) = tokenizer.get_pre_tokenizer().cloned() else {
        return;
    };
    match &mut steps {
        PreTokenizerWrapper::ByteLevel(bytes) => bytes.add_prefix_space = true,
        PreTokenizerWrapper::Sequence(steps) => {
            for step in steps.as_mut() {
                if let PreTokenizerWrapper::ByteLevel(bytes) = step {
                    bytes.add_prefix_space = true;
                }
            }
        }
        _ => return,
    }
    tokenizer.with_pre_tokenizer(Some(steps));
}
