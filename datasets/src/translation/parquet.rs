//! Parquet files of pairs, as the Hugging Face Hub has them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row as Record};
use parquet::schema::types::{Type, TypePtr};

use super::Pair;
use crate::error::{Error, Place, Result};
use crate::excerpt::excerpt;
use crate::glue::to_text;
use crate::limits::Budget;
use crate::pages;
use crate::shards::{guarded, shards, unreadable};
use crate::split::Split;

/// The column whose fields are the languages.
const COLUMN: &str = "translation";

/// The pairs of a parquet file: a column `translation` with a text for each language, named as the languages
/// (`{"de": …, "en": …}`), or two columns with these names. Others are ignored.
///
/// # Errors
/// If the file is unreadable, cut off, compressed with a method that is not built in, too large for memory or empty,
/// lacks a language, or has anything but text there.
pub fn read_parquet(path: &Path, source: &str, target: &str) -> Result<Vec<Pair>> {
    let mut budget = Budget::default();
    guarded(path, || read(path, source, target, &mut budget))
}

/// The pairs of `DIR/FOLDER/{split}-NNNNN-of-NNNNN.parquet`, all shards in order; the folder is that of a
/// configuration on the Hub, `de-en` for example, or empty.
///
/// # Errors
/// If there is no such file, a shard is missing, all of them together are too large for memory, or for the reasons
/// of [`read_parquet`].
pub fn read_parquet_folder(
    dir: &Path,
    folder: &str,
    split: Split,
    source: &str,
    target: &str,
) -> Result<Vec<Pair>> {
    let name = match split {
        Split::Train => "train",
        Split::Validation => "validation",
        Split::Test => "test",
    };
    let what = format!("{split} split of {source} and {target}");
    let (mut pairs, mut budget) = (Vec::new(), Budget::default());
    for path in shards(dir, folder, name, &what)? {
        pairs.extend(guarded(&path, || read(&path, source, target, &mut budget))?);
    }
    Ok(pairs)
}

fn read(path: &Path, source: &str, target: &str, budget: &mut Budget) -> Result<Vec<Pair>> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    pages::check_footer(path, &mut file)?;
    let again = file.try_clone().map_err(|e| Error::io(path, e))?;
    let reader = SerializedFileReader::new(again).map_err(|e| unreadable(path, e))?;
    let schema = reader.metadata().file_metadata().schema();
    let (columns, inside) = projection(path, schema, [source, target])?;
    let leaf = |name: &str| match inside {
        true => format!("{COLUMN}.{name}"),
        false => name.to_string(),
    };
    let leaves = [leaf(source), leaf(target)];
    let wanted = |column: &str| leaves.iter().any(|leaf| leaf == column);
    pages::check_pages(path, &mut file, reader.metadata(), wanted)?;
    let mut pairs = Vec::new();
    let rows = reader
        .get_row_iter(Some(columns))
        .map_err(|e| unreadable(path, e))?;
    for record in rows {
        let record = record.map_err(|e| unreadable(path, e))?;
        let record = if inside {
            within(record, path, pairs.len() + 1)?
        } else {
            record
        };
        let pair = to_pair(record, path, source, target, pairs.len() + 1)?;
        budget.take(path, pair.source.len() + pair.target.len())?;
        pairs.push(pair);
    }
    if pairs.is_empty() {
        return Err(Error::Empty {
            path: path.to_path_buf(),
            expected: format!("sentences in {source} and {target}"),
        });
    }
    Ok(pairs)
}

/// The columns that are read, and whether they are fields of one column.
fn projection(path: &Path, schema: &Type, names: [&str; 2]) -> Result<(Type, bool)> {
    let all = schema.get_fields();
    let group = all
        .iter()
        .find(|field| field.name() == COLUMN && !field.is_primitive());
    let fields = group.map_or(all, |group| group.get_fields());
    for name in names {
        if !fields.iter().any(|field| field.name() == name) {
            let found: Vec<&str> = fields.iter().map(|field| field.name()).collect();
            return Err(Error::MissingColumn {
                path: path.to_path_buf(),
                task: COLUMN,
                column: name.to_string(),
                found: excerpt(&found.join(", ")),
            });
        }
    }
    let wanted = fields.iter().filter(|field| names.contains(&field.name()));
    let wanted: Vec<TypePtr> = wanted.cloned().collect();
    if let Some(field) = wanted.iter().find(|field| !field.is_primitive()) {
        return Err(not_text(
            path,
            1,
            field.name(),
            "a structure or a list".to_string(),
        ));
    }
    let made = |name: &str, fields, like: Option<&Type>| {
        let builder = Type::group_type_builder(name).with_fields(fields);
        // How often a column is there must stay: it says how its rows are packed.
        let repetition = like
            .map(Type::get_basic_info)
            .filter(|info| info.has_repetition());
        let builder = match repetition {
            Some(info) => builder.with_repetition(info.repetition()),
            None => builder,
        };
        builder.build().map_err(|e| unreadable(path, e))
    };
    let fields = match group {
        Some(group) => vec![Arc::new(made(COLUMN, wanted, Some(group))?)],
        None => wanted,
    };
    Ok((made(schema.name(), fields, None)?, group.is_some()))
}

/// The fields of the one column of a row.
fn within(record: Record, path: &Path, number: usize) -> Result<Record> {
    match record.into_columns().into_iter().next() {
        Some((_, Field::Group(fields))) => Ok(fields),
        other => {
            let got = other.map_or("nothing".to_string(), |(_, field)| {
                excerpt(&field.to_string())
            });
            Err(not_text(path, number, COLUMN, got))
        }
    }
}

fn to_pair(record: Record, path: &Path, source: &str, target: &str, number: usize) -> Result<Pair> {
    let (mut first, mut second) = (None, None);
    for (name, field) in record.into_columns() {
        let text = to_text(field, path, &name, number)?;
        // Both, where a language is asked for twice.
        if name == source {
            first = Some(text.clone());
        }
        if name == target {
            second = Some(text);
        }
    }
    match (first, second) {
        (Some(source), Some(target)) => Ok(Pair { source, target }),
        _ => Err(not_text(
            path,
            number,
            COLUMN,
            "a language is missing".to_string(),
        )),
    }
}

fn not_text(path: &Path, number: usize, column: &str, got: String) -> Error {
    Error::BadField {
        path: path.to_path_buf(),
        place: Place::Row(number),
        column: column.to_string(),
        expected: "a text for each language",
        got,
    }
}
