//! How much of a file is believed: what a damaged or hostile one may cost.
//!
//! Every number here is far above what the data sets of this crate have, and far below what would fill
//! a machine's memory. They are public, so that who meets one knows what it was.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// Bytes of the longest line of a text file, and of the longest text that is encoded. GLUE's longest
/// have some thousand.
pub const LONGEST_LINE: usize = 1 << 20;
/// Rows of one file that is read into memory: ten times MNLI.
pub const MOST_ROWS: usize = 1 << 22;
/// Bytes of text of one file that is read into memory: seven times MNLI.
pub const MOST_TEXT: usize = 512 << 20;
/// Pixels of the largest picture: the largest of ImageNet has 61 million.
pub const MOST_PIXELS: u64 = 1 << 26;
/// Height and width of what a picture is resized or cropped to.
pub const LONGEST_SIDE: usize = 1 << 14;
/// Bytes of the largest `tokenizer.json` or `vocab.txt`; those of large language models have 35 million.
pub const LARGEST_TOKENIZER: u64 = 128 << 20;
/// Bytes of the largest list or configuration that is read as a whole.
pub const LARGEST_LIST: u64 = 64 << 20;
/// Symbols of the largest dictionary, and merges of the largest list of them; the words of the billion word benchmark are 793 thousand.
pub const MOST_SYMBOLS: usize = 1 << 20;
/// Different words that a vocabulary of pieces is learned from: two hundred megabytes of them.
pub const MOST_WORDS: usize = 1 << 22;
/// Unpacked bytes of a page of a parquet file. Writers aim at one million; a page of pictures may hold
/// a hundred of them.
pub const LARGEST_PAGE: usize = 256 << 20;
/// Unpacked bytes of the dictionary of a parquet column. Writers aim at one million, too, but Arrow looks only after each
/// 1,024 values: the pictures of a whole row group may lie in it.
pub const LARGEST_DICTIONARY: usize = LARGEST_PAGE;
/// Batches that are made ahead of the step.
pub const MOST_AHEAD: usize = 1024;

/// A whole file, unless it is longer than `most` bytes: looked at before memory is asked for.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    // What is no plain file has no length: a limit for the reading, too.
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    if length <= most {
        let read = file.take(most + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::io(path, e))?;
    }
    if length.max(bytes.len() as u64) > most {
        return Err(Error::TooMuch {
            path: path.to_path_buf(),
            what: "bytes",
            most,
        });
    }
    Ok(bytes)
}

/// [`read`], as text.
pub(crate) fn read_text(path: &Path, most: u64) -> Result<String> {
    let mut text = String::from_utf8(read(path, most)?).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Error::InvalidUtf8 {
            path: path.to_path_buf(),
            place: crate::Place::Line(1 + valid.iter().filter(|&&byte| byte == b'\n').count()),
        }
    })?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}

/// Counts what one file puts into memory.
pub(crate) struct Budget {
    rows: usize,
    text: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            rows: MOST_ROWS,
            text: MOST_TEXT,
        }
    }
}

impl Budget {
    #[cfg(test)]
    pub(crate) fn new(rows: usize, text: usize) -> Self {
        Self { rows, text }
    }

    /// One row more, with so many bytes of text.
    pub(crate) fn take(&mut self, path: &Path, text: usize) -> Result<()> {
        let too_much = |what, most: usize| Error::TooMuch {
            path: path.to_path_buf(),
            what,
            most: most as u64,
        };
        let rows = self.rows.checked_sub(1);
        self.rows = rows.ok_or_else(|| too_much("rows", MOST_ROWS))?;
        let left = self.text.checked_sub(text);
        self.text = left.ok_or_else(|| too_much("bytes of text", MOST_TEXT))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_with_its_rows_or_its_text() {
        let path = Path::new("train.tsv");
        let mut budget = Budget::new(2, 10);
        assert!(budget.take(path, 4).is_ok());
        assert!(budget.take(path, 6).is_ok());
        let text = budget.take(path, 0).unwrap_err().to_string();
        assert!(
            text.contains("train.tsv") && text.contains("4194304 rows"),
            "{text}"
        );
        let mut budget = Budget::new(9, 10);
        assert!(budget.take(path, 10).is_ok());
        let text = budget.take(path, 1).unwrap_err().to_string();
        assert!(text.contains("536870912 bytes of text"), "{text}");
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.txt");
        std::fs::write(&path, "\u{feff}abc").unwrap();
        assert_eq!(read(&path, 6).unwrap().len(), 6);
        assert_eq!(read_text(&path, 6).unwrap(), "abc");
        let text = read(&path, 5).unwrap_err().to_string();
        assert!(
            text.contains("list.txt") && text.contains("more than 5 bytes"),
            "{text}"
        );
        std::fs::write(&path, b"a\nb\n\xff").unwrap();
        assert!(
            read_text(&path, 9)
                .unwrap_err()
                .to_string()
                .contains("line 3")
        );
        // Longer than any memory, and without a byte on the disk.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(read(&path, 5), Err(Error::TooMuch { .. })));
        // No plain file: it has no length, and no end.
        let endless = read(Path::new("/dev/zero"), 5);
        assert!(!cfg!(unix) || matches!(endless, Err(Error::TooMuch { .. })));
    }
}
