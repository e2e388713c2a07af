//! Parquet files as the Hub has them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::damaged;
use crate::random::Random;
use crate::split::Split;
use crate::translation::{Pair, read_parquet, read_parquet_folder};

const NESTED: &str = "message schema { optional group translation { optional binary de (UTF8); optional binary en (UTF8); } }";
const FLAT: &str =
    "message schema { optional int32 id; optional binary en (UTF8); optional binary de (UTF8); }";

/// A file whose column `c` has `columns[c]`, all present, at this level.
fn written(path: &Path, schema: &str, level: i16, columns: &[[&str; 2]]) -> PathBuf {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut columns = columns.iter();
    while let Some(mut column) = group.next_column().unwrap() {
        let texts = columns.next().unwrap();
        if texts[0] == "1" {
            column
                .typed::<Int32Type>()
                .write_batch(&[1, 2], Some(&[level; 2]), None)
                .unwrap();
        } else {
            let texts = texts.map(|text| ByteArray::from(text.as_bytes().to_vec()));
            column
                .typed::<ByteArrayType>()
                .write_batch(&texts, Some(&[level; 2]), None)
                .unwrap();
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    path.to_path_buf()
}

const DE: [&str; 2] = ["ein Haus", "alt"];
const EN: [&str; 2] = ["a house", "old"];

fn expected() -> [Pair; 2] {
    [Pair::new(DE[0], EN[0]), Pair::new(DE[1], EN[1])]
}

#[test]
fn one_column_of_languages_or_two() {
    let dir = tempfile::tempdir().unwrap();
    let nested = written(&dir.path().join("a.parquet"), NESTED, 2, &[DE, EN]);
    let flat = written(
        &dir.path().join("b.parquet"),
        FLAT,
        1,
        &[["1", "2"], EN, DE],
    );
    for path in [&nested, &flat] {
        assert_eq!(read_parquet(path, "de", "en").unwrap(), expected());
        let turned = read_parquet(path, "en", "de").unwrap();
        assert_eq!(turned[1], Pair::new("old", "alt"));
        let error = read_parquet(path, "de", "fr").unwrap_err().to_string();
        assert!(
            error.contains("no column \"fr\" for translation") && error.contains("en"),
            "{error}"
        );
    }
    let error = read_parquet(&flat, "id", "en").unwrap_err().to_string();
    assert!(
        error.contains("column \"id\"") && error.contains("expected text"),
        "{error}"
    );
    let none = written(
        &dir.path().join("c.parquet"),
        NESTED,
        1,
        &[["", ""], ["", ""]],
    );
    assert!(read_parquet(&none, "de", "en").is_err());
}

#[test]
fn shards_are_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("de-en");
    std::fs::create_dir(&folder).unwrap();
    for shard in 0..2 {
        let name = format!("train-0000{shard}-of-00002.parquet");
        written(&folder.join(name), NESTED, 2, &[DE, EN]);
    }
    let pairs = read_parquet_folder(dir.path(), "de-en", Split::Train, "de", "en").unwrap();
    assert_eq!(pairs, [expected(), expected()].concat());
    assert!(read_parquet_folder(dir.path(), "de-en", Split::Test, "de", "en").is_err());
}

#[test]
fn damaged_files_are_errors_or_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(&dir.path().join("a.parquet"), NESTED, 2, &[DE, EN]);
    let whole = std::fs::read(&path).unwrap();
    let mut random = Random::new(3, 0);
    for _ in 0..500 {
        std::fs::write(&path, damaged(&whole, &mut random)).unwrap();
        drop(read_parquet(&path, "de", "en"));
    }
}
