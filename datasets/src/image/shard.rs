//! A parquet file of pictures in the Hub's layout: a struct of `bytes` and `path`, and `label`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::SerializedRowGroupReader;

use crate::error::{Error, Place, Result};
use crate::excerpt::excerpt;
use crate::pages;
use crate::shards::{guarded, unreadable};

/// The column of class numbers.
const LABEL: &str = "label";
/// Where the footer says what the columns mean.
const FEATURES: &str = "huggingface";

/// An open file: labels in memory, pictures on disk.
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    /// The class of each row.
    pub(crate) labels: Vec<u32>,
    /// The names of the classes, if the file says them.
    pub(crate) names: Option<Vec<String>>,
    metadata: ParquetMetaData,
    /// The name of the struct of pictures.
    column: String,
    /// The place of its `bytes` among the file's plain columns.
    leaf: usize,
}

impl Shard {
    /// Opens a file whose pictures are in the column `column`.
    ///
    /// # Errors
    /// If it is unreadable, empty, lacks a column, or has a label that is no class number.
    pub(crate) fn open(path: &Path, column: &str, data_set: &'static str) -> Result<Self> {
        guarded(path, || Self::read(path, column, data_set))
    }

    fn read(path: &Path, column: &str, data_set: &'static str) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
        pages::check_footer(path, &mut file)?;
        let metadata = ParquetMetaDataReader::new()
            .parse_and_finish(&file)
            .map_err(|e| unreadable(path, e))?;
        let schema = metadata.file_metadata().schema_descr();
        let names: Vec<String> = schema.columns().iter().map(|c| c.path().string()).collect();
        let find = |name: String| {
            let missing = || Error::MissingColumn {
                path: path.to_path_buf(),
                task: data_set,
                column: name.clone(),
                found: excerpt(&names.join(", ")),
            };
            names.iter().position(|n| *n == name).ok_or_else(missing)
        };
        let leaf = find(format!("{column}.bytes"))?;
        let label = find(LABEL.to_string())?;
        let read = |path: &str| path == names[leaf] || path == names[label];
        pages::check_pages(path, &mut file, &metadata, read)?;
        let mut shard = Self {
            path: path.to_path_buf(),
            labels: Vec::new(),
            names: class_names(&metadata),
            metadata,
            column: column.to_string(),
            leaf,
        };
        shard.labels = shard.read_labels(label)?;
        if shard.labels.is_empty() {
            return Err(Error::Empty {
                path: path.to_path_buf(),
                expected: format!("the pictures of {data_set}"),
            });
        }
        Ok(shard)
    }

    /// The encoded picture of a row. Of its row group only the pages before it and its own page
    /// are looked at, and only the latter is unpacked.
    ///
    /// # Errors
    /// If there is none, or the file cannot be read.
    pub(crate) fn bytes(&self, row: usize) -> Result<Vec<u8>> {
        let mut start = 0;
        for (group, metadata) in self.metadata.row_groups().iter().enumerate() {
            let rows = metadata.num_rows().max(0) as usize;
            if row < start + rows {
                let mut found = self.read_bytes(group, row - start, 1, start)?;
                let found = found.pop().ok_or_else(|| self.no_picture(row))?;
                return Ok(found.data().to_vec());
            }
            start += rows;
        }
        Err(self.no_picture(row))
    }

    /// Gives each row group's encoded pictures, in order, to `each`, with the first one's row.
    ///
    /// # Errors
    /// If a picture is missing, the file cannot be read, or for the reasons of `each`.
    pub(crate) fn for_each_group(
        &self,
        mut each: impl FnMut(usize, Vec<ByteArray>) -> Result<()>,
    ) -> Result<()> {
        let mut start = 0;
        for (group, metadata) in self.metadata.row_groups().iter().enumerate() {
            let rows = metadata.num_rows().max(0) as usize;
            each(start, self.read_bytes(group, 0, rows, start)?)?;
            start += rows;
        }
        Ok(())
    }

    /// `count` pictures of a row group after the first `skip`; `start` is the group's first row. Not copied:
    /// a dictionary's picture may be that of any number of rows.
    fn read_bytes(
        &self,
        group: usize,
        skip: usize,
        count: usize,
        start: usize,
    ) -> Result<Vec<ByteArray>> {
        guarded(&self.path, || self.unguarded(group, skip, count, start))
    }

    fn unguarded(
        &self,
        group: usize,
        skip: usize,
        count: usize,
        start: usize,
    ) -> Result<Vec<ByteArray>> {
        let ColumnReader::ByteArrayColumnReader(reader) = self.column_reader(group, self.leaf)?
        else {
            return Err(self.bad_field(start, &format!("{}.bytes", self.column), "bytes"));
        };
        let values = self.values::<ByteArrayType>(reader, skip, count)?;
        if values.len() < count {
            return Err(self.no_picture(start + skip + values.len()));
        }
        Ok(values)
    }

    /// The values of a column up to the first that is null.
    fn values<T: DataType>(
        &self,
        mut reader: ColumnReaderImpl<T>,
        skip: usize,
        count: usize,
    ) -> Result<Vec<T::T>> {
        let fails = |e: ParquetError| unreadable(&self.path, e);
        reader.skip_records(skip).map_err(fails)?;
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let mut read = 0;
        while read < count {
            let (records, _, _) = reader
                .read_records(count - read, Some(&mut levels), None, &mut values)
                .map_err(fails)?;
            if records == 0 {
                break;
            }
            read += records;
        }
        // Without optional columns no levels are written; a level below the highest is a null.
        let highest = levels.iter().copied().max().unwrap_or(0);
        if values.len() < read {
            let whole = match values.len() {
                0 => 0,
                _ => levels.iter().take_while(|&&level| level == highest).count(),
            };
            values.truncate(whole);
        }
        Ok(values)
    }

    fn column_reader(&self, group: usize, leaf: usize) -> Result<ColumnReader> {
        // A file of its own for each read: threads sharing one would share its position.
        let file = File::open(&self.path).map_err(|e| Error::io(&self.path, e))?;
        SerializedRowGroupReader::new(
            Arc::new(file),
            self.metadata.row_group(group),
            self.metadata.page_index_for_row_group(group),
            Arc::new(ReaderProperties::builder().build()),
        )
        .and_then(|reader| reader.get_column_reader(leaf))
        .map_err(|e| unreadable(&self.path, e))
    }

    fn read_labels(&self, leaf: usize) -> Result<Vec<u32>> {
        let mut labels = Vec::new();
        for (group, metadata) in self.metadata.row_groups().iter().enumerate() {
            let (start, rows) = (labels.len(), metadata.num_rows().max(0) as usize);
            let values: Vec<i64> = match self.column_reader(group, leaf)? {
                ColumnReader::Int64ColumnReader(reader) => self.values(reader, 0, rows)?,
                ColumnReader::Int32ColumnReader(reader) => {
                    let values = self.values(reader, 0, rows)?;
                    values.into_iter().map(i64::from).collect()
                }
                _ => return Err(self.bad_field(start, LABEL, "an integer")),
            };
            for value in &values {
                let label = u32::try_from(*value).map_err(|_| Error::BadLabel {
                    path: self.path.clone(),
                    place: Place::Row(labels.len() + 1),
                    column: LABEL,
                    expected: "a class number; test files keep theirs secret (-1)".to_string(),
                    got: value.to_string(),
                })?;
                labels.push(label);
            }
            if values.len() < rows {
                return Err(self.bad_field(start + values.len(), LABEL, "an integer"));
            }
        }
        Ok(labels)
    }

    fn no_picture(&self, row: usize) -> Error {
        self.bad_field(row, &format!("{}.bytes", self.column), "an encoded picture")
    }

    fn bad_field(&self, row: usize, column: &str, expected: &'static str) -> Error {
        Error::BadField {
            path: self.path.clone(),
            place: Place::Row(row + 1),
            column: column.to_string(),
            expected,
            got: "nothing, or another type".to_string(),
        }
    }
}

/// The class names in the footer: `info.features.label.names` of a JSON text.
fn class_names(metadata: &ParquetMetaData) -> Option<Vec<String>> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    let text = pairs
        .iter()
        .find(|pair| pair.key == FEATURES)?
        .value
        .as_ref()?;
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    let names = json.pointer("/info/features/label/names")?.as_array()?;
    names
        .iter()
        .map(|name| Some(name.as_str()?.to_string()))
        .collect()
}
