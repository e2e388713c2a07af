//! Parquet files in the layout of `nyu-mll/glue`, from a folder or from the Hub.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row as Record};
use parquet::schema::types::{Type, TypePtr};

use super::{GlueTask, Label, Row, Split};
use crate::error::{Error, Place, Result};
use crate::excerpt::excerpt;
use crate::hub::{Hub, RepoKind};
use crate::limits::{Budget, LONGEST_LINE};
use crate::pages;
use crate::shards::{guarded, shards, unreadable};

/// The Hub's repository of the GLUE tasks.
const REPO: &str = "nyu-mll/glue";

/// The task's folder in the parquet layout.
fn folder_name(task: GlueTask) -> &'static str {
    match task {
        GlueTask::MnliMismatched => GlueTask::Mnli.name(),
        task => task.name(),
    }
}

/// The split's name in the parquet layout.
fn split_name(task: GlueTask, split: Split) -> &'static str {
    match (split, task) {
        (Split::Train, _) => "train",
        (Split::Validation, GlueTask::Mnli) => "validation_matched",
        (Split::Validation, GlueTask::MnliMismatched) => "validation_mismatched",
        (Split::Validation, _) => "validation",
        (Split::Test, GlueTask::Mnli) => "test_matched",
        (Split::Test, GlueTask::MnliMismatched) => "test_mismatched",
        (Split::Test, _) => "test",
    }
}

/// The names of the text columns, first and second sentence.
fn text_columns(task: GlueTask) -> (&'static str, Option<&'static str>) {
    match task {
        GlueTask::Sst2 | GlueTask::Cola => ("sentence", None),
        GlueTask::Qnli => ("question", Some("sentence")),
        GlueTask::Qqp => ("question1", Some("question2")),
        GlueTask::Mnli | GlueTask::MnliMismatched => ("premise", Some("hypothesis")),
        GlueTask::Rte | GlueTask::Mrpc | GlueTask::Stsb => ("sentence1", Some("sentence2")),
    }
}

/// Loads a split from the Hub's `nyu-mll/glue`, or from the cache.
///
/// # Errors
/// If the file cannot be fetched, see [`Hub::get`], or read, see [`load_parquet`].
pub fn load_hub(hub: &Hub, task: GlueTask, split: Split) -> Result<Vec<Row>> {
    let (folder, name) = (folder_name(task), split_name(task, split));
    let file = format!("{folder}/{name}-00000-of-00001.parquet");
    load_parquet(&hub.get(RepoKind::Dataset, REPO, None, &file)?, task, split)
}

/// Loads a split from `DIR/{task}/{split}-NNNNN-of-NNNNN.parquet`, all shards in order.
///
/// # Errors
/// If there is no such file, a shard is missing, or for the reasons of [`load_parquet`].
pub fn load_parquet_folder(dir: &Path, task: GlueTask, split: Split) -> Result<Vec<Row>> {
    let (folder, name) = (folder_name(task), split_name(task, split));
    let mut rows = Vec::new();
    for path in shards(dir, folder, name, &format!("{split} split of {folder}"))? {
        rows.extend(load_parquet(&path, task, split)?);
    }
    Ok(rows)
}

/// Reads one parquet file: the text columns, `label`, and any others, which are ignored.
///
/// A label of -1 means unlabelled and is allowed in [`Split::Test`] only.
///
/// # Errors
/// If the file is unreadable, cut off, compressed with a method that is not built in, empty,
/// lacks a column, or has a value of the wrong kind or a wrong label.
pub fn load_parquet(path: &Path, task: GlueTask, split: Split) -> Result<Vec<Row>> {
    guarded(path, || read(path, task, split))
}

fn read(path: &Path, task: GlueTask, split: Split) -> Result<Vec<Row>> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    pages::check_footer(path, &mut file)?;
    let again = file.try_clone().map_err(|e| Error::io(path, e))?;
    let reader = SerializedFileReader::new(again).map_err(|e| unreadable(path, e))?;
    check_columns(&reader, path, task, split)?;
    let columns = projection(&reader, path, task)?;
    let wanted = |leaf: &str| columns.get_fields().iter().any(|f| f.name() == leaf);
    pages::check_pages(path, &mut file, reader.metadata(), wanted)?;
    let (mut rows, mut budget) = (Vec::new(), Budget::default());
    for record in reader
        .get_row_iter(Some(columns))
        .map_err(|e| unreadable(path, e))?
    {
        let record = record.map_err(|e| unreadable(path, e))?;
        let row = to_row(record, path, task, split, rows.len() + 1)?;
        let second = row.second.as_deref().unwrap_or_default();
        budget.take(path, row.first.len() + second.len())?;
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(Error::Empty {
            path: path.to_path_buf(),
            expected: format!("the {split} rows of {task}"),
        });
    }
    Ok(rows)
}

fn check_columns(
    reader: &SerializedFileReader<File>,
    path: &Path,
    task: GlueTask,
    split: Split,
) -> Result<()> {
    let schema = reader.metadata().file_metadata().schema();
    let found: Vec<&str> = schema.get_fields().iter().map(|f| f.name()).collect();
    let (first, second) = text_columns(task);
    let label = (split != Split::Test).then_some("label");
    for column in [Some(first), second, label].into_iter().flatten() {
        if !found.contains(&column) {
            return Err(Error::MissingColumn {
                path: path.to_path_buf(),
                task: task.name(),
                column: column.to_string(),
                found: excerpt(&found.join(", ")),
            });
        }
    }
    Ok(())
}

/// The columns that are read, of all that the file may have.
fn projection(reader: &SerializedFileReader<File>, path: &Path, task: GlueTask) -> Result<Type> {
    let schema = reader.metadata().file_metadata().schema();
    let (first, second) = text_columns(task);
    let names = [Some(first), second, Some("label")];
    let wanted = |field: &&TypePtr| names.contains(&Some(field.name()));
    let fields: Vec<TypePtr> = schema.get_fields().iter().filter(wanted).cloned().collect();
    if let Some(field) = fields.iter().find(|field| !field.is_primitive()) {
        return Err(Error::BadField {
            path: path.to_path_buf(),
            place: Place::Row(1),
            column: field.name().to_string(),
            expected: "a text or a number in each row",
            got: "a structure or a list".to_string(),
        });
    }
    let group = Type::group_type_builder(schema.name()).with_fields(fields);
    group.build().map_err(|e| unreadable(path, e))
}

fn to_row(record: Record, path: &Path, task: GlueTask, split: Split, number: usize) -> Result<Row> {
    let (first_name, second_name) = text_columns(task);
    let (mut first, mut second, mut label) = (None, None, None);
    for (name, field) in record.into_columns() {
        if name == first_name {
            first = Some(to_text(field, path, &name, number)?);
        } else if Some(name.as_str()) == second_name {
            second = Some(to_text(field, path, &name, number)?);
        } else if name == "label" {
            label = to_label(&field, path, task, split, number)?;
        }
    }
    Ok(Row {
        first: first.unwrap_or_default(),
        second,
        label,
    })
}

/// The text of a field of a row.
pub(crate) fn to_text(field: Field, path: &Path, column: &str, number: usize) -> Result<String> {
    let place = Place::Row(number);
    let length = match &field {
        Field::Str(text) => text.len(),
        Field::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    if length > LONGEST_LINE {
        return Err(Error::BadField {
            path: path.to_path_buf(),
            place,
            column: column.to_string(),
            expected: "a text of at most 1 MiB",
            got: format!("one of {length} bytes"),
        });
    }
    match field {
        Field::Str(text) => Ok(text),
        Field::Bytes(bytes) => {
            String::from_utf8(bytes.data().to_vec()).map_err(|_| Error::InvalidUtf8 {
                path: path.to_path_buf(),
                place,
            })
        }
        other => Err(Error::BadField {
            path: path.to_path_buf(),
            place,
            column: column.to_string(),
            expected: "text",
            got: excerpt(&other.to_string()),
        }),
    }
}

fn to_label(
    field: &Field,
    path: &Path,
    task: GlueTask,
    split: Split,
    number: usize,
) -> Result<Option<Label>> {
    // Scores are stored as floats, classes as integers; -1 stands for "not published".
    let value = match field {
        Field::Byte(n) => f64::from(*n),
        Field::Short(n) => f64::from(*n),
        Field::Int(n) => f64::from(*n),
        Field::Long(n) => *n as f64,
        Field::UByte(n) => f64::from(*n),
        Field::UShort(n) => f64::from(*n),
        Field::UInt(n) => f64::from(*n),
        Field::ULong(n) => *n as f64,
        Field::Bool(is_one) => f64::from(u8::from(*is_one)),
        Field::Float(x) => f64::from(*x),
        Field::Double(x) => *x,
        Field::Null => -1.0,
        other => {
            return Err(Error::BadField {
                path: path.to_path_buf(),
                place: Place::Row(number),
                column: "label".to_string(),
                expected: "a number",
                got: excerpt(&other.to_string()),
            });
        }
    };
    if value == -1.0 && split == Split::Test {
        return Ok(None);
    }
    let label = if task.is_regression() {
        GlueTask::score(value as f32)
    } else {
        (0..task.labels().len() as u32)
            .find(|&class| f64::from(class) == value)
            .map(Label::Class)
    };
    label.map(Some).ok_or_else(|| Error::BadLabel {
        path: path.to_path_buf(),
        place: Place::Row(number),
        column: "label",
        expected: match task.labels() {
            [] => task.expected_label(),
            labels => format!("a class number in 0..{}", labels.len()),
        },
        got: field.to_string(),
    })
}
