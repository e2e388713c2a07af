//! RoBERTa's tokenizer from `vocab.json` and `merges.txt`, against transformers' (scripts/roberta_tokenizer.py).

use anyhow::Result;
use datasets::{Error, Row, TextEncoder};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use testing::assert_says;

const SETTINGS: &str = "tokenizer_config.json";

fn reference() -> PathBuf {
    testing::reference().join("roberta_tokenizer")
}

/// A folder with both files of the reference and these beside them, or in their place.
fn folder(beside: &[(&str, &str)]) -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    for name in ["vocab.json", "merges.txt"] {
        fs::copy(reference().join(name), dir.path().join(name))?;
    }
    for (name, text) in beside {
        fs::write(dir.path().join(name), text)?;
    }
    Ok(dir)
}

fn row(first: &str, second: Option<&str>) -> Row {
    Row {
        first: first.into(),
        second: second.map(String::from),
        label: None,
    }
}

/// Whether a folder's tokenizer makes of all texts and pairs what transformers does, and gives no types.
fn expect_as(name: &str, dir: &Path) -> Result<()> {
    let text = fs::read_to_string(reference().join("expected.json"))?;
    let expected: Value = serde_json::from_str(&text)?;
    let encoder = TextEncoder::from_folder(dir, 128)?;
    let list = |name: &str| expected[name].as_array().unwrap().clone();
    let texts = list("texts").into_iter().map(|text| (text, Value::Null));
    let pairs = list("pairs");
    let pairs = pairs.iter().map(|pair| (pair[0].clone(), pair[1].clone()));
    let ids = [list(name), list(&format!("{name}_pairs"))].concat();
    assert_eq!(ids.len(), 10);
    for ((first, second), ids) in texts.chain(pairs).zip(ids) {
        let made = encoder.encode(&row(first.as_str().unwrap(), second.as_str()))?;
        let ids: Vec<u32> = serde_json::from_value(ids)?;
        assert_eq!(made.ids, ids, "{first} {second}");
        assert!(made.types.iter().all(|&kind| kind == 0));
    }
    Ok(())
}

#[test]
fn two_files_are_the_tokenizer_that_transformers_makes_of_them() -> Result<()> {
    let plain = folder(&[])?;
    expect_as("plain", plain.path())?;
    let class = r#"{"tokenizer_class": "RobertaTokenizer", "add_prefix_space": true}"#;
    let blank = folder(&[(SETTINGS, class)])?;
    expect_as("with_blank", blank.path())?;
    // Saved, it is one file, and the same tokenizer.
    for (name, dir) in [("plain", plain), ("with_blank", blank)] {
        let saved = tempfile::tempdir()?;
        TextEncoder::from_folder(dir.path(), 128)?.save(saved.path())?;
        assert!(saved.path().join("tokenizer.json").is_file());
        expect_as(name, saved.path())?;
    }
    let encoder = TextEncoder::from_folder(folder(&[])?.path(), 128)?;
    assert_eq!((encoder.vocab_size(), encoder.pad_id()), (310, 1));
    Ok(())
}

/// What of the two files is wrong, and where.
#[test]
fn files_that_are_damaged_or_do_not_belong_together_are_refused() -> Result<()> {
    let open = |name: &str, text: &str| -> Result<Result<TextEncoder, Error>> {
        let dir = folder(&[(name, text)])?;
        Ok(TextEncoder::from_folder(dir.path(), 16))
    };
    for (text, says) in [
        ("", "line 1"),
        ("[1]", "tokens and their ids"),
        (r#"{"a": -1}"#, "tokens and their ids"),
        (r#"{"<s>": 0, "</s>": 0}"#, "id 0"),
        (r#"{"<s>": 0, "</s>": 1}"#, "merges.txt"),
    ] {
        assert_says(open("vocab.json", text)?, &[says]);
    }
    for (text, says) in [
        ("h e\nh\n", "line 2"),
        ("#version: 0.2\nh e s\n", "line 2"),
        ("h e\n\nh q\n", "line 3"),
        ("h e\nh \n", "line 2"),
        ("", "no merges"),
    ] {
        assert_says(open("merges.txt", text)?, &["merges.txt", says]);
    }
    let text = fs::read_to_string(reference().join("vocab.json"))?;
    let gpt2 = text.replace("\"<s>\"", "\"<|start|>\"");
    assert_says(open("vocab.json", &gpt2)?, &["vocab.json", "<s>", "310"]);
    for (name, text, says) in [
        (SETTINGS, r#"{"tokenizer_class": "GPT2Tokenizer"}"#, "GPT2"),
        (
            SETTINGS,
            r#"{"added_tokens_decoder": {"310": {}}}"#,
            "token 310",
        ),
        ("added_tokens.json", r#"{"<e1>": 311}"#, "token 311"),
    ] {
        assert_says(
            open(name, text)?,
            &[name, says, "vocab.json", "tokenizer.json"],
        );
    }
    // One of the two alone is none.
    let dir = folder(&[])?;
    fs::remove_file(dir.path().join("merges.txt"))?;
    let outcome = TextEncoder::from_folder(dir.path(), 16);
    assert_says(outcome, &["tokenizer", "vocab.json with merges.txt"]);
    Ok(())
}

#[test]
fn files_that_are_cut_off_are_refused() -> Result<()> {
    let dir = folder(&[])?;
    let path = dir.path().join("vocab.json");
    let whole = fs::read(&path)?;
    for length in (0..whole.trim_ascii_end().len()).step_by(7) {
        fs::write(&path, &whole[..length])?;
        let outcome = TextEncoder::from_folder(dir.path(), 16);
        assert_says(outcome, &["vocab.json"]);
    }
    // At the end of a line there is no telling but by what is left.
    let merges = fs::read_to_string(reference().join("merges.txt"))?;
    let few: Vec<&str> = merges.lines().take(11).collect();
    let dir = folder(&[("merges.txt", &few.join("\n"))])?;
    let outcome = TextEncoder::from_folder(dir.path(), 16);
    assert_says(outcome, &["merges.txt", "39 of 310 tokens", "whole"]);
    Ok(())
}
