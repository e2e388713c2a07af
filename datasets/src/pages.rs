//! What a parquet file says of its own size, checked before the parquet crate asks for that much memory.
//!
//! A footer and the heads of pages are small structures in Thrift's compact protocol with numbers that
//! the crate believes: the unpacked bytes of a page, the values of a dictionary, the length of a text, the
//! depth of a schema. A few changed bits are 2 GiB, or an end of the stack, which nobody can catch. So the
//! footer, and of the columns that will be read the heads of all pages, are gone through here first.
//!
//! Two encodings are refused: in those of differences of texts (DELTA_LENGTH_BYTE_ARRAY and
//! DELTA_BYTE_ARRAY) the numbers lie within the packed data, and a value may be the whole of the one before,
//! so that a small page unpacks to any size. The Hub's files do not have them.

mod thrift;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use crate::error::{Error, Result};
use crate::limits::{LARGEST_DICTIONARY, LARGEST_PAGE, MOST_ROWS};

use thrift::Thrift;

/// Bytes of the largest footer; that of a shard of ImageNet has a hundred thousand.
const LARGEST_FOOTER: u64 = 16 << 20;
/// Levels of the deepest schema: pictures have three.
const DEEPEST: usize = 16;
/// What a file ends with, after the length of its footer.
const MAGIC: &[u8; 4] = b"PAR1";
/// Bytes that are tried for the head of a page: statistics in it may be long.
const HEADS: [u64; 4] = [1 << 10, 1 << 14, 1 << 18, 1 << 24];
/// DELTA_LENGTH_BYTE_ARRAY and DELTA_BYTE_ARRAY.
const REFUSED: [i64; 2] = [6, 7];

fn refuse(path: &Path, reason: String) -> Error {
    Error::Parquet {
        path: path.to_path_buf(),
        reason,
        hint: "was the download cut off or damaged? fetch the file again",
    }
}

/// Checks the footer of an open file.
pub(crate) fn check_footer(path: &Path, file: &mut File) -> Result<()> {
    let io = |e| Error::io(path, e);
    let length = file.seek(SeekFrom::End(0)).map_err(io)?;
    let mut end = [0; 8];
    if length < 12 {
        return Err(refuse(path, format!("{length} bytes are too few")));
    }
    file.seek(SeekFrom::Start(length - 8)).map_err(io)?;
    file.read_exact(&mut end).map_err(io)?;
    if end[4..] != *MAGIC {
        return Err(refuse(path, "it does not end as one".to_string()));
    }
    let footer = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    if footer > (length - 8).min(LARGEST_FOOTER) {
        let reason = format!("a footer of {footer} bytes in a file of {length}");
        return Err(refuse(path, reason));
    }
    let bytes = read_at(file, length - 8 - footer, footer).map_err(io)?;
    // An element of the schema (field 2), and in it the number of its children (field 5).
    let numbers = Thrift(&bytes).numbers(&[2, 205]);
    let numbers = numbers.ok_or_else(|| refuse(path, "its footer is damaged".to_string()))?;
    if has_more_children(&numbers) {
        let reason = "an element of the schema with more children than there are elements";
        return Err(refuse(path, reason.to_string()));
    }
    match depth(&numbers) {
        DEEPEST.. => Err(refuse(path, "a schema of too many levels".to_string())),
        _ => Ok(()),
    }
}

/// Whether an element claims more children than there are elements, or fewer than none: the parquet crate
/// takes memory for as many as it says.
fn has_more_children(numbers: &[(i64, i64)]) -> bool {
    let elements = numbers.iter().filter(|(path, _)| *path == 2).count() as i64;
    let mut children = numbers.iter().filter(|(path, _)| *path != 2);
    children.any(|(_, number)| !(0..elements).contains(number))
}

/// The levels of a schema, whose elements come depth first.
fn depth(numbers: &[(i64, i64)]) -> usize {
    let (mut open, mut deepest) = (Vec::new(), 0);
    for &(path, number) in numbers {
        if path == 2 {
            // An element, without children as long as it says nothing else.
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
        } else if number > 0 {
            open.push(number);
            deepest = deepest.max(open.len());
        }
    }
    deepest
}

/// Checks that there are at most [`MOST_ROWS`] rows, which are read into memory, and all pages of the columns whose path
/// `wanted` accepts.
pub(crate) fn check_pages(
    path: &Path,
    file: &mut File,
    metadata: &ParquetMetaData,
    wanted: impl Fn(&str) -> bool,
) -> Result<()> {
    check_pages_of(path, file, metadata, wanted, MOST_ROWS as u64)
}

/// The same of at most so many rows.
pub(crate) fn check_pages_of(
    path: &Path,
    file: &mut File,
    metadata: &ParquetMetaData,
    wanted: impl Fn(&str) -> bool,
    most: u64,
) -> Result<()> {
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let (mut rows, mut left) = (0u64, length);
    for group in metadata.row_groups() {
        let count = u64::try_from(group.num_rows());
        let count = count.map_err(|_| refuse(path, "a negative number of rows".to_string()))?;
        rows = rows.saturating_add(count);
        if rows > most {
            return Err(Error::TooMuch {
                path: path.to_path_buf(),
                what: "rows",
                most,
            });
        }
        for column in group.columns() {
            if wanted(&column.column_path().string()) {
                let (start, bytes) = place(column)
                    .filter(|&(_, bytes)| bytes <= left)
                    .ok_or_else(|| refuse(path, "columns beyond its end".to_string()))?;
                // Columns share no bytes: so that going through them ends with the file.
                left -= bytes;
                check_column(path, file, start, bytes)?;
            }
        }
    }
    Ok(())
}

/// Where a column begins and how long it is, as the parquet crate takes it.
fn place(column: &ColumnChunkMetaData) -> Option<(u64, u64)> {
    let first = column.dictionary_page_offset();
    let start = u64::try_from(first.unwrap_or(column.data_page_offset())).ok()?;
    let bytes = u64::try_from(column.compressed_size()).ok()?;
    Some((start, bytes))
}

fn check_column(path: &Path, file: &mut File, mut at: u64, mut left: u64) -> Result<()> {
    while left > 0 {
        let (head, bytes) = head_at(path, file, at, left)?;
        head.check(path)?;
        let whole = (bytes as u64).checked_add(head.packed(path)?);
        let whole = whole.filter(|whole| *whole <= left);
        let whole = whole.ok_or_else(|| refuse(path, "a page beyond its column".to_string()))?;
        (at, left) = (at + whole, left - whole);
    }
    Ok(())
}

/// The head of the page at a place, and how long the head is.
fn head_at(path: &Path, file: &mut File, at: u64, left: u64) -> Result<(Head, usize)> {
    for most in HEADS {
        let bytes = read_at(file, at, most.min(left)).map_err(|e| Error::io(path, e))?;
        let mut thrift = Thrift(&bytes);
        if let Some(numbers) = thrift.numbers(&Head::WANTED) {
            let length = bytes.len() - thrift.0.len();
            return Ok((Head(numbers), length));
        }
        if most >= left || (bytes.len() as u64) < most {
            break;
        }
    }
    Err(refuse(path, "a damaged head of a page".to_string()))
}

/// The numbers of a page's head. A field that is there twice is checked twice.
struct Head(Vec<(i64, i64)>);

impl Head {
    const UNPACKED: i64 = 2;
    const PACKED: i64 = 3;
    /// Values of a page of data, of a dictionary, of a page of data in version 2; then the encodings.
    const VALUES: [i64; 3] = [501, 701, 801];
    const ENCODINGS: [i64; 3] = [502, 702, 804];
    const WANTED: [i64; 8] = [2, 3, 501, 701, 801, 502, 702, 804];

    fn all(&self, path: i64) -> impl Iterator<Item = i64> + '_ {
        let found = self.0.iter().filter(move |(at, _)| *at == path);
        found.map(|(_, number)| *number)
    }

    fn packed(&self, path: &Path) -> Result<u64> {
        let packed = self.all(Self::PACKED).last();
        let packed = packed.and_then(|bytes| u64::try_from(bytes).ok());
        packed.ok_or_else(|| refuse(path, "a page without a length".to_string()))
    }

    fn check(&self, path: &Path) -> Result<()> {
        let dictionary = self.all(Self::VALUES[1]).last();
        let most = match dictionary {
            Some(_) => LARGEST_DICTIONARY,
            None => LARGEST_PAGE,
        };
        let unpacked = self.all(Self::UNPACKED).max().unwrap_or(0);
        if unpacked > most as i64 {
            let reason = format!("a page of {unpacked} unpacked bytes, of at most {most}");
            return Err(refuse(path, reason));
        }
        // No value of a dictionary takes less than a byte.
        if dictionary.is_some_and(|values| values > unpacked) {
            let reason = format!("a dictionary of more values than its {unpacked} bytes");
            return Err(refuse(path, reason));
        }
        let mut counts = Self::VALUES.iter().flat_map(|&at| self.all(at));
        if let Some(values) = counts.find(|values| !(0..=MOST_ROWS as i64).contains(values)) {
            return Err(refuse(path, format!("a page of {values} values")));
        }
        let mut encodings = Self::ENCODINGS.iter().flat_map(|&at| self.all(at));
        if encodings.any(|encoding| REFUSED.contains(&encoding)) {
            return Err(Error::Parquet {
                path: path.to_path_buf(),
                reason: "texts as differences to others (DELTA_BYTE_ARRAY)".to_string(),
                hint: "write the file again with plain or dictionary encoding",
            });
        }
        Ok(())
    }
}

/// Bytes of a file from a place on, fewer at its end.
fn read_at(file: &mut File, at: u64, most: u64) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::with_capacity(most as usize);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
