//! RoBERTa's tokenizer from the two files that its first checkpoints have: `vocab.json`, tokens with their ids, and
//! `merges.txt`, the pairs of tokens that become one.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::Result;
use crate::limits::{self, LARGEST_LIST, LARGEST_TOKENIZER};
use crate::text::tokenizer_error;
use crate::tokenizer_config;

/// Their names in a folder.
pub(crate) const FILES: [&str; 2] = ["vocab.json", "merges.txt"];
/// RoBERTa's special tokens; of a text, the first begins it and the third ends it.
const SPECIAL: [&str; 5] = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];

/// A folder's, where it has both.
pub(crate) fn files(dir: &Path) -> Option<[PathBuf; 2]> {
    let files = FILES.map(|name| dir.join(name));
    files.iter().all(|file| file.is_file()).then_some(files)
}

/// What a `tokenizer.json` of both files would be, with what `tokenizer_config.json` says of a blank in front of a text.
///
/// # Errors
/// If one of them is malformed, they are of different models, or of another one than RoBERTa.
pub(crate) fn tokenizer_json(dir: &Path, [vocabulary, merges]: &[PathBuf; 2]) -> Result<Value> {
    let ids = read_vocabulary(vocabulary)?;
    let pairs = read_merges(merges, &ids)?;
    expect_whole(merges, &ids, &pairs)?;
    let special = |token: &str| {
        ids.get(token).ok_or_else(|| {
            let tokens = ids.len();
            let why = format!("no token {token} among {tokens}; is it RoBERTa's vocabulary?");
            tokenizer_error(Some(vocabulary), why)
        })
    };
    let (start, end) = (special(SPECIAL[0])?, special(SPECIAL[2])?);
    tokenizer_config::expect_roberta(dir, ids.len())?;
    let settings = tokenizer_config::read(dir)?.unwrap_or_default();
    let setting = |name: &str| settings.get(name).and_then(Value::as_bool);
    let blank = setting("add_prefix_space").unwrap_or(false);
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": blank, "trim_offsets": true, "use_regex": true,
    });
    let mut added: Vec<(u32, &str)> = SPECIAL
        .iter()
        .filter_map(|&token| Some((*ids.get(token)?, token)))
        .collect();
    added.sort_unstable();
    // A hidden word takes the blank before it along.
    let added = added.into_iter().map(|(id, token)| {
        json!({
            "id": id, "content": token, "single_word": false, "lstrip": token == "<mask>", "rstrip": false,
            "normalized": false, "special": true,
        })
    });
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "pre_tokenizer": bytes, "decoder": bytes,
        "post_processor": {
            "type": "RobertaProcessing", "sep": [SPECIAL[2], end], "cls": [SPECIAL[0], start],
            "trim_offsets": true, "add_prefix_space": blank,
        },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": ids, "merges": pairs,
        },
    }))
}

fn read_vocabulary(path: &Path) -> Result<HashMap<String, u32>> {
    let text = limits::read_text(path, LARGEST_TOKENIZER)?;
    let ids: HashMap<String, u32> = serde_json::from_str(&text).map_err(|e| {
        let why = format!("not an object of tokens and their ids ({e}); fetch the file again");
        tokenizer_error(Some(path), why)
    })?;
    let mut seen = HashSet::with_capacity(ids.len());
    match ids.iter().find(|&(_, id)| !seen.insert(id)) {
        None => Ok(ids),
        Some((token, id)) => {
            let why = format!("id {id} of token {token:?} is another's, too; fetch the file again");
            Err(tokenizer_error(Some(path), why))
        }
    }
}

/// The pairs of a file, the first of them first.
fn read_merges(path: &Path, ids: &HashMap<String, u32>) -> Result<Vec<(String, String)>> {
    let text = limits::read_text(path, LARGEST_LIST)?;
    let mut pairs = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let refused = |why: String| tokenizer_error(Some(path), format!("line {number}: {why}"));
        // A blank is a letter of its own in such a vocabulary, and never itself.
        let Some((left, right)) = line
            .split_once(' ')
            .filter(|(_, right)| !right.contains(' '))
        else {
            return Err(refused(format!(
                "expected two tokens with a blank between, got {:?}",
                crate::excerpt::cut(line)
            )));
        };
        let whole = format!("{left}{right}");
        if let Some(token) = [left, right, &whole]
            .into_iter()
            .find(|&token| !ids.contains_key(token))
        {
            return Err(refused(format!(
                "no token {:?} among {} of vocab.json; take both files of one model",
                crate::excerpt::cut(token),
                ids.len()
            )));
        }
        pairs.push((left.to_string(), right.to_string()));
    }
    match pairs.is_empty() {
        false => Ok(pairs),
        true => Err(tokenizer_error(
            Some(path),
            "no merges; fetch the file again",
        )),
    }
}

/// Refuses merges of which more than a tenth is missing: texts would be in other tokens than the model has learned. Beside
/// letters, which stand for bytes, and special tokens a vocabulary has some that nothing makes, `madeupword0000`, but not
/// many.
fn expect_whole(path: &Path, ids: &HashMap<String, u32>, pairs: &[(String, String)]) -> Result<()> {
    let made: HashSet<String> = pairs.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let is_letter = |token: &str| token.chars().nth(1).is_none();
    let unmade = ids.keys().filter(|token| {
        !is_letter(token) && !SPECIAL.contains(&token.as_str()) && !made.contains(*token)
    });
    let unmade = unmade.count();
    match unmade > ids.len() / 10 {
        false => Ok(()),
        true => {
            let why = format!(
                "no merge makes {unmade} of {} tokens; is the file whole, and of the same model as vocab.json?",
                ids.len()
            );
            Err(tokenizer_error(Some(path), why))
        }
    }
}
