//! `tokenizer_config.json`, which transformers reads beside a tokenizer.
//!
//! transformers 4 believes it, or where it is absent the defaults of the model's kind, more than
//! `tokenizer.json`: a tokenizer of a model with case that is exported without one drops case there.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use crate::error::{Error, Result};
use crate::limits::{self, LARGEST_LIST};

/// The setting of what transformers' tokenizer gives a model, and the name of the types of tokens there.
const INPUTS: &str = "model_input_names";
const TYPES: &str = "token_type_ids";

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
    let settings = read(dir)?.unwrap_or_default();
    for (name, known) in [
        ("word_tokenizer_type", "basic"),
        ("subword_tokenizer_type", "wordpiece"),
    ] {
        match settings.get(name).and_then(Value::as_str) {
            Some(kind) if kind != known => {
                return refused(path(dir), format!("{name} is {kind}"), "vocab.txt");
            }
            _ => {}
        }
    }
    expect(dir, tokens, is_bert, "vocab.txt")
}

/// The same beside a `vocab.json`, of a RoBERTa tokenizer.
///
/// # Errors
/// [`Error::Tokenizer`] with the file and the setting.
pub(crate) fn expect_roberta(dir: &Path, tokens: usize) -> Result<()> {
    let is_roberta =
        |class: &str| class.strip_suffix("Fast").unwrap_or(class) == "RobertaTokenizer";
    expect(dir, tokens, is_roberta, "vocab.json")
}

fn refused(path: PathBuf, what: String, vocabulary: &str) -> Result<()> {
    Err(Error::Tokenizer {
        path: Some(path),
        reason: format!(
            "{what}, which {vocabulary} does not say; save the tokenizer as tokenizer.json (`AutoTokenizer` with \
             use_fast=True, then `save_pretrained`)"
        ),
    })
}

/// Refuses another class of transformers than these, and tokens behind the vocabulary.
fn expect(
    dir: &Path,
    tokens: usize,
    is_known: impl Fn(&str) -> bool,
    vocabulary: &str,
) -> Result<()> {
    let beyond = |ids: &mut dyn Iterator<Item = Option<u64>>| {
        let mut ids = ids.flatten();
        ids.find(|id| *id >= tokens as u64)
    };
    let settings = read(dir)?.unwrap_or_default();
    let class = settings.get("tokenizer_class").and_then(Value::as_str);
    if let Some(class) = class.filter(|class| !is_known(class)) {
        return refused(path(dir), format!("tokenizer_class is {class}"), vocabulary);
    }
    let added = settings.get("added_tokens_decoder");
    let added = added.and_then(Value::as_object).into_iter().flatten();
    if let Some(id) = beyond(&mut added.map(|(id, _)| id.parse().ok())) {
        return refused(
            path(dir),
            format!("added_tokens_decoder has token {id}"),
            vocabulary,
        );
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
        Some(id) => refused(file, format!("has token {id}"), vocabulary),
    }
}

/// Whether a class of transformers cuts as BERT's does.
fn is_bert(class: &str) -> bool {
    let class = class.strip_suffix("Fast").unwrap_or(class);
    class.ends_with("BertTokenizer") || class == "ElectraTokenizer"
}

/// Whether transformers' tokenizer of a folder gives types of tokens: as its settings say, else as its class does, which
/// without settings is the model's.
pub(crate) fn gives_types(settings: Option<&Map<String, Value>>, dir: &Path) -> bool {
    let setting = |name: &str| settings.and_then(|settings| settings.get(name));
    if let Some(names) = setting(INPUTS).and_then(Value::as_array) {
        return names.iter().any(|name| name.as_str() == Some(TYPES));
    }
    let class = setting("tokenizer_class").and_then(Value::as_str);
    let without = |class: &str| {
        class.starts_with("DistilBertTokenizer") || class.starts_with("RobertaTokenizer")
    };
    !class.is_some_and(without) && !beside_model_without(dir)
}

/// Whether the folder's model is one that transformers gives no types: a DistilBERT, which refuses them there, or a RoBERTa,
/// whose table of them has one row.
fn beside_model_without(dir: &Path) -> bool {
    // A file that is no configuration is an error where the model is opened.
    let text = limits::read_text(&dir.join("config.json"), LARGEST_LIST);
    let config = text.map(|text| serde_json::from_str::<Value>(&text));
    matches!(config, Ok(Ok(config)) if config["model_type"] == "distilbert" || config["model_type"] == "roberta")
}

/// Changes the steps of a `tokenizer.json` to what the settings beside it say of them, as transformers does for BERT's
/// tokenizers; what they do not name stays.
///
/// # Errors
/// If the tokenizer refuses them.
pub(crate) fn apply(
    settings: &Map<String, Value>,
    tokenizer: &mut Tokenizer,
) -> tokenizers::Result<()> {
    let class = settings.get("tokenizer_class").and_then(Value::as_str);
    let Some(NormalizerWrapper::BertNormalizer(bert)) = tokenizer.get_normalizer() else {
        return Ok(());
    };
    if class.is_some_and(|class| !is_bert(class)) {
        return Ok(());
    }
    let mut bert = *bert;
    let flag = |name: &str| settings.get(name).and_then(Value::as_bool);
    bert.lowercase = flag("do_lower_case").unwrap_or(bert.lowercase);
    bert.handle_chinese_chars = flag("tokenize_chinese_chars").unwrap_or(bert.handle_chinese_chars);
    bert.strip_accents = match settings.get("strip_accents") {
        Some(Value::Bool(strip)) => Some(*strip),
        Some(Value::Null) => None, // if case is dropped
        _ => bert.strip_accents,
    };
    tokenizer.with_normalizer(Some(bert)).map(|_| ())
}

/// Writes a tokenizer's settings into a folder: those it came with, what its steps say, and whether tokens have types.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write(
    tokenizer: &Tokenizer,
    came_with: Option<&Map<String, Value>>,
    types: bool,
    dir: &Path,
) -> Result<()> {
    let mut settings = came_with.cloned().unwrap_or_default();
    settings.extend(said(tokenizer));
    let without = beside_model_without(dir);
    match settings.get_mut(INPUTS).and_then(Value::as_array_mut) {
        // Those it came with may be of another model's tokenizer.
        Some(names) if without => names.retain(|name| name.as_str() != Some(TYPES)),
        Some(_) => {}
        None => {
            // transformers 4 and 5 differ in what a class gives that is not told.
            let names: &[&str] = match types && !without {
                true => &["input_ids", TYPES, "attention_mask"],
                false => &["input_ids", "attention_mask"],
            };
            settings.insert(INPUTS.into(), names.into());
        }
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
