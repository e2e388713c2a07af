//! Reading and writing config.json.

use crate::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The name of the configuration inside a checkpoint folder.
const FILE: &str = "config.json";

/// The configuration file of a folder, or the file itself.
pub(crate) fn path_in(folder: &Path) -> PathBuf {
    match folder.extension().is_some_and(|e| e == "json") {
        true => folder.to_path_buf(),
        false => folder.join(FILE),
    }
}

/// The file's contents and its `model_type`.
pub(crate) fn read(path: &Path) -> Result<(Value, String)> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|e| Error::file(path, format!("not a configuration in JSON: {e}")))?;
    let model_type = match value.get("model_type").and_then(Value::as_str) {
        Some(model_type) => model_type.to_string(),
        None => {
            return Err(Error::Config {
                field: "model_type",
                expected: "the architecture's name, for example \"bert\"".into(),
                got: format!("none in {}", path.display()),
            });
        }
    };
    Ok((value, model_type))
}

/// The configuration of one architecture.
pub(crate) fn read_as<T: DeserializeOwned>(path: &Path, expected: &str) -> Result<T> {
    let (value, model_type) = read(path)?;
    if model_type != expected {
        return Err(Error::Architecture {
            path: path.into(),
            expected: format!("`{expected}`"),
            got: model_type,
        });
    }
    parse(value, path)
}

/// The fields that `T` names; others are ignored.
pub(crate) fn parse<T: DeserializeOwned>(value: Value, path: &Path) -> Result<T> {
    serde_json::from_value(value).map_err(|e| Error::file(path, e))
}

/// The number of labels that a configuration names: the length of `id2label`, else `num_labels`,
/// else 2.
pub(crate) fn labels(value: &Value) -> usize {
    let by_name = value
        .get("id2label")
        .and_then(Value::as_object)
        .map(|m| m.len());
    let number = value
        .get("num_labels")
        .and_then(Value::as_u64)
        .map(|n| n as usize);
    by_name.filter(|n| *n > 0).or(number).unwrap_or(2)
}

/// A configuration as transformers writes it, so that it can be read there.
pub(crate) fn to_json(
    config: &impl Serialize,
    model_type: &str,
    class: &str,
    labels: Option<usize>,
) -> Result<Value> {
    let mut value = serde_json::to_value(config).map_err(|e| Error::file(FILE, e))?;
    value["model_type"] = json!(model_type);
    value["architectures"] = json!([class]);
    if let Some(labels) = labels {
        let name = |i: usize| format!("LABEL_{i}");
        let by_id = (0..labels).map(|i| (i.to_string(), json!(name(i))));
        let by_name = (0..labels).map(|i| (name(i), json!(i)));
        value["id2label"] = Value::Object(by_id.collect());
        value["label2id"] = Value::Object(by_name.collect());
    }
    Ok(value)
}

/// Writes a configuration into a folder.
pub(crate) fn write(folder: &Path, value: &Value) -> Result<()> {
    let path = folder.join(FILE);
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::file(&path, e))?;
    std::fs::write(&path, text + "\n").map_err(|e| Error::file(&path, e))
}

/// Checks that a field is what this crate supports.
pub(crate) fn require(
    ok: bool,
    field: &'static str,
    expected: impl Into<String>,
    got: impl ToString,
) -> Result<()> {
    match ok {
        true => Ok(()),
        false => Err(Error::Config {
            field,
            expected: expected.into(),
            got: got.to_string(),
        }),
    }
}
