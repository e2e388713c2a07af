//! The lines of a text: of a file, or of a column of parquet files.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flate2::Crc;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{Type, TypePtr};

use crate::error::{Error, Place, Result};
use crate::excerpt::excerpt;
use crate::glue::to_text;
use crate::lines::Lines;
use crate::pages;
use crate::shards::{guarded, shards, unreadable};

/// The column of a parquet file that has the text, as the Hub's `Salesforce/wikitext` has it.
const COLUMN: &str = "text";

/// The files that a text is: itself, and of a parquet file `NAME-NNNNN-of-NNNNN.parquet` all of its shards.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let name = path.file_name().and_then(|name| name.to_str());
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let shard = name.and_then(|name| {
        let (rest, count) = name.strip_suffix(".parquet")?.rsplit_once("-of-")?;
        let (name, number) = rest.rsplit_once('-')?;
        [number, count].iter().all(is_number).then_some(name)
    });
    match shard {
        Some(name) => {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            let dir = dir.unwrap_or(Path::new("."));
            shards(dir, "", name, "shards of a text")
        }
        None => Ok(vec![path.to_path_buf()]),
    }
}

/// Whether to go on, after a line.
type Next = Result<ControlFlow<()>>;

/// What to do with each line of a text, in order, until it says that this is enough.
pub(crate) fn for_each_line(path: &Path, mut line: impl FnMut(&str) -> Next) -> Result<()> {
    for file in files(path)? {
        let next = match is_parquet(&file) {
            true => guarded(&file, || rows(&file, &mut line))?,
            false => lines(&file, &mut line)?,
        };
        if next.is_break() {
            break;
        }
    }
    Ok(())
}

/// The lines of a plain file.
fn lines(path: &Path, line: &mut impl FnMut(&str) -> Next) -> Next {
    let mut lines = Lines::open(path)?;
    while let Some((_, text)) = lines.next()? {
        if line(&text)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Whether a file is one of the Hub's tables.
pub(crate) fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "parquet")
}

/// The CRC-32 of a text's bytes, as they are on the disk.
pub(crate) fn checksum(path: &Path) -> Result<u32> {
    let (mut crc, mut bytes) = (Crc::new(), vec![0; 1 << 16]);
    for path in files(path)? {
        let failed = |e| Error::io(&path, e);
        let mut file = File::open(&path).map_err(failed)?;
        loop {
            match file.read(&mut bytes).map_err(failed)? {
                0 => break,
                count => crc.update(&bytes[..count]),
            }
        }
    }
    Ok(crc.sum())
}

/// The lines of a parquet file's column: a row is one, with its end or without, or several.
fn rows(path: &Path, line: &mut impl FnMut(&str) -> Next) -> Next {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    pages::check_footer(path, &mut file)?;
    let again = file.try_clone().map_err(|e| Error::io(path, e))?;
    let reader = SerializedFileReader::new(again).map_err(|e| unreadable(path, e))?;
    let column = projection(path, reader.metadata().file_metadata().schema())?;
    // However many rows: one at a time is in memory.
    let wanted = |leaf: &str| leaf == COLUMN;
    pages::check_pages_of(path, &mut file, reader.metadata(), wanted, u64::MAX)?;
    let rows = reader.get_row_iter(Some(column));
    for (number, record) in rows.map_err(|e| unreadable(path, e))?.enumerate() {
        let record = record.map_err(|e| unreadable(path, e))?;
        for (name, field) in record.into_columns() {
            let text = to_text(field, path, &name, number + 1)?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            for text in text.split('\n') {
                if line(text)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The column that is read, of all that the file may have.
fn projection(path: &Path, schema: &Type) -> Result<Type> {
    let all = schema.get_fields();
    let wanted: Vec<TypePtr> = all.iter().filter(|f| f.name() == COLUMN).cloned().collect();
    let Some(field) = wanted.first() else {
        let found: Vec<&str> = all.iter().map(|field| field.name()).collect();
        return Err(Error::MissingColumn {
            path: path.to_path_buf(),
            task: "language model",
            column: COLUMN.to_string(),
            found: excerpt(&found.join(", ")),
        });
    };
    if !field.is_primitive() {
        return Err(Error::BadField {
            path: path.to_path_buf(),
            place: Place::Row(1),
            column: COLUMN.to_string(),
            expected: "a text in each row",
            got: "a structure or a list".to_string(),
        });
    }
    let group = Type::group_type_builder(schema.name()).with_fields(wanted);
    group.build().map_err(|e| unreadable(path, e))
}
