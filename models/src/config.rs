//! Reading, checking and writing config.json.

use crate::error::{Error, Result};
use crate::labels::Labels;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The name of the configuration inside a checkpoint folder.
const FILE: &str = "config.json";
/// The longest one: 8 MiB, room for the names of as many classes as there may be, `LABEL_131071` and the like.
const LONGEST: u64 = 8 << 20;
/// The most labels of a classifier.
pub(crate) const LABELS: usize = 1 << 17;

/// The configuration file of a folder, or the file itself.
pub(crate) fn path_in(folder: &Path) -> PathBuf {
    match folder.extension().is_some_and(|e| e == "json") {
        true => folder.to_path_buf(),
        false => folder.join(FILE),
    }
}

/// The file's contents, which must not be longer than this many bytes.
pub(crate) fn read_json(path: &Path, longest: u64) -> Result<Value> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    file.take(longest + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::file(path, e))?;
    if bytes.len() as u64 > longest {
        let what = format!("longer than {longest} bytes: is it the right file?");
        return Err(Error::file(path, what));
    }
    serde_json::from_slice(&bytes).map_err(|e| Error::file(path, format!("not in JSON: {e}")))
}

/// What transformers' classes begin with, and the `model_type` of their configurations.
const CLASSES: [(&str, &str); 4] = [
    ("Bert", "bert"),
    ("DistilBert", "distilbert"),
    ("Roberta", "roberta"),
    ("SqueezeBert", "squeezebert"),
];

/// The file's contents and its `model_type`, or the one of the class that it names.
pub(crate) fn read(path: &Path) -> Result<(Value, String)> {
    let value = read_json(path, LONGEST)?;
    let model_type = match value.get("model_type") {
        Some(own) => own.as_str(),
        None => type_of_class(&value),
    };
    match model_type.map(String::from) {
        Some(model_type) => Ok((value, model_type)),
        None => Err(Error::Config {
            field: "model_type",
            expected: "the architecture's name, such as \"bert\": write it into the file".into(),
            got: format!(
                "none in {}, and no class in `architectures` that tells it",
                path.display()
            ),
        }),
    }
}

/// The `model_type` that follows from `architectures`: the first files of the Hub have nothing else.
fn type_of_class(value: &Value) -> Option<&'static str> {
    let class = value.get("architectures")?.get(0)?.as_str()?;
    let is_of = |prefix: &str| {
        let task = class.strip_prefix(prefix);
        task.is_some_and(|task| task == "Model" || task.starts_with("For"))
    };
    let found = CLASSES.iter().find(|(prefix, _)| is_of(prefix));
    found.map(|(_, model_type)| *model_type)
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
    let parsed = T::deserialize(&value);
    parsed.map_err(|error| match unfit::<T>(&value) {
        Some(field) => Error::file(path, format!("field `{field}`: {error}")),
        None => Error::file(path, error),
    })
}

/// The first field that cannot be read, where it is one alone that cannot: serde says its value and not its name.
fn unfit<T: DeserializeOwned>(value: &Value) -> Option<&String> {
    let of = |fields: Value| T::deserialize(fields);
    of(json!({})).ok()?;
    let mut fields = value.as_object()?.iter();
    let found = fields.find(|(name, value)| of(json!({ name.as_str(): value })).is_err());
    found.map(|(name, _)| name)
}

/// The number of labels that a configuration names: the length of `id2label`, else `num_labels`,
/// else 2.
pub(crate) fn labels(value: &Value) -> Result<usize> {
    let names = value.get("id2label").filter(|names| !names.is_null());
    let by_name = names.and_then(Value::as_object);
    if let Some(names) = names {
        let expected = "names by number, {\"0\": ...}";
        require(by_name.is_some(), "id2label", expected, names)?;
    }
    if let Some(names) = by_name.filter(|names| !names.is_empty()) {
        return Ok(names.len());
    }
    match value.get("num_labels") {
        None | Some(Value::Null) => Ok(2),
        Some(number) => {
            let whole = number.as_u64();
            require(whole.is_some(), "num_labels", "a whole number", number)?;
            let labels = whole.and_then(|number| usize::try_from(number).ok());
            within("num_labels", labels.unwrap_or(usize::MAX), 1..=LABELS)
        }
    }
}

/// A configuration's fields as they are in config.json, without what a task adds.
pub(crate) fn to_json(config: &impl Serialize, model_type: &str) -> Result<Value> {
    let mut value = serde_json::to_value(config).map_err(|e| Error::file(FILE, e))?;
    value["model_type"] = json!(model_type);
    Ok(value)
}

/// What a file says of the model's task or of itself, not of the encoder: whatever is saved says these anew, or they are
/// no longer true of it.
const OWN: [&str; 13] = [
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "finetuning_task",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "pruned_heads",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
];
/// What sentence-transformers says of a classifier's outputs: true as long as the classifier is.
const OF_HEAD: [&str; 2] = [
    "sbert_ce_default_activation_function",
    "sentence_transformers",
];

/// A file's fields that this crate has no use for, others may, and that stay true when the model is trained on: the
/// tokenizer's class, a padding token.
pub(crate) fn others(mut file: Value) -> Value {
    if let Some(fields) = file.as_object_mut() {
        fields.retain(|name, _| !OWN.contains(&name.as_str()));
    }
    file
}

/// A configuration with these fields, too, where it has none of that name.
pub(crate) fn extend(config: &mut Value, others: &Value, keeps_head: bool) {
    let (Some(config), Some(others)) = (config.as_object_mut(), others.as_object()) else {
        return;
    };
    for (name, value) in others {
        if keeps_head || !OF_HEAD.contains(&name.as_str()) {
            config.entry(name).or_insert_with(|| value.clone());
        }
    }
}

/// The same for a model of this class of transformers', with these labels if it has some.
pub(crate) fn for_class(config: &Value, class: String, labels: Option<&Labels>) -> Value {
    let mut value = config.clone();
    value["architectures"] = json!([&class]);
    if let Some(labels) = labels {
        let named = labels.names().iter().enumerate();
        let by_id = named.clone().map(|(i, name)| (i.to_string(), json!(name)));
        let by_name = named.map(|(i, name)| (name.clone(), json!(i)));
        value["id2label"] = Value::Object(by_id.collect());
        value["label2id"] = Value::Object(by_name.collect());
    }
    value
}

/// Writes a configuration into a folder: whole, or what was there stays.
pub(crate) fn write(folder: &Path, value: &Value) -> Result<()> {
    let path = folder.join(FILE);
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::file(&path, e))?;
    let partial = folder.join(format!(".{FILE}.partial"));
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all((text + "\n").as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&partial, &path)
    });
    written.map_err(|e| Error::file(&path, e))
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

/// A size, if it is in the range.
pub(crate) fn within(
    field: &'static str,
    size: usize,
    range: RangeInclusive<usize>,
) -> Result<usize> {
    let expected = format!("{} to {}", range.start(), range.end());
    require(range.contains(&size), field, expected, size)?;
    Ok(size)
}

/// Checks a number that says how many equal parts sizes have.
pub(crate) fn divides(field: &'static str, parts: usize, sizes: &[usize]) -> Result<()> {
    let fits = parts > 0 && sizes.iter().all(|size| size.is_multiple_of(parts));
    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
    let expected = format!("a divisor of {}", sizes.join(" and "));
    require(fits, field, expected, parts)
}
