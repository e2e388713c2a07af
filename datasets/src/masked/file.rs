//! Lines of prose from a file.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::limits::Budget;
#[cfg(doc)]
use crate::limits::MOST_TEXT;
use crate::plain_text::{self, for_each_line, is_parquet};
use crate::shards::shards;
use crate::split::Split;

/// Counts the changes of [`as_prose`] and [`is_heading`]: what was made with another is made again.
const PREPARATION: u8 = 1;

/// A text on the disk: its lines that say something.
///
/// A plain file, a `.gz`, or a parquet file of the Hub with lines in a column `text`, of which
/// `NAME-00000-of-NNNNN.parquet` stands for all of its shards. Of a file whose name has `.tokens` in it, or is `wiki.*.raw`,
/// as WikiText's are, and of a parquet file, the headings (` = Title = `) are left out, ` @-@ `, ` @,@ ` and ` @.@ ` become
/// `-`, `,` and `.`, and `<unk>` becomes `[UNK]`, BERT's unknown token, which [`Packed`](crate::Packed) takes as the
/// tokenizer calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFile {
    /// The file.
    pub path: PathBuf,
    /// Of how many of its lines it is made, from the first one on; of all of them where none is said.
    pub most: Option<usize>,
}

impl TextFile {
    /// All lines of a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            most: None,
        }
    }

    /// The file of a split in a folder, by the usual names: `train`, `valid`, `validation`, `val` or `dev`, and `test`, with
    /// `.txt`, or WikiText's `wiki.train.tokens`, `wiki.train.raw` and the like; each with `.gz`, too; or the Hub's
    /// `train-NNNNN-of-NNNNN.parquet` (`validation`, `test`).
    ///
    /// # Errors
    /// If there is none of them, or a shard is missing.
    pub fn find(dir: &Path, split: Split) -> Result<Self> {
        let (names, parquet): (&[&str], _) = match split {
            Split::Train => (
                &["train.txt", "wiki.train.tokens", "wiki.train.raw"],
                "train",
            ),
            Split::Validation => (
                &[
                    "valid.txt",
                    "validation.txt",
                    "val.txt",
                    "dev.txt",
                    "wiki.valid.tokens",
                    "wiki.valid.raw",
                ],
                "validation",
            ),
            Split::Test => (&["test.txt", "wiki.test.tokens", "wiki.test.raw"], "test"),
        };
        let plain = names.iter().map(|name| dir.join(name));
        let packed = names.iter().map(|name| dir.join(format!("{name}.gz")));
        let mut found = plain.chain(packed).filter(|path| path.is_file());
        if let Some(path) = found.next() {
            return Ok(Self::new(path));
        }
        let what = format!("{split} text");
        match shards(dir, "", parquet, &what) {
            Ok(shards) => Ok(Self::new(shards.into_iter().next().unwrap_or_default())),
            Err(Error::NotFound { .. }) => Err(Error::NotFound {
                what,
                dir: dir.to_path_buf(),
                tried: format!(
                    "{}, each with .gz, too, and {parquet}-NNNNN-of-NNNNN.parquet",
                    names.join(", ")
                ),
            }),
            Err(other) => Err(other),
        }
    }

    /// What to do with each line, in order; in memory is one line at a time.
    ///
    /// # Errors
    /// If the file cannot be read, is not UTF-8, has a line that is too long, or says nothing; those of `each`.
    pub fn for_each_line(&self, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let (prepared, most) = (self.is_prepared(), self.most.unwrap_or(usize::MAX));
        let mut count = 0;
        for_each_line(&self.path, |line| {
            if count >= most {
                return Ok(ControlFlow::Break(()));
            }
            if prepared && is_heading(line) {
                return Ok(ControlFlow::Continue(()));
            }
            let line = match prepared {
                true => as_prose(line),
                false => line.trim().to_string(),
            };
            if !line.is_empty() {
                count += 1;
                each(&line)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        match count {
            0 => Err(Error::Empty {
                path: self.path.clone(),
                expected: "lines of text".into(),
            }),
            _ => Ok(()),
        }
    }

    /// All lines in memory.
    ///
    /// # Errors
    /// As [`TextFile::for_each_line`]; if there are more than [`MOST_TEXT`] bytes of them.
    pub fn lines(&self) -> Result<Vec<String>> {
        let (mut lines, mut budget) = (Vec::new(), Budget::default());
        self.for_each_line(|line| {
            budget.take(&self.path, line.len())?;
            lines.push(line.to_string());
            Ok(())
        })?;
        Ok(lines)
    }

    /// Whether its lines were made for other programs, and become prose again.
    fn is_prepared(&self) -> bool {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name.contains(".tokens")
            || name.starts_with("wiki.") && name.contains(".raw")
            || is_parquet(&self.path)
    }

    /// A checksum of the file's bytes, of how they are read, and of the number of lines that are asked for.
    pub(super) fn checksum(&self) -> Result<u32> {
        let mut crc = flate2::Crc::new();
        crc.update(&[PREPARATION, u8::from(self.is_prepared())]);
        crc.update(&plain_text::checksum(&self.path)?.to_le_bytes());
        crc.update(&(self.most.map_or(u64::MAX, |most| most as u64)).to_le_bytes());
        Ok(crc.sum())
    }
}

/// ` = Title = `, ` = = Section = = `.
fn is_heading(line: &str) -> bool {
    let line = line.trim();
    line.len() > 1 && line.starts_with('=') && line.ends_with('=')
}

/// A prepared line without the marks of its preparation.
fn as_prose(line: &str) -> String {
    let mut line = line.trim().replace("<unk>", "[UNK]");
    for (mark, sign) in [(" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", ".")] {
        line = line.replace(mark, sign);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        TextFile::new(path).lines()
    }

    #[test]
    fn prepared_lines_become_prose() {
        let text = " \n = Valkyria = \n \n role @-@ playing , 1 @,@ 000 of <unk> \n = = Plot = = \n a = b\n";
        let expected = ["role-playing , 1,000 of [UNK]", "a = b"];
        assert_eq!(read("wiki.train.tokens", text).unwrap(), expected);
        // Other files are taken at their word.
        let plain = read("train.txt", " = Title = \n\n a @-@ b <unk>\r\n").unwrap();
        assert_eq!(plain, ["= Title =", "a @-@ b <unk>"]);
    }

    #[test]
    fn a_file_that_says_nothing_is_an_error_with_its_name() {
        for (name, text) in [("train.txt", " \n\n"), ("wiki.train.tokens", " = A = \n")] {
            let error = read(name, text).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let error = TextFile::find(dir.path(), Split::Validation)
            .unwrap_err()
            .to_string();
        assert!(error.contains("wiki.valid.tokens"), "{error}");
        std::fs::write(dir.path().join("dev.txt"), "a").unwrap();
        assert!(
            TextFile::find(dir.path(), Split::Validation)
                .unwrap()
                .path
                .ends_with("dev.txt")
        );
    }
}
